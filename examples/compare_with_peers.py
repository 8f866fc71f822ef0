"""Time one training step of seven small networks: here, and with the peers that are installed.

    python examples/compare_with_peers.py
    python examples/compare_with_peers.py --peers torch jax keras --steps mlp-32 mlp-128

Each library runs in a process of its own, with the threads that it takes by default; they take
turns, for several rounds, so that a machine that changes its speed changes it for all. A figure is
the median of the rounds' medians, and the ratio to the first peer that of the rounds' ratios. The
data are random, of MNIST's shapes; what is timed is forward, backward and update, on arrays that
are there already.
"""

import argparse
import importlib
import importlib.metadata
import importlib.util
import itertools
import json
import signal
import statistics
import subprocess
import sys
import time

import numpy as np

from tinygrad_mnist.command import count, finish
from tinygrad_mnist.machine import described

OURS = ("numpy", "numba")
PEERS = {"torch": "torch", "compile": "torch", "jax": "jax", "keras": "keras"}  # and its package
# torch.compile is asked for by name: it needs a C++ compiler, and minutes.
BY_DEFAULT = ("torch", "jax", "keras")
WARM_UP, SLICE = 5, 0.25  # calls before the first round; seconds of calls in a round

# Each step: rows, and the network by its name below.
STEPS = {
    "sgd-10": ("784-15-10 sigmoid, quadratic, SGD, batch 10", 10),
    "mlp-32": ("784-128-10 ReLU, dropout, Adam, batch 32", 32),
    "mlp-128": ("784-128-10 ReLU, dropout, Adam, batch 128", 128),
    "full-32-16": ("784-32-16-10 sigmoid, MSE, 60,000 rows", 60_000),
    "full-100": ("784-100-10 sigmoid, cross-entropy, 60,000 rows", 60_000),
    "cnn-64": ("CNN 10-20 5×5, Adagrad, batch 64", 64),
    "cnn-512": ("CNN 10-20 5×5, Adagrad, batch 512", 512),
}


# The widths of those that are linear layers and sigmoids.
WIDTHS = {"sgd-10": (784, 15, 10), "full-32-16": (784, 32, 16, 10), "full-100": (784, 100, 10)}


def data(step):
    """Images (N, 784), or (N, 1, 28, 28) for the CNN, labels (N,) and one-hot labels (N, 10)."""
    draw, rows = np.random.default_rng(0), STEPS[step][1]
    x = draw.random((rows, 1, 28, 28) if step.startswith("cnn") else (rows, 784), np.float32)
    y = draw.integers(0, 10, rows)
    return x, y, np.eye(10, dtype=np.float32)[y]


# ---- ours and PyTorch, which are the same script


def pytorch_step(step, lib):
    """The step as a function, for ``lib`` tinygrad_mnist or torch."""
    nn, optim = lib.nn, lib.optim
    x, y, onehot = map(lib.from_numpy, data(step))
    lib.manual_seed(0)
    if step.startswith("cnn"):
        model = nn.Sequential(
            nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(10, 20, 5), nn.Dropout2d(), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(),
            nn.Linear(320, 50), nn.ReLU(), nn.Dropout(), nn.Linear(50, 10),
        )  # fmt: skip
        optimizer = optim.Adagrad(model.parameters())
    elif step.startswith("mlp"):
        model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))
        optimizer = optim.Adam(model.parameters())
    else:
        layers = []
        for before, after in itertools.pairwise(WIDTHS[step]):
            layers += [nn.Linear(before, after), nn.Sigmoid()]
        model = nn.Sequential(*(layers[:-1] if step == "full-100" else layers))
        optimizer = optim.SGD(model.parameters(), lr=0.1)

    def cost():
        if step == "sgd-10":
            return (model(x) - onehot).square().sum() * (0.5 / len(x))
        if step == "full-32-16":
            return nn.functional.mse_loss(model(x), onehot)
        return nn.functional.cross_entropy(model(x), y)

    def run():
        loss = cost()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return run


# ---- JAX, whose step is one compiled function


def jax_step(step):
    """The step as a function, compiled by ``jax.jit``; it waits for its result."""
    jax = importlib.import_module("jax")
    jnp, lax = jax.numpy, jax.lax
    x, _, onehot = map(jnp.asarray, data(step))
    draw = np.random.default_rng(0)

    def layer(*shape):
        bound = np.prod(shape[1:]) ** -0.5
        return [
            jnp.asarray(draw.uniform(-bound, bound, size), jnp.float32)
            for size in (shape, shape[:1])
        ]

    def conv(x, weight, bias):
        return lax.conv(x, weight, (1, 1), "VALID") + bias[:, None, None]

    def pooled(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")

    def dropped(x, key, p, shape):
        return x * jax.random.bernoulli(key, 1 - p, shape) / (1 - p)

    def cross_entropy(logits):
        return -(onehot * jax.nn.log_softmax(logits)).sum(1).mean()

    if step.startswith("cnn"):
        weights = [layer(10, 1, 5, 5), layer(20, 10, 5, 5), layer(50, 320), layer(10, 50)]

        def cost(weights, key, x):
            conv1, conv2, (w1, b1), (w2, b2) = weights
            first, second = jax.random.split(key)
            h = jax.nn.relu(pooled(conv(x, *conv1)))
            h = dropped(conv(h, *conv2), first, 0.5, (len(x), 20, 1, 1))
            h = jax.nn.relu(pooled(h)).reshape(len(x), -1)
            h = dropped(jax.nn.relu(h @ w1.T + b1), second, 0.5, (len(x), 50))
            return cross_entropy(h @ w2.T + b2)

    elif step.startswith("mlp"):
        weights = [layer(128, 784), layer(10, 128)]

        def cost(weights, key, x):
            (w1, b1), (w2, b2) = weights
            h = dropped(jax.nn.relu(x @ w1.T + b1), key, 0.2, (len(x), 128))
            return cross_entropy(h @ w2.T + b2)

    else:
        weights = [layer(after, before) for before, after in itertools.pairwise(WIDTHS[step])]

        def cost(weights, key, x):
            *hidden, (w, b) = weights
            for weight, bias in hidden:
                x = jax.nn.sigmoid(x @ weight.T + bias)
            logits = x @ w.T + b
            if step == "full-100":
                return cross_entropy(logits)
            squares = (jax.nn.sigmoid(logits) - onehot) ** 2
            return squares.mean() if step == "full-32-16" else squares.sum() * (0.5 / len(x))

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

    update = adagrad if step.startswith("cnn") else adam if step.startswith("mlp") else sgd

    @jax.jit
    def compiled(flat, states, key, t, x):
        key, now = jax.random.split(key)
        loss, grads = jax.value_and_grad(lambda flat: cost(jax.tree.unflatten(tree, flat), now, x))(
            flat
        )
        pairs = [update(p, g, s, t) for p, g, s in zip(flat, grads, states, strict=True)]
        return loss, [p for p, _ in pairs], [s for _, s in pairs], key, t + 1

    flat, tree = jax.tree.flatten(weights)
    zeros = [jnp.zeros_like(p) for p in flat]
    carried = [flat, [(z, z) for z in zeros] if update is adam else zeros]
    carried += [jax.random.key(0), jnp.float32(1)]

    def run():
        loss, *carried[:] = compiled(*carried, x)
        return loss.block_until_ready()

    return run


# ---- Keras


def keras_step(step):
    """The step as a function: ``train_on_batch`` of a compiled model."""
    keras = importlib.import_module("keras")
    layers, losses, optimizers = keras.layers, keras.losses, keras.optimizers
    x, y, onehot = data(step)
    loss, target = losses.SparseCategoricalCrossentropy(from_logits=True), y
    if step.startswith("cnn"):
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
        stack = [
            layers.Conv2D(10, 5), layers.MaxPooling2D(2), layers.ReLU(),
            layers.Conv2D(20, 5), layers.SpatialDropout2D(0.5), layers.MaxPooling2D(2),
            layers.ReLU(), layers.Flatten(), layers.Dense(50, activation="relu"),
            layers.Dropout(0.5), layers.Dense(10),
        ]  # fmt: skip
        optimizer = optimizers.Adagrad(0.01)
    elif step.startswith("mlp"):
        stack = [layers.Dense(128, activation="relu"), layers.Dropout(0.2), layers.Dense(10)]
        optimizer = optimizers.Adam()
    else:
        stack = [layers.Dense(width, activation="sigmoid") for width in WIDTHS[step][1:-1]]
        stack += [layers.Dense(10, activation=None if step == "full-100" else "sigmoid")]
        optimizer = optimizers.SGD(0.1)
        if step != "full-100":
            loss, target = losses.MeanSquaredError(), onehot
    model = keras.Sequential([keras.Input(x.shape[1:]), *stack])
    model.compile(optimizer, loss)
    tensors = [keras.ops.convert_to_tensor(each) for each in (x, target)]
    return lambda: model.train_on_batch(*tensors)


# ---- one process per library


def steps_of(name):
    """The function that makes a step for the library of that name, and how it describes itself."""
    if name == "jax":
        return jax_step, f"JAX {importlib.metadata.version('jax')} jit"
    if name == "keras":
        return keras_step, f"Keras {importlib.metadata.version('keras')}"
    if name in OURS:
        lib = importlib.import_module("tinygrad_mnist")
        lib.set_backend(name)
        version = importlib.metadata.version(name)
        return lambda step: pytorch_step(step, lib), f"tinygrad_mnist on {name} {version}"
    torch = importlib.import_module("torch")
    about = f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads"
    if name == "torch":
        return lambda step: pytorch_step(step, torch), f"{about}, eager"
    return lambda step: torch.compile(pytorch_step(step, torch)), f"{about}, torch.compile"


def work(name):
    """Time steps as the parent asks for them, one name a line; answer with microseconds."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says it, and closes the pipe
    make, about = steps_of(name)
    answer(about)
    ready = {}
    for line in sys.stdin:
        step = line.strip()
        if step not in ready:
            ready[step] = make(step)
            for _ in range(WARM_UP):
                ready[step]()
        answer(timed(ready[step]))


def answer(value):
    print(json.dumps(value), flush=True)


def timed(run):
    """The median microseconds of the calls that fit into a slice, at least three."""
    found, stop = [], time.perf_counter() + SLICE
    while len(found) < 3 or time.perf_counter() < stop:
        start = time.perf_counter()
        run()
        found.append((time.perf_counter() - start) * 1e6)
    return statistics.median(found)


class Worker:
    """A process that times the steps of one library."""

    def __init__(self, name):
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about = self.heard()

    def heard(self):
        line = self.process.stdout.readline()
        if not line:
            raise OSError(
                f"{self.name} stopped with {self.process.wait()}; leave it out with --peers"
            )
        return json.loads(line)

    def time(self, step):
        print(step, file=self.process.stdin, flush=True)
        return self.heard()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    installed = [name for name, package in PEERS.items() if importlib.util.find_spec(package)]
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=PEERS,
        metavar="NAME",
        help=f"of {', '.join(PEERS)}; default: {', '.join(BY_DEFAULT)} if installed",
    )
    parser.add_argument(
        "--steps",
        nargs="+",
        choices=STEPS,
        default=list(STEPS),
        metavar="NAME",
        help=f"of {', '.join(STEPS)}; default: all",
    )
    parser.add_argument("--rounds", type=count, default=5, metavar="N", help="default: 5")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options.worker)
    usual = [name for name in BY_DEFAULT if name in installed]
    peers = usual if options.peers is None else list(dict.fromkeys(options.peers))
    missing = [name for name in peers if name not in installed]
    if missing:
        parser.error(f"not installed: {', '.join(PEERS[name] for name in missing)}")
    return compare([*OURS, *peers], list(dict.fromkeys(options.steps)), options.rounds)


def compare(names, steps, rounds):
    """Print the table; the third of ``names``, if there is one, is what ours are compared with."""
    workers = [Worker(name) for name in names]
    print(described())
    for worker in workers:
        print(f"{worker.name:>8}: {worker.about}")
    peer = names[len(OURS) :][:1]
    head = "".join(f"{name:>12}" for name in names)
    print(f"\n{'µs':<50}{head}   {f'ratio to {peer[0]}' if peer else ''}".rstrip())
    for step in steps:
        times = np.array([[worker.time(step) for worker in workers] for _ in range(rounds)])
        cells = "".join(f"{median:>12,.0f}" for median in np.median(times, 0))
        ratios = np.median(times / times[:, len(OURS), None], 0) if peer else []
        shown = ", ".join(f"{name} {r:.2f}" for name, r in zip(OURS, ratios, strict=False))
        print(f"{STEPS[step][0]:<50}{cells}   {shown}".rstrip(), flush=True)
    for worker in workers:
        worker.process.stdin.close()
        worker.process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
