"""The whole command ``python -m tinygrad_mnist train`` beside the same training in PyTorch.

    python tests/benchmarks/whole_training.py [--models cnn mlp] [--rounds 3] [--data DIR]

Each time is a process from its start to its end: imports, data, training, evaluation after each
epoch, the model's file and the picture of the curves included. Network, recipe and the files of the
data are the same; PyTorch's side is training_in_pytorch.py. The commands take turns, after a round
that is not counted, in which kernels are compiled. Shown are medians, the median of the rounds'
ratios to PyTorch, and the test accuracies. Without PyTorch its row is left out.
"""

import argparse
import importlib.util
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tinygrad_mnist.command import add_data, count, finish
from tinygrad_mnist.machine import described
from tinygrad_mnist.models import RECIPES
from tinygrad_mnist.utils.data import sources
from tinygrad_mnist.utils.data.idx import idx_header

PYTORCH = "PyTorch"
SCRIPT = Path(__file__).with_name("training_in_pytorch.py")


def write_idx(arrays: sources.Arrays, folder: Path) -> None:
    """The dataset as the four IDX files."""
    for part, images, labels in (
        ("train", arrays.train_images, arrays.train_labels),
        ("t10k", arrays.test_images, arrays.test_labels),
    ):
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            path = folder / f"{part}-{kind}-ubyte"
            path.write_bytes(idx_header(array.shape) + array.tobytes())


def commands(model: str, data: str | None, idx: Path, out: Path) -> dict[str, list[str]]:
    """The command lines of one model's rows; ``data`` is what ``--data`` said."""
    train = [sys.executable, "-m", "tinygrad_mnist", "train", "--model", model, "--out", str(out)]
    train += ["--data", data] if data else []
    rows = {}
    for name in ("numpy", "numba"):
        rows[f"{name} --no-jit"] = [*train, "--backend", name, "--no-jit"]
        rows[name] = [*train, "--backend", name]
    if importlib.util.find_spec("torch"):
        rows[PYTORCH] = pytorch_command(model, idx, out)
    return rows


def pytorch_command(model: str, idx: Path, out: Path) -> list[str]:
    recipe = RECIPES[model]
    options = {"model": model, "data": idx, "out": out, "epochs": recipe.epochs}
    options |= {"batch-size": recipe.batch_size, "lr": recipe.lr}
    command = [sys.executable, str(SCRIPT)]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    return command + ["--one-cycle"] * recipe.one_cycle


def trained(command: list[str]) -> tuple[float, float]:
    """Seconds of the whole process, and the test accuracy in percent. OSError where it fails."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    found = re.search(r"^test accuracy: (\S+)%$", done.stdout, re.M)
    if done.returncode or not found:
        last = done.stderr.strip().splitlines()[-1:]
        raise OSError(": ".join([f"{' '.join(command)} ended with {done.returncode}", *last]))
    return seconds, float(found[1])


def compare(title: str, rows: dict[str, list[str]], rounds: int) -> None:
    """Print one model's table."""
    for command in rows.values():
        trained(command)
    found = [{name: trained(command) for name, command in rows.items()} for _ in range(rounds)]
    print(f"\n{title:<40}{'seconds':>9}{'ratio':>7}   test accuracy")
    for name in rows:
        seconds = statistics.median(each[name][0] for each in found)
        accuracies = ", ".join(sorted({f"{each[name][1]:.2f}%" for each in found}))
        ratio = ""
        if PYTORCH in rows:
            ratio = f"{statistics.median(e[name][0] / e[PYTORCH][0] for e in found):.2f}"
        print(f"{name:<40}{seconds:>9.1f}{ratio:>7}   {accuracies}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--models", nargs="+", choices=RECIPES, default=list(RECIPES), help="default: all"
    )
    parser.add_argument("--rounds", type=count, default=3, metavar="N", help="default: 3")
    add_data(parser)
    options = parser.parse_args()
    print(described())
    if not importlib.util.find_spec("torch"):
        print("PyTorch is not installed: its row is left out", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        idx, out = Path(folder, "idx"), Path(folder, "out")
        idx.mkdir()
        out.mkdir()
        write_idx(sources.load("mnist", options.data), idx)
        for model in dict.fromkeys(options.models):
            title = f"train --model {model}"
            compare(title, commands(model, options.data, idx, out), options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
