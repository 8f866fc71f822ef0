"""Classify digits with a small vision transformer (Dosovitskiy et al. 2021) on patches of 7 x 7.

    python examples/vision_transformer.py
    python examples/vision_transformer.py --quick --seed 1

Seeds 0, 1, 2 reach 98.17, 98.25, 98.33% in 5 epochs on the NumPy backend, which take 115 s of one
core; --quick reaches 94.1% in 25 s.
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
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--quick", action="store_true", help="one epoch, with a target of its own")
parser.add_argument("--no-jit", action="store_true", help="run the Python code of every step")
arguments = parser.parse_args()
epochs, target = (1, 0.92) if arguments.quick else (arguments.epochs, 0.97)
PATCH, FEATURES, HEADS, BLOCKS = 7, 64, 4, 4


class Attention(nn.Module):
    """Every patch asks all patches: (N, patches, FEATURES) to the same, in HEADS groups."""

    def __init__(self):
        super().__init__()
        self.asked = nn.Linear(FEATURES, 3 * FEATURES)
        self.answer = nn.Linear(FEATURES, FEATURES)

    def forward(self, x):
        count, patches, features = x.shape
        parts = self.asked(x).reshape(count, patches, 3, HEADS, features // HEADS)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(query, key, value)
        return self.answer(y.transpose(1, 2).reshape(count, patches, features))


class Block(nn.Module):
    """Attention and a two-layer network, each normalised before and added to what came in."""

    def __init__(self):
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(FEATURES), Attention())
        self.network = nn.Sequential(
            nn.LayerNorm(FEATURES), nn.Linear(FEATURES, 2 * FEATURES),
            nn.GELU(), nn.Linear(2 * FEATURES, FEATURES),
        )  # fmt: skip

    def forward(self, x):
        x = x + self.attention(x)
        return x + self.network(x)


class VisionTransformer(nn.Module):
    """Images (N, 1, 28, 28) to the scores of ten classes."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, FEATURES, PATCH, stride=PATCH)
        self.positions = nn.Parameter(0.02 * tg.randn((28 // PATCH) ** 2, FEATURES))
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.norm = nn.LayerNorm(FEATURES)
        self.classes = nn.Linear(FEATURES, 10)

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        return self.classes(self.norm(self.blocks(x)).mean(dim=1))


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
model = VisionTransformer()
optimizer = optim.AdamW(model.parameters(), weight_decay=0.05)
schedule = optim.lr_scheduler.OneCycleLR(optimizer, 0.002, total_steps=epochs * len(batches))


def step(images, labels):
    loss = F.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
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
