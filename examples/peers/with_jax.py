"""The steps in JAX: each is one compiled function of weights, state and images."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from peers.workloads import data
from tinygrad_mnist.verification.steps import WIDTHS


def jax_step(step):
    """The step as a function, compiled by ``jax.jit``; its result may be still to come."""
    x, _, onehot = map(jnp.asarray, data(step))
    weights, network = layers_of(step)
    update, states_of = optimizer_of(step)
    flat, tree = jax.tree.flatten(weights)

    def cost(flat, key, x):
        return cost_of(step, network(jax.tree.unflatten(tree, flat), key, x), onehot)

    @jax.jit
    def compiled(flat, states, key, t, x):
        key, now = jax.random.split(key)
        loss, grads = jax.value_and_grad(cost)(flat, now, x)
        pairs = [update(p, g, s, t) for p, g, s in zip(flat, grads, states, strict=True)]
        return loss, [p for p, _ in pairs], [s for _, s in pairs], key, t + 1

    carried = [flat, [states_of(p) for p in flat], jax.random.key(0), jnp.float32(1)]

    def run():
        loss, *carried[:] = compiled(*carried, x)
        return loss

    return run


# ---- networks: weights, and a function of weights, key and images


def layers_of(step):
    """The weights of a step, and its network as a function of weights, key and images."""
    draw = np.random.default_rng(0)
    if step.startswith("cnn"):
        shapes = [(10, 1, 5, 5), (20, 10, 5, 5), (50, 320), (10, 50)]
        network = convolutions
    else:
        shapes = [(after, before) for before, after in itertools.pairwise(WIDTHS[step])]
        network = relu_and_dropout if step.startswith("mlp") else sigmoids
    return [layer(draw, shape) for shape in shapes], network


def layer(draw, shape):
    bound = np.prod(shape[1:]) ** -0.5
    return [
        jnp.asarray(draw.uniform(-bound, bound, size), jnp.float32) for size in (shape, shape[:1])
    ]


def convolutions(weights, key, x):
    conv1, conv2, (w1, b1), (w2, b2) = weights
    first, second = jax.random.split(key)
    h = jax.nn.relu(pooled(conv(x, *conv1)))
    h = dropped(conv(h, *conv2), first, 0.5, (len(x), 20, 1, 1))
    h = jax.nn.relu(pooled(h)).reshape(len(x), -1)
    h = dropped(jax.nn.relu(h @ w1.T + b1), second, 0.5, (len(x), 50))
    return h @ w2.T + b2


def relu_and_dropout(weights, key, x):
    (w1, b1), (w2, b2) = weights
    h = dropped(jax.nn.relu(x @ w1.T + b1), key, 0.2, (len(x), 128))
    return h @ w2.T + b2


def sigmoids(weights, key, x):
    *hidden, (w, b) = weights
    for weight, bias in hidden:
        x = jax.nn.sigmoid(x @ weight.T + bias)
    return x @ w.T + b


def conv(x, weight, bias):
    return jax.lax.conv(x, weight, (1, 1), "VALID") + bias[:, None, None]


def pooled(x):
    halves = (1, 1, 2, 2)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, halves, halves, "VALID")


def dropped(x, key, p, shape):
    return x * jax.random.bernoulli(key, 1 - p, shape) / (1 - p)


# ---- losses and optimizers


def cost_of(step, logits, onehot):
    if step not in ("sgd-10", "full-32-16"):
        return -(onehot * jax.nn.log_softmax(logits)).sum(1).mean()
    squares = (jax.nn.sigmoid(logits) - onehot) ** 2
    return squares.mean() if step == "full-32-16" else squares.sum() * (0.5 / len(onehot))


def optimizer_of(step):
    """Its update of one parameter, and the state that it keeps of one."""
    if step.startswith("cnn"):
        return adagrad, jnp.zeros_like
    if step.startswith("mlp"):
        return adam, lambda p: (jnp.zeros_like(p), jnp.zeros_like(p))
    return sgd, jnp.zeros_like


def sgd(p, g, state, t):
    return p - 0.1 * g, state


def adagrad(p, g, state, t):
    state = state + g * g
    return p - 0.01 * g / (jnp.sqrt(state) + 1e-10), state


def adam(p, g, state, t):
    m, v = state
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    rate = 0.001 / (1 - 0.9**t)
    return p - rate * m / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8), (m, v)
