"""The command line: ``python -m tinygrad_mnist``."""

from __future__ import annotations

import argparse
import shlex
import sys
import textwrap
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_mnist import __version__, config, doctor, models, nn, runs, training
from tinygrad_mnist.autograd.graph import no_grad
from tinygrad_mnist.backend import BackendError, current, resolve, set_backend, statuses
from tinygrad_mnist.command import (
    FAILED,
    add_backend,
    add_data,
    add_jit,
    add_seed,
    choose_backend,
    count,
    finish,
    rate,
    reason,
    stoppable,
    writable_folder,
)
from tinygrad_mnist.training import Checkpoints, ModelFileError, ModelInfo
from tinygrad_mnist.training.checkpoints import Checkpoint
from tinygrad_mnist.utils.data import DataLoader, ImageDataset, datasets
from tinygrad_mnist.utils.data.images import ImageError, read_digit
from tinygrad_mnist.verification import FAMILIES, TRAININGS

OPTIMIZERS = ("adam", "sgd")
# The arguments of the models that the images and their labels decide.
INPUTS, OUTPUTS = ("channels", "features"), ("classes",)

EXAMPLES = {
    "train": """\
examples:
  python -m tinygrad_mnist train                         99% in one epoch
  python -m tinygrad_mnist train --model mlp --seed 1    784-128-10, 5 epochs
  python -m tinygrad_mnist train --dataset fashion --epochs 5 --out fashion-out
  python -m tinygrad_mnist train --data ~/mnist          the files are in that folder
  python -m tinygrad_mnist train --resume                goes on after an interruption""",
    "evaluate": """\
example:
  python -m tinygrad_mnist evaluate mnist-out/model.safetensors""",
    "predict": """\
examples:
  python -m tinygrad_mnist predict mnist-out/model.safetensors seven.png
  python -m tinygrad_mnist predict mnist-out/model.safetensors scans/*.jpg""",
    "backends": """\
examples:
  TINYGRAD_MNIST_BACKEND=numpy python -m tinygrad_mnist backends
  python -m tinygrad_mnist backends --verbose""",
    "warmup": """\
examples:
  python -m tinygrad_mnist warmup                so that no training waits for it
  python -m tinygrad_mnist warmup --model cnn""",
    "doctor": """\
examples:
  python -m tinygrad_mnist doctor
  python -m tinygrad_mnist doctor --data ~/mnist --out results""",
    "verify": """\
examples:
  python -m tinygrad_mnist verify
  python -m tinygrad_mnist verify --backend numba --only networks cnn-64

exit codes: 0 all within tolerance, 1 a difference beyond it, 2 nothing to compare""",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""

    def job() -> int:
        arguments = _parser().parse_args(argv)
        arguments.line = shlex.join(["python", "-m", "tinygrad_mnist", *(argv or sys.argv[1:])])
        choose_backend(arguments)
        return int(arguments.run(arguments))

    return finish(job)


# ---- the commands


def train(arguments: argparse.Namespace) -> int:
    """Train a model and write it, its history, pictures and a report to ``--out``."""
    current()  # a backend that cannot be had is told of first
    with writable_folder(arguments.out, runs.FILES) as out:
        checkpoints = Checkpoints(out / runs.CHECKPOINTS)
        with checkpoints.reserved():
            return _train_into(out, checkpoints, arguments)


def _train_into(out: Path, checkpoints: Checkpoints, arguments: argparse.Namespace) -> int:
    given = {name: getattr(arguments, name) for name in runs.OPTIONS}
    given = {name: value for name, value in given.items() if value is not None}
    found = checkpoints.newest(print) if arguments.resume else None
    settings = runs.chosen(given, found)
    if found is not None and runs.is_finished(out, found, settings):
        done = found.state["epochs"]
        print(f"the training in {out} is finished: {len(done)} of {settings['epochs']} epochs")
        print(f"test accuracy: {done[-1]['test_accuracy']:.2%}")
        return 0
    jit = arguments.jit
    if found is not None:
        _choose_its_backend(found, arguments)
        jit = found.settings.get("jit", True) if jit is None else jit
    run = runs.prepared(
        out, checkpoints, settings, arguments.data, jit is not False, arguments.line
    )
    if found is not None:
        print("\n".join(run.go_on(found)))
    elif arguments.resume:
        print(f"nothing to resume in {out}: training from the beginning")
    print(run.first_line(), flush=True)
    with stoppable() as stopped_by:
        run.save()  # under its own settings, whenever it is killed
        try:
            history = run.training.run(run.after_epoch, stopped_by)
        except FloatingPointError:
            checkpoints.drop_beginning()
            raise
        if number := stopped_by():
            print(run.stopped(), file=sys.stderr)
            return 128 + number
    if not (out / runs.MODEL).exists() or not (out / runs.HISTORY).exists():
        run.write()
    run.draw()
    print(f"wrote {', '.join(runs.FILES[:-1])} and {runs.FILES[-1]} to {out}")
    print(f"test accuracy: {history.epochs[-1].test_accuracy:.2%}")
    return 0


def _choose_its_backend(found: Checkpoint, arguments: argparse.Namespace) -> None:
    """Go on where the training was, unless somebody asked for a backend, or it is not here."""
    name = found.settings.get("backend")
    if not arguments.backend and config.backend() == "auto" and isinstance(name, str):
        with suppress(BackendError):  # a line says that another one goes on
            set_backend(resolve(name, "the backend of the checkpoint"))


def evaluate(arguments: argparse.Namespace) -> int:
    """Test a trained model on the test images of its dataset."""
    model, info = _fitting_model(arguments.model, INPUTS + OUTPUTS)
    dataset = arguments.dataset or info.dataset
    if dataset not in datasets.STATISTICS:
        raise ModelFileError(
            f"{arguments.model} was trained on {dataset!r}, which is not known here; "
            f"name one of {', '.join(datasets.STATISTICS)} with --dataset"
        )
    _, test_set = datasets.load(dataset, arguments.data)
    test_set.mean, test_set.std = info.mean, info.std
    batches = DataLoader(test_set, runs.EVALUATION_BATCH)
    loss, accuracy = training.evaluate(model, batches, arguments.jit)
    print(f"test loss: {loss:.4f}")
    print(f"test accuracy: {accuracy:.2%}")
    return 0


def predict(arguments: argparse.Namespace) -> int:
    """Name the digit on each picture, with its probability."""
    model, info = _fitting_model(arguments.model, INPUTS)
    failed = False
    for path in arguments.images:
        try:
            digit = read_digit(path)
        except (ImageError, OSError) as error:
            print(f"error: {reason(error)}", file=sys.stderr)
            failed = True
            continue
        picture = ImageDataset(digit[None], np.zeros(1, np.uint8), info.mean, info.std)
        chances = _chances(model, picture)
        best = int(chances.argmax())
        print(f"{path}: {best} ({chances[best]:.1%})", flush=True)
    return FAILED if failed else 0


def backends(arguments: argparse.Namespace) -> int:
    """List the backends: usable, or why not and the line that mends it."""
    found = statuses()
    width = max(len(status.name) for status in found)
    chosen = None
    try:
        chosen = current().name
    except BackendError as error:
        print(f"error: {reason(error)}", file=sys.stderr)
    for status in found:
        mark = "*" if status.name == chosen else " "
        print(f"{mark} {status.name:<{width}}  {status.problem or 'usable'}")
        if arguments.verbose and not status.problem:
            _print_table(_details(status.name), " " * 4)
    print(f"* is what new tensors get; {config.BACKEND} chooses, now {config.backend()!r}")
    return 0 if chosen else FAILED


def _details(name: str) -> dict[str, str]:
    try:
        return {key: str(text) for key, text in resolve(name).details().items()}
    except Exception as error:  # noqa: BLE001 - a third party's may raise anything
        return {"details": f"failed with {type(error).__name__}: {error}"}


def warmup(arguments: argparse.Namespace) -> int:
    """Compile what ``train`` with its default sizes, ``evaluate`` and ``predict`` need."""
    backend = current()
    if "compiled" not in backend.details():
        print(f"the backend {backend.name} compiles nothing: there is nothing to warm up")
        return 0
    names = [arguments.model] if arguments.model else list(models.RECIPES)
    print(f"warming up {' and '.join(names)} on the backend {backend.name}", flush=True)
    for name, optimizer in product(names, OPTIMIZERS):
        _rehearse(name, optimizer)
    done = backend.details()
    _print_table({key: done[key] for key in ("compiled", "loaded", "cache") if key in done})
    return 0


def examine(arguments: argparse.Namespace) -> int:
    """Say what is wrong here, and how to mend it; fails where ``train`` could not run."""
    return doctor.examine(arguments.data, arguments.out, runs.FILES)


def _rehearse(name: str, optimizer_name: str) -> None:
    """A few steps of a training on made-up images, its evaluation, and a prediction."""
    recipe = models.RECIPES[name]
    # Two full batches and the least: those between take the kernels of one or the other.
    train_set, test_set = (
        _noise(2 * size + 1) for size in (recipe.batch_size, runs.EVALUATION_BATCH)
    )
    batches = DataLoader(train_set, recipe.batch_size, shuffle=True)
    model = models.ARCHITECTURES[name](**recipe.arguments)
    optimizer = models.make_optimizer(optimizer_name, model, recipe.lr)
    epochs = 2  # a step is recorded at its second call, that of the last batch in the second epoch
    scheduler = runs.schedule(recipe, optimizer, recipe.lr, epochs * len(batches))
    test = DataLoader(test_set, runs.EVALUATION_BATCH)
    training.fit(model, optimizer, batches, test, epochs, scheduler)
    _chances(model.eval(), _noise(1))


def _noise(count: int) -> ImageDataset:
    """Images as MNIST's in shape and dtype."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 28, 28), np.uint8)
    return ImageDataset(images, np.arange(count) % 10, 0.5, 0.5)


def verify(arguments: argparse.Namespace) -> int:
    """Compare every op and nine trainings on all usable backends with NumPy, plain and jitted."""
    # the op table, which nothing but this needs
    from tinygrad_mnist.verification.run import verify as compare  # noqa: PLC0415

    if arguments.backend:
        return compare([current()], arguments.only, training.progress)
    found = statuses()
    for status in found:
        if status.problem:
            print(f"left out: {status.name}: {status.problem}")
    usable = [resolve(status.name) for status in found if not status.problem]
    return compare(usable, arguments.only, training.progress)


# ---- what they share


def _chances(model: nn.Module, picture: ImageDataset) -> np.ndarray:
    """The probability of each class for the one image."""
    with no_grad():
        return model(next(iter(DataLoader(picture)))[0]).softmax(1)[0].numpy()


def _print_table(rows: dict[str, str], indent: str = "") -> None:
    """Each row's name and text, whose lines begin below each other."""
    width = max(map(len, rows), default=0)
    for name, text in rows.items():
        first = f"{indent}{name:<{width}}  "
        lines = textwrap.wrap(
            text, 100 - len(first), break_long_words=False, break_on_hyphens=False
        )
        print(first + f"\n{' ' * len(first)}".join(lines))


def _fitting_model(path: str, names: Sequence[str]) -> tuple[nn.Module, ModelInfo]:
    """A model from its file. ModelFileError where those arguments are not as MNIST needs them."""
    model, info = training.load_model(path)
    usual = models.RECIPES[info.architecture].arguments
    needed = {name: usual[name] for name in names if name in usual}
    if any(info.arguments.get(name, value) != value for name, value in needed.items()):
        raise ModelFileError(
            f"{path} does not fit the images or their labels: its arguments are {info.arguments}, "
            f"needed: {needed}; give a model.safetensors that 'train' wrote"
        )
    return model, info


# ---- arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tinygrad_mnist",
        description="Train, test and use MNIST classifiers on NumPy, Numba or CuPy.",
        epilog="exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted",
    )
    parser.add_argument("--version", action="version", version=f"tinygrad_mnist {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")

    command = _command(commands, "train", train)
    command.add_argument("--model", choices=list(models.RECIPES), help="default: cnn")
    _add_dataset(command, "mnist")
    command.add_argument("--epochs", type=count, metavar="N", help=_per_model("epochs"))
    command.add_argument("--batch-size", type=count, metavar="N", help=_per_model("batch_size"))
    command.add_argument(
        "--lr", type=rate, metavar="X", help=f"learning rate, cnn: its peak; {_per_model('lr')}"
    )
    command.add_argument(
        "--optimizer",
        choices=OPTIMIZERS,
        help="default: adam; sgd has momentum 0.9",
    )
    add_seed(command, default=None)
    _add_out(command)
    command.add_argument(
        "--resume",
        action="store_true",
        help="go on from the last checkpoint in --out, with the options it was started with",
    )
    add_backend(command)
    add_jit(command, default=None)

    command = _command(commands, "evaluate", evaluate)
    command.add_argument("model", metavar="MODEL", help="a model.safetensors that train wrote")
    _add_dataset(command, "what the model was trained on")
    add_backend(command)
    add_jit(command)

    command = _command(commands, "predict", predict)
    command.add_argument("model", metavar="MODEL", help="a model.safetensors that train wrote")
    command.add_argument(
        "images", metavar="IMAGE", nargs="+", help="PNG or JPEG, any size, dark or light digit"
    )
    add_backend(command)

    command = _command(commands, "backends", backends)
    command.add_argument(
        "--verbose", action="store_true", help="with the threads, BLAS and cache of each"
    )

    command = _command(commands, "warmup", warmup)
    command.add_argument("--model", choices=list(models.RECIPES), help="default: all of them")
    add_backend(command)

    command = _command(commands, "doctor", examine)
    add_data(command)
    _add_out(command)

    command = _command(commands, "verify", verify)
    command.add_argument(
        "--backend", metavar="NAME", help="that one alone beside NumPy; default: all usable"
    )
    command.add_argument(
        "--only",
        nargs="+",
        choices=(*FAMILIES, *TRAININGS),
        default=[],
        metavar="NAME",
        help=f"of {', '.join((*FAMILIES, *TRAININGS))}; default: all",
    )
    return parser


def _per_model(option: str) -> str:
    found = [f"{getattr(recipe, option)} for {name}" for name, recipe in models.RECIPES.items()]
    return f"default: {', '.join(found)}"


def _command(commands: Any, name: str, run: Callable[..., int]) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=_first_line(run),
        description=_first_line(run),
        epilog=EXAMPLES[name],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


def _first_line(run: Callable[..., int]) -> str:
    return (run.__doc__ or "").partition("\n")[0].replace("``", "")


def _add_out(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", default="mnist-out", metavar="DIR", help="default: ./mnist-out")


def _add_dataset(command: argparse.ArgumentParser, default: str) -> None:
    command.add_argument("--dataset", choices=list(datasets.STATISTICS), help=f"default: {default}")
    add_data(command)
