"""A thousand steps of plain gradient descent over all 60,000 images at once.

    python examples/full_batch_cross_entropy.py
    python examples/full_batch_cross_entropy.py --quick --backend numpy

Follows 001_c3723feb9f9152e6, forward and backward passes written by hand in NumPy: 784-100-10,
sigmoid, softmax cross-entropy, learning rate 0.1. The notebook trains ten networks from new
weights, with 100, 200 … 1,000 steps; here one run of 1,000 is tested at each hundred. The
notebook's seed is not known, so three runs are made, of ``--seed`` and the two after it, and their
means compared; --quick is one run of 200 steps.

Everything is float32, where the notebook computes in float64. Its epsilon in the logarithm is not
needed: the loss is computed from the scores, and takes no logarithm of 0.
"""

import sys
import time
from statistics import mean

import numpy as np
from published import Run, as_tensors, main

import tinygrad_mnist as tg
import tinygrad_mnist.nn.functional as F
from tinygrad_mnist import nn, optim, training
from tinygrad_mnist.report import Curve, plot_curves

# Test accuracy in percent after 100, 200 … 1,000 steps, and steps per second of the last run.
PUBLISHED = (75.01, 80.64, 84.82, 86.59, 87.49, 88.49, 88.96, 89.43, 89.65, 89.89)
PUBLISHED_SPEED = 6.76


def dense(inputs, outputs):
    """A linear layer with weights of variance 1 / inputs and biases of 0."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=inputs**-0.5)
    nn.init.zeros_(layer.bias)
    return layer


def train(run, x, y, x_test, y_test, steps):
    """The test accuracy after each hundred steps, and the steps per second."""
    model = nn.Sequential(dense(784, 100), nn.Sigmoid(), dense(100, 10))
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    @run.jit
    def train_step(x, y):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    accuracies, start = [], time.perf_counter()
    for step in training.progress(range(1, steps + 1), "training", unit="step"):
        train_step(x, y)
        if step % 100 == 0:
            with tg.no_grad():
                accuracies.append((model(x_test).argmax(1) == y_test).float().mean().item())
    return accuracies, steps / (time.perf_counter() - start)


def allowed(step, quick):
    """How far from the published accuracy the mean may be; of a single run, further."""
    if quick:
        return 0.04
    return 0.02 if step <= 200 else 0.01 if step < 1000 else 0.005


def reproduce(run: Run) -> None:
    quick = run.options.quick
    steps = 200 if quick else 1000
    x, y, x_test, y_test = as_tensors(run.arrays(), lambda pixels: np.float32(pixels) / 255)
    runs = {}
    for seed in run.seeds(1 if quick else 3):
        tg.manual_seed(seed)
        runs[seed], speed = train(run, x, y, x_test, y_test, steps)
        run.tell(f"seed {seed}: steps per second", speed, ".2f", PUBLISHED_SPEED)
        run.tell(f"seed {seed}: accuracy at {steps}", runs[seed][-1], ".2%")
    hundreds = range(100, steps + 1, 100)
    means = [mean(found) for found in zip(*runs.values(), strict=True)]
    for step, percent, here in zip(hundreds, PUBLISHED, means, strict=False):
        within = allowed(step, quick)
        run.near(f"accuracy at {step} steps", percent / 100, here, ".2%", within=within)
    plot_curves(
        {
            "test accuracy": [
                Curve("published", hundreds, [p / 100 for p in PUBLISHED[: len(hundreds)]]),
                Curve(f"here, {len(runs)} run{'s' if len(runs) > 1 else ''}", hundreds, means),
            ]
        },
        run.out / "accuracy.png",
        xlabel="step",
        title="784-100-10, all images in each step",
    )


if __name__ == "__main__":
    sys.exit(main(__doc__, reproduce, ["accuracy.png"]))
