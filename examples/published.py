"""What the five reproductions share: their options, the table "published | here", their files.

A reproduction is a function that takes a ``Run`` and tells it figures as it finds them; ``main``
gives it one, writes ``figures.json`` at its end, and returns the exit code: 1 where a figure
missed its target.
"""

import argparse
import json
import math
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import tinygrad_mnist as tg
from tinygrad_mnist import command
from tinygrad_mnist.backend import current
from tinygrad_mnist.machine import described
from tinygrad_mnist.utils.data import DataError, sources

Step = TypeVar("Step", bound=Callable[..., Any])
WIDTHS = (42, 20, 20)  # of the table's columns
SHOWN = 64  # so many test images may be shown
ROUNDING = 1e-12  # a figure at its very limit is met


@dataclass
class Figure:
    """One line of the table; ``met`` is None where no target is set."""

    what: str
    published: float | None
    here: float
    target: str
    met: bool | None


@dataclass
class Run:
    """One reproduction under way: what was asked for, and the figures so far."""

    options: argparse.Namespace  # backend, jit, seed, data, out, quick, and the example's own
    out: Path  # where its files are written
    figures: list[Figure] = field(default_factory=list)
    dataset: str = ""

    def arrays(self, dataset: str = "mnist") -> sources.Arrays:
        """The dataset's uint8 arrays. DataError where it is not to be had, or too small."""
        arrays = sources.load(dataset, self.options.data)
        if len(arrays.test_images) < SHOWN:
            raise DataError(
                f"{arrays.source}: has {len(arrays.test_images)} test images; expected at least "
                f"{SHOWN}, which are shown; use the published files"
            )
        self.dataset = f"{dataset}, {arrays.source}"
        return arrays

    def seeds(self, count: int) -> list[int]:
        """``--seed`` and those after it."""
        return [(self.options.seed + i) % 2**64 for i in range(count)]

    def jit(self, step: Step) -> Step:
        """The function of tensors under ``tg.jit``; with ``--no-jit`` as it is."""
        return tg.jit(step) if self.options.jit else step

    def near(self, what: str, published: float, here: float, form: str, *, within: float) -> None:
        """A figure that should be at most ``within`` from the published one."""
        met = abs(here - published) <= within + ROUNDING
        self._add(what, published, here, form, f"± {_distance(within, form)}", met)

    def agrees(
        self, what: str, published: float, here: float, form: str, *, relative: float
    ) -> None:
        """A figure that should be the published one up to a relative difference."""
        share = f"{relative:.0%}" if relative >= 0.01 else f"{relative:g}, relative"
        met = abs(here - published) <= relative * abs(published)
        self._add(what, published, here, form, f"± {share}", met)

    def about(self, what: str, here: float, form: str, *, expected: float, within: float) -> None:
        """A figure that nobody published and that should be at most ``within`` from another."""
        met = abs(here - expected) <= within + ROUNDING
        self._add(what, None, here, form, f"{expected:{form}} ± {_distance(within, form)}", met)

    def at_least(self, what: str, here: float, form: str, *, least: float) -> None:
        """A figure that nobody published and that should be ``least`` or more."""
        self._add(what, None, here, form, f"at least {least:{form}}", here >= least - ROUNDING)

    def tell(self, what: str, here: float, form: str, published: float | None = None) -> None:
        """A figure without a target."""
        self._add(what, published, here, form, "", None)

    def _add(
        self,
        what: str,
        published: float | None,
        here: float,
        form: str,
        target: str,
        met: bool | None,
    ) -> None:
        if not self.figures:
            print(_line("", "published", "here", "target"))
        published = None if published is None else float(published)  # NumPy's, too
        met = None if met is None else bool(met)
        self.figures.append(Figure(what, published, float(here), target, met))
        mark = "" if met is None else "ok" if met else "MISSED"
        shown = "–" if published is None else f"{published:{form}}"
        print(_line(what, shown, f"{here:{form}}", f"{target}  {mark}"), flush=True)


def main(
    doc: str,
    reproduce: Callable[[Run], None],
    files: Sequence[str],
    add_options: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
) -> int:
    """Run a reproduction with the command line's options and return the exit code.

    ``files`` are those that it writes into ``run.out``; they are put into ``--out`` at its end, so
    that a Ctrl-C while it runs changes nothing there. 0: every target met. 1: one missed, or an
    error, which one line tells. 130: interrupted.
    """
    name = Path(sys.argv[0]).stem
    files = [*files, "figures.json"]

    def job() -> int:
        options = _parser(doc, f"{name}-out", add_options).parse_args()
        command.choose_backend(options)
        current()  # a backend that cannot be had is told of first
        with (
            command.writable_folder(options.out, files) as out,
            tempfile.TemporaryDirectory(dir=out, prefix=".unfinished-") as unfinished,
        ):
            run = Run(options, Path(unfinished))
            start = time.perf_counter()
            tg.manual_seed(options.seed)
            reproduce(run)
            seconds = time.perf_counter() - start
            (run.out / "figures.json").write_text(_figures(run, name, seconds), "utf-8")
            for file in files:
                os.replace(run.out / file, out / file)
        missed = [figure for figure in run.figures if figure.met is False]
        targets = [figure for figure in run.figures if figure.met is not None]
        print(f"wrote {', '.join(files)} to {out}")
        met = f"{len(targets) - len(missed)} of {len(targets)} targets met"
        print(f"{name} on {current().name}: {met}, {seconds:.1f} s")
        return command.FAILED if missed else 0

    return command.finish(job)


def as_tensors(
    arrays: sources.Arrays, scaled: Callable[[np.ndarray], np.ndarray]
) -> tuple[tg.Tensor, tg.Tensor, tg.Tensor, tg.Tensor]:
    """Images (N, 784) and labels (N,) to train on, then those to test on.

    ``scaled`` makes numbers of the uint8 pixels, and so decides their dtype.
    """
    images = [arrays.train_images, arrays.test_images]
    x, x_test = (tg.from_numpy(scaled(each.reshape(len(each), -1))) for each in images)
    y, y_test = (tg.tensor(each).long() for each in (arrays.train_labels, arrays.test_labels))
    return x, y, x_test, y_test


def _figures(run: Run, name: str, seconds: float) -> str:
    """What figures.json holds."""
    about = {
        "example": name,
        "command": shlex.join(["python", *sys.argv]),
        "measured": described("numpy", "numba"),
        "tinygrad_mnist": tg.__version__,
        "backend": current().name,
        "jit": run.options.jit,
        "dataset": run.dataset,
        "seed": run.options.seed,
        "quick": run.options.quick,
        "seconds": round(seconds, 1),
        "figures": [asdict(figure) for figure in run.figures],
    }
    return json.dumps(_jsonable(about), indent=1)  # ASCII: a name may hold what UTF-8 lacks


def _distance(within: float, form: str) -> str:
    return f"{100 * within:g} points" if form.endswith("%") else f"{within:g}"


def _jsonable(value: object) -> object:
    """The same without NaN and infinity, which JSON lacks: null."""
    if isinstance(value, dict):
        return {key: _jsonable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_jsonable(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _line(what: str, published: str, here: str, target: str) -> str:
    first, second, third = WIDTHS
    return f"{what:<{first}} {published:>{second}} {here:>{third}}   {target}".rstrip()


def _parser(
    doc: str, out: str, add_options: Callable[[argparse.ArgumentParser], None]
) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=doc.splitlines()[0],
        epilog="exit codes: 0 targets met, 1 missed or failed, 2 wrong usage, 130 interrupted",
    )
    command.add_backend(parser)
    command.add_jit(parser)
    command.add_seed(parser)
    command.add_data(parser)
    parser.add_argument("--out", default=out, metavar="DIR", help=f"default: ./{out}")
    parser.add_argument("--quick", action="store_true", help="under a minute, with its own target")
    add_options(parser)
    return parser
