"""A network whose gradient is wrong in three ways, to fifteen digits; then the right gradient.

    python examples/full_batch_mse.py
    python examples/full_batch_mse.py --quick --backend numpy

Follows "my mnist" (000_ee4c838398a71b5d), layers written by hand in NumPy: 784-32-16-10, sigmoid,
sigmoid, softmax, no biases, float64, NumPy's seed 2, all 60,000 images in each of 50 steps.

Its backward pass is not the gradient of its loss: the mean squared error is differentiated without
its mean, each layer divides the gradient that it is given by its width, and softmax is
differentiated as if none of its outputs depended on the others. Here the forward pass is written as
usual, and each of the three is a ``Function`` of its own; the rest is ``backward()`` and ``SGD``.
All 50 losses come out as published to fifteen digits, and the accuracies, those by digit too, to
all that were printed.

Then the lesson: the same network from the same weights, with the true gradient of the
cross-entropy, Adam, mini-batches and a one-cycle schedule, for as many epochs. The notebook pickles
its model, which can run anything when it is loaded; this one is kept in safetensors.
"""

import sys

import numpy as np
from published import Run, as_tensors, main
from safetensors.numpy import load_file, save_file

import tinygrad_mnist as tg
import tinygrad_mnist.nn.functional as F
from tinygrad_mnist import nn, optim
from tinygrad_mnist.autograd import Function
from tinygrad_mnist.backend import current
from tinygrad_mnist.report import Curve, plot_curves, plot_digits
from tinygrad_mnist.utils.data import DataLoader, TensorDataset

# Of each epoch: the loss before its step, and the test accuracy after it, in percent.
PUBLISHED = """
    0.151419233487184 11.51   0.1157290798817189 12.01  0.1081752170670607 10.0
    0.10180303771541105 10.32 0.09722655973188295 13.24 0.09452930048303006 13.27
    0.09420079021127374 13.34 0.09388583492810146 13.67 0.09358154596426761 14.03
    0.09328117087748627 14.24 0.09298778701802908 14.84 0.0926988624362722 15.11
    0.0924154419825512 15.55  0.09213662672953978 15.87 0.09186268533033595 16.3
    0.09159327645562816 16.76 0.09132842925791806 17.22 0.09106799753211056 17.92
    0.09081196154177407 18.27 0.09056025572738133 18.81 0.09031286496690681 19.13
    0.0900697647235585 19.64  0.08983095376259054 20.1  0.08959642973161809 20.55
    0.0893662008850668 20.89  0.08914027404235514 21.29 0.08891865882675982 21.69
    0.08870136075005296 22.01 0.08848838273501398 22.24 0.08827972085815047 22.5
    0.0880753650394452 22.72  0.08787529647848584 23.06 0.08767948828333874 23.27
    0.0874879041105026 23.54  0.08730049900195966 23.72 0.08711721888714853 24.1
    0.08693800165246961 24.33 0.08676277722056591 24.55 0.08659146876791701 24.81
    0.08642399314183263 25.07 0.08626026211216349 25.3  0.08610018293825808 25.49
    0.08594365955414401 25.78 0.0857905931531849 26.09  0.08564088323736645 26.24
    0.08549442813863024 26.35 0.08535112589631406 26.65 0.085210874675363 26.84
    0.08507357346336095 27.01 0.08493912237497195 27.11
"""
FILES = ("as_published.safetensors", "done_right.safetensors", "digit.png", "accuracy.png")
BY_DIGIT = (28.06, 80.0, 6.49, 7.52, 14.05, 6.95, 47.08, 39.2, 9.34, 23.79)
PRINTED = 0.5e-4  # half of the last printed digit of an accuracy
IMAGE = 2  # the test image that the notebook shows


class DividedByWidth(Function):
    """Activations (N, width) as they are; their gradient divided by the width."""

    @staticmethod
    def forward(ctx, a):
        return a.clone()

    @staticmethod
    def backward(ctx, dY):
        return dY / dY.shape[1]


class DiagonalSoftmax(Function):
    """Softmax of scores (N, classes), differentiated by the diagonal of its Jacobian alone."""

    @staticmethod
    def forward(ctx, scores):
        p = scores.softmax(1)
        ctx.save_for_backward(p)
        return p

    @staticmethod
    def backward(ctx, dY):
        (p,) = ctx.saved_tensors
        return dY * p * (1 - p)


class MeanSquaredError(Function):
    """The mean of (p − target)² over all elements, differentiated as if it were their sum."""

    @staticmethod
    def forward(ctx, p, target):
        ctx.save_for_backward(p, target)
        return ((p - target) ** 2).mean()

    @staticmethod
    def backward(ctx, dY):
        p, target = ctx.saved_tensors
        return dY * 2 * (p - target), None


class Network(nn.Module):
    """Images (N, 784) to scores (N, 10), from the weights that NumPy draws for seed 2.

    ``after`` is done to each hidden layer's activations.
    """

    def __init__(self, after=lambda a: a):
        super().__init__()
        draw = np.random.RandomState(2).randn
        self.w1 = nn.Parameter(tg.tensor(draw(784, 32)))
        self.w2 = nn.Parameter(tg.tensor(draw(32, 16)))
        self.w3 = nn.Parameter(tg.tensor(draw(16, 10)))
        self.after = after

    def forward(self, x):
        x = self.after((x @ self.w1).sigmoid())
        x = self.after((x @ self.w2).sigmoid())
        return x @ self.w3


def right(model, x, y):
    """Which of the images (N, 784) the model takes for what they are, (N,)."""
    with tg.no_grad():
        return model(x).argmax(1) == y


def as_published(run, model, x, y, x_test, y_test):
    """The notebook's training; returns its accuracies."""
    relative = 1e-10 if current().name == "numpy" else 1e-8
    target = F.one_hot(y, 10).double()
    optimizer = optim.SGD(model.parameters(), lr=0.001)

    @run.jit
    def train_step(x, target):
        p = DividedByWidth.apply(DiagonalSoftmax.apply(model(x)))
        loss = MeanSquaredError.apply(p, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    accuracies = []
    for epoch, (published, percent) in enumerate(np.array(PUBLISHED.split(), float).reshape(-1, 2)):
        loss = train_step(x, target)
        accuracies.append(right(model, x_test, y_test).double().mean().item())
        run.agrees(f"epoch {epoch}, loss", published, loss.item(), "", relative=relative)
        run.near(f"epoch {epoch}, accuracy", percent / 100, accuracies[-1], ".2%", within=PRINTED)
    return accuracies


def done_right(run, model, x, y, x_test, y_test):
    """The true gradient, cross-entropy, Adam and mini-batches; returns the accuracies."""
    epochs, target = (5, 0.93) if run.options.quick else (50, 0.95)
    batches = DataLoader(TensorDataset(x, y), batch_size=128, shuffle=True)
    optimizer = optim.Adam(model.parameters())
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, 0.03, total_steps=epochs * len(batches))

    @run.jit
    def train_step(images, labels):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    accuracies = []
    for _ in range(epochs):
        for images, labels in batches:
            train_step(images, labels)
        accuracies.append(right(model, x_test, y_test).double().mean().item())
    run.at_least(f"done right, accuracy after {epochs} epochs", accuracies[-1], ".2%", least=target)
    return accuracies


def kept(model, path):
    """The model as it is read again from the file that it is written to."""
    save_file({name: w.numpy() for name, w in model.state_dict().items()}, path)
    again = Network()
    again.load_state_dict(load_file(path))
    return again


def draw(run, arrays, models, courses):
    """The picture that the notebook shows, with what each model says of it, and the accuracies."""
    x = tg.tensor(arrays.test_images[IMAGE].reshape(1, 784) / 255)
    with tg.no_grad():
        answers = tg.cat([model(x).softmax(1) for model in models])
    run.near("answer to test image 2, a 1", 1, answers[0].argmax().item(), "g", within=0)
    names = ["as published", "done right"]
    plot_digits(
        arrays.test_images[[IMAGE, IMAGE]],
        arrays.test_labels[[IMAGE, IMAGE]],
        answers.numpy(),
        run.out / "digit.png",
        headings=names,
    )
    curves = [
        Curve(name, range(1, len(course) + 1), course)
        for name, course in zip(names, courses, strict=True)
    ]
    title = "The same network and weights"
    plot_curves({"test accuracy": curves}, run.out / "accuracy.png", xlabel="epoch", title=title)


def reproduce(run: Run) -> None:
    arrays = run.arrays()
    x, y, x_test, y_test = as_tensors(arrays, lambda pixels: pixels / 255)

    wrong = Network(after=DividedByWidth.apply)
    before = as_published(run, wrong, x, y, x_test, y_test)
    wrong = kept(wrong, run.out / "as_published.safetensors")
    found = right(wrong, x_test, y_test).double()
    for digit, percent in enumerate(BY_DIGIT):
        here = found[y_test == digit].mean().item()
        run.near(f"accuracy on the {digit}s", percent / 100, here, ".2%", within=PRINTED)

    model = Network()
    after = done_right(run, model, x, y, x_test, y_test)
    model = kept(model, run.out / "done_right.safetensors")
    draw(run, arrays, [wrong, model], [before, after])


if __name__ == "__main__":
    sys.exit(main(__doc__, reproduce, FILES))
