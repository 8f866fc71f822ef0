"""The training of ``python -m tinygrad_mnist train`` in PyTorch: whole_training.py runs it.

    python training_in_pytorch.py --model cnn --data FOLDER --out FOLDER

Images are normalised once and stay in memory, batches are indexed from them: no DataLoader, which
would take several times as long. Losses and hits are kept as tensors until the epoch's end.
"""

import argparse
import json
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from torch import nn, optim
from torch.nn import functional as F

mpl.use("Agg")
from matplotlib import pyplot as plt

EVALUATION_BATCH = 500
MEAN, STD = 0.1307, 0.3081


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.BatchNorm2d(10), nn.ReLU(),
        nn.Conv2d(10, 20, 5), nn.MaxPool2d(2), nn.BatchNorm2d(20), nn.ReLU(),
        nn.Flatten(), nn.Linear(320, 50), nn.ReLU(), nn.Linear(50, 10),
    )  # fmt: skip


def mlp():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10)
    )


MODELS = {"cnn": cnn, "mlp": mlp}


def dataset(folder, part):
    """Normalised images (N, 1, 28, 28) and labels (N,) from two IDX files."""
    images = np.fromfile(folder / f"{part}-images-idx3-ubyte", np.uint8)[16:]
    labels = np.fromfile(folder / f"{part}-labels-idx1-ubyte", np.uint8)[8:]
    pixels = torch.from_numpy(images.reshape(-1, 1, 28, 28)).float()
    return pixels.div_(255).sub_(MEAN).div_(STD), torch.from_numpy(labels).long()


def train_epoch(model, optimizer, scheduler, images, labels, batch_size):
    """One pass over the images in random order: the losses of its steps, and the accuracy."""
    model.train()
    losses, hits = [], []
    for rows in torch.randperm(len(images)).split(batch_size):
        x, y = images[rows], labels[rows]
        logits = model(x)
        loss = F.cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        losses.append(loss.detach())
        hits.append((logits.detach().argmax(1) == y).sum())
    return torch.stack(losses).tolist(), int(sum(hits)) / len(images)


@torch.no_grad()
def evaluate(model, images, labels):
    """Mean loss and accuracy."""
    model.eval()
    loss = hits = 0
    for x, y in zip(images.split(EVALUATION_BATCH), labels.split(EVALUATION_BATCH), strict=True):
        logits = model(x)
        loss += F.cross_entropy(logits, y, reduction="sum")
        hits += (logits.argmax(1) == y).sum()
    return float(loss) / len(images), int(hits) / len(images)


def plot(history, path):
    """Loss and accuracy against epoch, of training and of test."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8))
    epochs = range(1, len(history["test_loss"]) + 1)
    axes[0].plot(np.linspace(0, len(epochs), len(history["loss"])), history["loss"], linewidth=0.9)
    for axis, what in zip(axes, ("loss", "accuracy"), strict=True):
        for part in ("train", "test"):
            axis.plot(epochs, history[f"{part}_{what}"], marker="o", label=part)
        axis.set(xlabel="epoch", ylabel=what)
        axis.legend()
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--one-cycle", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    images, labels = dataset(options.data, "train")
    test = dataset(options.data, "t10k")
    model = MODELS[options.model]()
    optimizer = optim.Adam(model.parameters(), lr=options.lr)
    scheduler = None
    if options.one_cycle:
        steps = options.epochs * -(-len(images) // options.batch_size)
        scheduler = optim.lr_scheduler.OneCycleLR(optimizer, options.lr, steps, pct_start=0.25)
    names = ("loss", "train_loss", "train_accuracy", "test_loss", "test_accuracy")
    history = {name: [] for name in names}
    for epoch in range(1, options.epochs + 1):
        start = time.perf_counter()
        losses, accuracy = train_epoch(
            model, optimizer, scheduler, images, labels, options.batch_size
        )
        found = (sum(losses) / len(losses), accuracy, *evaluate(model, *test))
        history["loss"] += losses
        for name, value in zip(names[1:], found, strict=True):
            history[name].append(value)
        torch.save(model.state_dict(), options.out / "model.pt")
        (options.out / "history.json").write_text(json.dumps(history))
        print(f"epoch {epoch}: {time.perf_counter() - start:.1f} s", flush=True)
    plot(history, options.out / "curves.png")
    print(f"test accuracy: {history['test_accuracy'][-1]:.2%}")


if __name__ == "__main__":
    main()
