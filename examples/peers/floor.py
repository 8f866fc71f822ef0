"""The floor of a step: its products alone through NumPy's BLAS, and the optimizer's memory traffic.

The products are those of forward, of the weights' gradients and of the gradients of all inputs but
the images, each ``np.matmul`` into an array that is there. A convolution's are im2col's, with the
columns of all images in one matrix that is there: a batched product, image by image, takes NumPy
half as long again. The optimizer's traffic is one copy of as many bytes as parameters, gradients
and moments have: each is read once and written once. There is no bias, no activation, no loss, no
im2col. It is a floor for one who multiplies by NumPy's BLAS: who gives each thread an image, whose
columns stay in its cache, can be below.
"""

import itertools

import numpy as np

from tinygrad_mnist.verification.steps import STEPS, WIDTHS

CONVOLUTIONS = ((10, 25, 24 * 24), (20, 250, 8 * 8))  # outputs, columns' height, places
CLASSIFIER = (320, 50, 10)
MOMENTS = {"cnn": 1, "mlp": 2}  # of Adagrad and Adam; SGD has none


def floor_step(step):
    """The floor as a function without arguments."""
    draw = np.random.default_rng(0)
    pairs = [(a, b, np.matmul(a, b)) for a, b in products(step, draw)]
    kept = draw.random(optimizer_size(step), np.float32)
    moved = np.empty_like(kept)

    def run():
        for a, b, out in pairs:
            np.matmul(a, b, out=out)
        np.copyto(moved, kept)

    return run


def products(step, draw):
    """The factors of each product of the step."""
    rows = STEPS[step][1]
    if not step.startswith("cnn"):
        return linear_products(draw, rows, WIDTHS[step], first=True)
    return [
        *convolution_products(draw, rows),
        *linear_products(draw, rows, CLASSIFIER, first=False),
    ]


def linear_products(draw, rows, widths, first):
    """Those of linear layers; the ``first`` of a network gives its input no gradient."""
    for number, (before, after) in enumerate(itertools.pairwise(widths)):
        x, dy = draw.random((rows, before), np.float32), draw.random((rows, after), np.float32)
        weight = draw.random((after, before), np.float32)
        yield x, weight.T
        yield dy.T, x
        if number or not first:
            yield dy, weight


def convolution_products(draw, rows):
    for number, (outputs, height, places) in enumerate(CONVOLUTIONS):
        columns = draw.random((height, rows * places), np.float32)
        dy = draw.random((outputs, rows * places), np.float32)
        weight = draw.random((outputs, height), np.float32)
        yield weight, columns
        yield dy, columns.T
        if number:
            yield weight.T, dy


def optimizer_size(step):
    """How many numbers are parameters, gradients and moments."""
    widths = CLASSIFIER if step.startswith("cnn") else WIDTHS[step]
    parameters = sum((before + 1) * after for before, after in itertools.pairwise(widths))
    if step.startswith("cnn"):
        parameters += sum(outputs * (height + 1) for outputs, height, _ in CONVOLUTIONS)
    return parameters * (2 + MOMENTS.get(step.partition("-")[0], 0))
