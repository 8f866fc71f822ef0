"""A Sequential model as Keras's beginners know it: fit, evaluate, and a softmax put on top.

    python examples/keras_style.py
    python examples/keras_style.py --quick --backend numpy

Follows 004_d8b62eb91225ae4d, TensorFlow's first tutorial: flatten, 128 ReLU, dropout 0.2, 10
logits, cross-entropy, Adam, 5 epochs in batches of 32 of pixels from 0 to 1. The layers begin as
Keras's (Glorot's uniform weights, biases of 0), and Adam has Keras's epsilon. The notebook's seed
is not known, so three models are trained, with ``--seed`` and the two after it, and the mean
compared; --quick trains one, for one epoch. Each epoch ends with a test, which Keras makes where it
is given ``validation_data``.
"""

import math
import sys
from statistics import mean

from published import Run, main

import tinygrad_mnist as tg
import tinygrad_mnist.nn.functional as F
from tinygrad_mnist import nn, optim, training
from tinygrad_mnist.backend import current
from tinygrad_mnist.report import plot_digits, plot_history
from tinygrad_mnist.utils.data import DataLoader, ImageDataset

# What the notebook prints: the loss of the first training image before training, the test after it,
# and the probabilities that the first five test images then have of being what they are.
UNTRAINED_LOSS = 2.3868
LOSS, ACCURACY = 0.0733, 0.9768
PROBABILITIES = (0.99991417, 0.99995804, 0.99891746, 0.99967003, 0.99858677)


def dense(inputs, outputs):
    """A linear layer that begins as Keras's."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def sequential():
    """Images (N, 1, 28, 28) to logits (N, 10)."""
    return nn.Sequential(nn.Flatten(), dense(784, 128), nn.ReLU(), nn.Dropout(0.2), dense(128, 10))


def fit(run, model, train, test, epochs):
    """Train as ``model.fit`` does, with a line per epoch; returns the history."""

    def line(epoch, history):
        print(
            f"Epoch {epoch.epoch}/{epochs}\n"
            f"{len(train)}/{len(train)} - {epoch.seconds:.0f}s - "
            f"loss: {epoch.train_loss:.4f} - accuracy: {epoch.train_accuracy:.4f} - "
            f"val_loss: {epoch.test_loss:.4f} - val_accuracy: {epoch.test_accuracy:.4f}",
            flush=True,
        )

    optimizer = optim.Adam(model.parameters(), eps=1e-7)
    return training.fit(model, optimizer, train, test, epochs, on_epoch=line, jit=run.options.jit)


def evaluate(run, model, test):
    """Test as ``model.evaluate`` does, with its line; returns loss and accuracy."""
    loss, accuracy = training.evaluate(model, test, run.options.jit)
    print(f"{len(test)}/{len(test)} - loss: {loss:.4f} - accuracy: {accuracy:.4f}", flush=True)
    return loss, accuracy


def untrained(model, train):
    """Show what the model says of the first image; its loss, and the mean loss of 500 images."""
    x, y = next(iter(DataLoader(train, batch_size=500)))
    with tg.no_grad():
        logits = model.eval()(x)
    print(f"logits of an untrained model: {logits[0]}\ntheir softmax: {logits[0].softmax(0)}")
    return F.cross_entropy(logits[:1], y[:1]).item(), F.cross_entropy(logits, y).item()


def reproduce(run: Run) -> None:
    arrays = run.arrays()
    train = ImageDataset(arrays.train_images, arrays.train_labels)
    test = ImageDataset(arrays.test_images, arrays.test_labels)
    test_batches = DataLoader(test, batch_size=32)
    epochs = 1 if run.options.quick else 5

    before, histories, tests = [], [], []
    for seed in run.seeds(1 if run.options.quick else 3):
        tg.manual_seed(seed)
        print(f"seed {seed}")
        model = sequential()
        before.append(untrained(model, train))
        batches = DataLoader(train, batch_size=32, shuffle=True)
        histories.append(fit(run, model, batches, test_batches, epochs))
        tests.append(evaluate(run, model, test_batches))

    probability_model = nn.Sequential(model, nn.Softmax(1)).eval()
    x, y = next(iter(DataLoader(test, batch_size=5)))
    with tg.no_grad():
        probabilities = probability_model(x)

    run.tell("untrained loss, first image", before[0][0], ".4f", UNTRAINED_LOSS)
    loss, expected = before[0][1], -math.log(1 / 10)
    run.about("untrained loss, 500 images", loss, ".4f", expected=expected, within=0.3)
    losses, accuracies = zip(*tests, strict=True)
    if run.options.quick:
        run.at_least("accuracy after 1 epoch", accuracies[0], ".2%", least=0.95)
    else:
        run.near("accuracy, mean", ACCURACY, mean(accuracies), ".2%", within=0.003)
        run.near("loss, mean", LOSS, mean(losses), ".4f", within=0.008)
    for i, published in enumerate(PROBABILITIES):
        here = probabilities[i, y[i]].item()
        run.tell(f"test image {i}, probability of a {y[i].item()}", here, ".4%", published)

    plot_digits(
        arrays.test_images[:5], y.numpy(), probabilities.numpy(), run.out / "first_five.png"
    )
    history = histories[0].as_dict(
        model="784-128-10", dataset="mnist", backend=current().name, seed=run.options.seed
    )
    plot_history(history, run.out / "curves.png")


if __name__ == "__main__":
    sys.exit(main(__doc__, reproduce, ["first_five.png", "curves.png"]))
