"""Classify digits with a small residual network (He et al. 2015).

    python examples/residual_cnn.py
    python examples/residual_cnn.py --quick --seed 1

Seeds 0, 1, 2 reach 99.50, 99.46, 99.41% in 6 epochs on the NumPy backend, which take 200 s of one
core; --quick reaches 98.9% in 35 s.
"""

import argparse
import sys

import tinygrad_mnist as tg
import tinygrad_mnist.nn.functional as F
from tinygrad_mnist import nn, optim
from tinygrad_mnist.utils.data import DataLoader, datasets, transforms

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--data", default="data", help="MNIST's folder, else the cache's is used")
parser.add_argument("--epochs", type=int, default=6)
parser.add_argument("--quick", action="store_true", help="one epoch, with a target of its own")
parser.add_argument("--no-jit", action="store_true", help="run the Python code of every step")
arguments = parser.parse_args()
epochs, target = (1, 0.98) if arguments.quick else (arguments.epochs, 0.992)


class Block(nn.Module):
    """Two convolutions beside a shortcut: (N, before, H, W) to (N, after, H / stride, W / …)."""

    def __init__(self, before, after, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.shortcut = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x):
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def accuracy(model, dataset):
    model.eval()
    with tg.no_grad():
        right = sum(
            (model(images).argmax(1) == labels).sum().item()
            for images, labels in DataLoader(dataset, batch_size=500)
        )
    model.train()
    return right / len(dataset)


tg.manual_seed(arguments.seed)
pixels = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
train = datasets.MNIST(arguments.data, train=True, transform=pixels, download=True)
test = datasets.MNIST(arguments.data, train=False, transform=pixels, download=True)
batches = DataLoader(train, batch_size=128, shuffle=True)

model = nn.Sequential(
    nn.Conv2d(1, 16, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
    Block(16, 16), Block(16, 32, stride=2), Block(32, 64, stride=2),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
)  # fmt: skip
optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
schedule = optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=epochs * len(batches))


def step(images, labels):
    loss = F.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    return loss


if not arguments.no_jit:
    step = tg.compile(step)
for epoch in range(1, epochs + 1):
    total = 0.0
    for images, labels in batches:
        total += step(images, labels).item()
    found = accuracy(model, test)
    print(f"epoch {epoch}: loss {total / len(batches):.4f}, test accuracy {found:.2%}", flush=True)

print(f"test accuracy: {found:.2%} (target {target:.2%})")
sys.exit(not found >= target)
