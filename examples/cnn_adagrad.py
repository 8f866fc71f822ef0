"""A small convolutional network with Adagrad: on 10,000 images as published, and done right.

    python examples/cnn_adagrad.py
    python examples/cnn_adagrad.py --quick --backend numpy
    python examples/cnn_adagrad.py --dataset fashion

Follows 003_57581d700a022795, in PyTorch: two convolutions of 5×5 with 10 and 20 channels, max
pooling, Dropout2d, 320-50-10, log-softmax and negative log-likelihood, Adagrad, batches of 64,
pixels normalised by 0.1307 and 0.3081.

The notebook loads the 10,000 test images both to train and to test on, so its accuracies of 100% on
images "never observed" are of images seen 120 times. The first part does as it does, with Adagrad's
defaults, for the errors that it prints. (What it prints as "precision" is of the 16 images in an
epoch's last batch, with dropout on; accuracies here are of all test images.) How far the error
falls is the luck of the first weights: seeds 0 and 2 are within 20% of the published ones
throughout, seed 1 but for one of 24 (0.1385 for 0.1134 in epoch 105); PyTorch 2.13 ends, in epoch
115, at 0.097, 0.101 and 0.145 for its seeds 0, 1 and 2, where the notebook has 0.111.

Done right, the network learns from the 60,000 other images. With Adagrad's defaults, 10 epochs took
seven of ten seeds to at least 98.0%, and three to 97.6 to 97.8%. So it begins with sums of squares
of 0.1, with which the first step is not the whole learning rate for each weight, however small its
gradient, and with a rate of 0.02: that took all ten to 98.4 to 98.6%.
"""

import sys

from published import SHOWN, Run, main

import tinygrad_mnist as tg
import tinygrad_mnist.nn.functional as F
from tinygrad_mnist import nn, optim, training
from tinygrad_mnist.report import Curve, plot_curves, plot_digits
from tinygrad_mnist.utils.data import DataLoader, ImageDataset, datasets

# The mean error of epochs 0, 5 … 115 of the run of 120, and of epoch 0 of the run of 3.
PUBLISHED = (
    0.8454, 0.2897, 0.2290, 0.2154, 0.1943, 0.1766, 0.1818, 0.1668, 0.1530, 0.1494, 0.1497, 0.1443,
    0.1305, 0.1386, 0.1303, 0.1284, 0.1341, 0.1347, 0.1247, 0.1256, 0.1151, 0.1134, 0.1156, 0.1113,
)  # fmt: skip
PUBLISHED_OF_THREE = 0.8819
BATCH = 64
# Of each dataset: its class, and the test accuracy asked for after 10 epochs, and after one.
DATASETS = {"mnist": (datasets.MNIST, 0.98, 0.94), "fashion": (datasets.FashionMNIST, 0.83, 0.72)}


class Net(nn.Module):
    """Images (N, 1, 28, 28) to the logarithms of ten probabilities, (N, 10)."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 10, kernel_size=5)
        self.conv2 = nn.Conv2d(10, 20, kernel_size=5)
        self.conv2_drop = nn.Dropout2d()
        self.fc1 = nn.Linear(320, 50)
        self.fc2 = nn.Linear(50, 10)

    def forward(self, x):
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2_drop(self.conv2(x)), 2))
        x = F.relu(self.fc1(x.flatten(1)))
        x = F.dropout(x, training=self.training)
        return F.log_softmax(self.fc2(x), dim=1)


def train(run, model, images, test_images, epochs, **settings):
    """Train with Adagrad; yields each epoch's mean error, and its test accuracy."""
    optimizer = optim.Adagrad(model.parameters(), **settings)
    batches = DataLoader(images, batch_size=BATCH, shuffle=True)
    test = DataLoader(test_images, batch_size=500)

    @run.jit
    def train_step(x, y):
        loss = F.nll_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    for _ in range(epochs):
        losses = [train_step(x, y) for x, y in batches]
        _, accuracy = training.evaluate(model, test, run.options.jit)
        yield tg.stack(losses).mean().item(), accuracy


def as_published(run, images):
    """Train and test on the same images; returns each epoch's error and accuracy."""
    epochs, published = 120, dict(zip(range(0, 120, 5), PUBLISHED, strict=True))
    if run.options.quick:
        epochs, published = 3, {0: PUBLISHED_OF_THREE}
    course = []
    for epoch, (error, accuracy) in enumerate(train(run, Net(), images, images, epochs)):
        course.append((error, accuracy))
        if epoch in published:
            run.agrees(f"epoch {epoch}, error", published[epoch], error, ".4f", relative=0.2)
    run.tell("accuracy on what it learned", accuracy, ".2%")
    return course


def done_right(run, model, images, test_images):
    """Train on one dataset and test on another; returns each epoch's error and accuracy."""
    _, *targets = DATASETS[run.options.dataset]
    epochs, least = (1, targets[1]) if run.options.quick else (10, targets[0])
    settings = {"lr": 0.02, "initial_accumulator_value": 0.1}
    course = list(train(run, model, images, test_images, epochs, **settings))
    run.at_least(f"done right, accuracy in epoch {epochs - 1}", course[-1][1], ".2%", least=least)
    return course


def draw(run, model, courses, arrays, test_images):
    """Error and accuracy by epoch, and 64 test images with what the model says of them."""
    panels = {
        quantity: [
            Curve(label, range(len(course)), [each[i] for each in course])
            for label, course in courses.items()
        ]
        for i, quantity in enumerate(("error in training", "test accuracy"))
    }
    title = f"Convolutions and Adagrad on {run.options.dataset}"
    plot_curves(panels, run.out / "curves.png", xlabel="epoch", title=title)

    x, y = next(iter(DataLoader(test_images, batch_size=SHOWN)))
    with tg.no_grad():
        probabilities = model.eval()(x).exp()
    classes = DATASETS[run.options.dataset][0].classes
    plot_digits(
        arrays.test_images[:SHOWN],
        y.numpy(),
        probabilities.numpy(),
        run.out / "grid.png",
        classes=[each.partition(" - ")[0] for each in classes],
    )


def reproduce(run: Run) -> None:
    name = run.options.dataset
    arrays = run.arrays(name)
    statistics = datasets.STATISTICS[name]
    images = ImageDataset(arrays.train_images, arrays.train_labels, *statistics)
    test_images = ImageDataset(arrays.test_images, arrays.test_labels, *statistics)
    courses, model = {}, Net()
    if name == "mnist":  # nothing is published for the other
        courses["as published"] = as_published(run, test_images)
    courses["done right"] = done_right(run, model, images, test_images)
    draw(run, model, courses, arrays, test_images)


def add_options(parser):
    parser.add_argument("--dataset", choices=list(DATASETS), default="mnist", help="default: mnist")


if __name__ == "__main__":
    sys.exit(main(__doc__, reproduce, ["curves.png", "grid.png"], add_options))
