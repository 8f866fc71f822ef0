"""What the five reproductions share: their options, the table "published | here", their files.

A reproduction is a function that takes a ``Run`` and tells it figures as it finds them; ``main``
gives it one, writes ``figures.json`` at its end, and returns the exit code: 1 where a figure
missed its target.
"""

import argparse
import datetime
import importlib.metadata
import json
import math
import platform
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import tinygrad_mnist as tg
from tinygrad_mnist import command
from tinygrad_mnist.backend import current
from tinygrad_mnist.utils.data import sources
from tinygrad_mnist.utils.files import write_whole

WIDTHS = (42, 20, 20)  # of the table's columns


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

    options: argparse.Namespace  # backend, seed, data, out, quick, and the example's own
    out: Path
    figures: list[Figure] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    def arrays(self, dataset: str = "mnist") -> sources.Arrays:
        """The dataset's uint8 arrays. DataError where it is not to be had."""
        return sources.load(dataset, self.options.data)

    def seeds(self, count: int) -> list[int]:
        """``--seed`` and those after it."""
        return [(self.options.seed + i) % 2**64 for i in range(count)]

    def near(self, what: str, published: float, here: float, form: str, *, within: float) -> None:
        """A figure that should be at most ``within`` from the published one."""
        points = f"{100 * within:g} points" if form.endswith("%") else f"{within:g}"
        self._add(what, published, here, form, f"± {points}", abs(here - published) <= within)

    def agrees(
        self, what: str, published: float, here: float, form: str, *, relative: float
    ) -> None:
        """A figure that should be the published one up to a relative difference."""
        share = f"{relative:.0%}" if relative >= 0.01 else f"{relative:g}, relative"
        met = abs(here - published) <= relative * abs(published)
        self._add(what, published, here, form, f"± {share}", met)

    def above(
        self, what: str, here: float, form: str, *, least: float, published: float | None = None
    ) -> None:
        """A figure that should be above ``least``."""
        self._add(what, published, here, form, f"above {least:{form}}", here > least)

    def tell(self, what: str, here: float, form: str, published: float | None = None) -> None:
        """A figure without a target."""
        self._add(what, published, here, form, "", None)

    def file(self, name: str) -> Path:
        """The path of a file to be written, named in the last line."""
        self.files.append(name)
        return self.out / name

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
    add_options: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
) -> int:
    """Run a reproduction with the command line's options and return the exit code.

    0: every target met. 1: one missed, or an error, which one line tells. 130: interrupted.
    """
    name = Path(sys.argv[0]).stem

    def job() -> int:
        options = _parser(doc, f"{name}-out", add_options).parse_args()
        command.choose_backend(options)
        current()  # a backend that cannot be had is told of first
        with command.writable_folder(options.out, ["figures.json"]) as out:
            run = Run(options, out)
            start = time.perf_counter()
            tg.manual_seed(options.seed)
            reproduce(run)
            return _finish(run, name, time.perf_counter() - start)

    return command.finish(job)


def _finish(run: Run, name: str, seconds: float) -> int:
    versions = {p: importlib.metadata.version(p) for p in ("numpy", "numba")}
    about = {
        "example": name,
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()} {platform.system()}",
        "python": platform.python_version(),
        "tinygrad_mnist": tg.__version__,
        **versions,
        "backend": current().name,
        "seed": run.options.seed,
        "quick": run.options.quick,
        "seconds": round(seconds, 1),
        "figures": [asdict(figure) for figure in run.figures],
    }
    write_whole(run.file("figures.json"), json.dumps(_jsonable(about), indent=1).encode())
    missed = [figure.what for figure in run.figures if figure.met is False]
    targets = sum(figure.met is not None for figure in run.figures)
    print(f"wrote {', '.join(run.files)} to {run.out}")
    print(
        f"{name} on {current().name}: {targets - len(missed)} of {targets} targets met, "
        f"{seconds:.1f} s"
    )
    return command.FAILED if missed else 0


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
    command.add_seed(parser)
    command.add_data(parser)
    parser.add_argument("--out", default=out, metavar="DIR", help=f"default: ./{out}")
    parser.add_argument("--quick", action="store_true", help="under a minute, with its own target")
    add_options(parser)
    return parser
