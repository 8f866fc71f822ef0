"""Time one training step of seven small networks: here, and with the peers that are installed.

    python examples/compare_with_peers.py
    python examples/compare_with_peers.py --peers torch jax keras --steps mlp-32 mlp-128

Each library runs in a process of its own, with the threads that it takes by default; they take
turns, for several rounds, so that a machine that changes its speed changes it for all. A figure is
the median of the rounds' medians. The last column compares the last of ours with the peer that is
fastest at that step: the median of the rounds' ratios. The data are random, of MNIST's shapes; what
is timed is forward, backward and update, on arrays that are there already. Where the backend cupy
is usable, ours have it, too; peers compute where they do by default.

The column "floor" is the step's products alone through NumPy's BLAS, and a copy of as many bytes as
the optimizer reads and writes: see peers/floor.py.
"""

import argparse
import contextlib
import importlib.util
import statistics
import sys

import numpy as np
from peers.worker import FLOOR, Worker, ours_here, work

from tinygrad_mnist.command import count, finish
from tinygrad_mnist.machine import described
from tinygrad_mnist.verification.steps import STEPS

PEERS = {"torch": "torch", "compile": "torch", "jax": "jax", "keras": "keras"}  # and its package
# torch.compile is asked for by name: it needs a C++ compiler, and minutes.
BY_DEFAULT = ("torch", "jax", "keras")


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
    return compare(peers, list(dict.fromkeys(options.steps)), options.rounds)


def compare(peers, steps, rounds):
    """Print the table."""
    ours = ours_here()
    columns = [*ours, *peers, FLOOR]
    with contextlib.ExitStack() as running:
        workers = [running.enter_context(started(name)) for name in columns]
        print(described())
        for worker in workers:
            print(f"{worker.name:>10}: {worker.about}")
        head = "".join(f"{name:>11}" for name in columns)
        print(f"\n{'µs':<47}{head}   {f'{ours[-1]} / best peer' if peers else ''}".rstrip())
        for step in steps:
            times = np.array([[worker.time(step) for worker in workers] for _ in range(rounds)])
            medians = dict(zip(columns, np.median(times, 0), strict=True))
            cells = "".join(f"{medians[name]:>11,.0f}" for name in columns)
            ratio = ratio_to_best(dict(zip(columns, times.T, strict=True)), peers)
            print(f"{STEPS[step][0]:<47}{cells}   {ratio}".rstrip(), flush=True)
    return 0


def started(name):
    """The worker of a column; a peer that fails can be left out."""
    return Worker(name, __file__, advice="; leave it out with --peers" if name in PEERS else "")


def ratio_to_best(times, peers):
    """The last of ours beside the peer whose median is the least, as text; "" without peers."""
    if not peers:
        return ""
    last = [name for name in times if name not in (*peers, FLOOR)][-1]
    best = min(peers, key=lambda name: statistics.median(times[name]))
    return f"{statistics.median(times[last] / times[best]):.2f} of {best}"


if __name__ == "__main__":
    sys.exit(finish(main))
