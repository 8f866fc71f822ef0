"""Verify everything on a GPU, and write what was found to one JSON file.

    python examples/verify_gpu.py --data DIR

or, where a command has ten minutes, in two, which write to the same file:

    python examples/verify_gpu.py --data DIR --parts equality transfers capture trainings benchmark
    python examples/verify_gpu.py --parts tests

It runs from a checkout, and needs NumPy, CuPy, pytest and, for some parts, the files of MNIST in a
folder; PyTorch and JAX are measured beside ours where they are installed. The parts:

- equality: every op, and nine trainings of 50 steps, plain and jitted, beside NumPy's
- transfers: what crosses between host and device in a training step, and what waits: nothing may
- capture: what seven recorded steps became, and whether a replay equals the plain step to the bit
- trainings: the two trainings of the command line, their seconds and accuracies
- benchmark: seven training steps beside PyTorch's, torch.compile's and JAX's, and their floors
- tests: the test suite on the backend

Each part runs in processes of its own with a time limit, so that one that fails or hangs stops no
other; the file is replaced as a whole whenever there is something new, also while a part runs,
which is "under way" then. What it holds of parts that are not run now stays. The exit code is 0 if
nothing failed, 1 if something did, 2 if the backend is not usable here.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # it need not be installed

from on_gpu import benchmark, capture, equality, machine, tests, trainings, transfers
from on_gpu.work import Found, Work, as_json, first_lines, together
from peers import worker

from tinygrad_mnist.backend import BackendError, resolve
from tinygrad_mnist.command import count, finish
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.utils.files import write_whole

UNUSABLE = 2
LIMIT = 570  # seconds for all
EVERY = 2  # seconds, in which what a part has found so far is kept
SHOWN = 12  # failures at the end of the output


class Part(NamedTuple):
    """A part: its module, the seconds that it may take, and the processes that divide it."""

    module: ModuleType
    limit: int
    shares: int = 1

    def run(self, name: str) -> Callable[[Work], None]:
        return getattr(self.module, name)

    def wrong(self, found: Found) -> list[str]:
        """What a part's module sees when all shares have ended."""
        wrong = getattr(self.module, "wrong", None)
        return [] if wrong is None else wrong(found)


PARTS = {
    "equality": Part(equality, 240, shares=4),
    "transfers": Part(transfers, 60),
    "capture": Part(capture, 90),
    "trainings": Part(trainings, 120),
    "benchmark": Part(benchmark, 420),
    "tests": Part(tests, 560, shares=6),
}


def main(
    arguments: Sequence[str] | None = None, backend: Backend | None = None, **given: Any
) -> int:
    """Run the parts; with a ``backend``, one after the other in this process.

    ``given``: what else each ``Work`` is given then.
    """
    options = _parser().parse_args(arguments)
    if options.on_card:
        return worker.work(options.on_card, on_card=True)
    if options.share:
        return _share(options)
    if backend is None:
        signal.signal(signal.SIGTERM, _stop)
    try:
        found = resolve(options.backend, "--backend") if backend is None else backend
    except BackendError as error:
        print(f"verify_gpu: {' '.join(str(error).split())}", file=sys.stderr)
        return UNUSABLE
    out = Path(options.out)
    results = _read(out)
    about = Work(found)
    machine.machine(about)
    results["machine"] = {**about.found, "command": _line(arguments)}
    write_whole(out, as_json(results))  # where that fails it does so before anything has run
    ends = time.monotonic() + options.limit
    for name in dict.fromkeys(options.parts):
        part = PARTS[name]
        print(f"{name} …", file=sys.stderr, flush=True)

        def keep(made: Found, name: str = name) -> None:
            results[name] = made
            write_whole(out, as_json(results))

        began = time.monotonic()
        stamp = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": about.found["commit"],
        }
        if backend is None:
            made = _in_processes(name, part, options, min(part.limit, ends - began), keep, stamp)
        else:
            made = _here(name, Work(found, options.data, options.quick, **given), stamp, keep)
        made["failures"] = made.get("failures", []) + part.wrong(made)
        made["seconds"] = round(time.monotonic() - began, 1)
        keep(made)
    return _summed_up(results, options.parts, out)


# ---- a part


def _here(name: str, work: Work, stamp: Found, keep: Callable[[Found], None]) -> Found:
    """Run a part in this process."""
    work.found.update(stamp)
    work.save = lambda: keep(work.found)
    try:
        PARTS[name].run(name)(work)
    except Exception as error:  # noqa: BLE001  the other parts go on
        work.found["error"] = traceback.format_exc().splitlines()[-12:]
        work.fail(first_lines(error))
    return work.found


def _share(options: argparse.Namespace) -> int:
    """A share of a part, in a process that was started for it."""
    (name,) = options.parts
    number, of = map(int, options.share.split("/"))
    work = Work(resolve(options.backend, "--backend"), options.data, options.quick, (number, of))
    found = _here(name, work, {}, lambda made: write_whole(options.out, as_json(made)))
    write_whole(options.out, as_json(found))
    return 0


def _in_processes(
    name: str,
    part: Part,
    options: argparse.Namespace,
    seconds: float,
    keep: Callable[[Found], None],
    stamp: Found,
) -> Found:
    """Run a part, in as many processes as it is divided into, for at most so many seconds."""
    if seconds < 1:
        return {**stamp, "failures": ["not begun: there was no time left"]}
    ends = time.monotonic() + seconds
    shares = 1 if options.quick else part.shares
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.json" for number in range(shares)]
        logs = [Path(folder) / f"{number}.log" for number in range(shares)]
        running: list[subprocess.Popen] = []
        try:
            for number, (file, log) in enumerate(zip(files, logs, strict=True)):
                running.append(_begun(name, f"{number}/{shares}", options, file, log))
            seen, kept = 0.0, time.monotonic()
            while any(each.poll() is None for each in running) and time.monotonic() < ends:
                time.sleep(0.2)
                newest = max((file.stat().st_mtime for file in files if file.exists()), default=0)
                if newest > seen and time.monotonic() - kept > EVERY:
                    seen, kept = newest, time.monotonic()
                    keep(_merged(files) | stamp | {"under way": True})
            stopped = [each.poll() is None for each in running]
        finally:
            for each in running:
                _end(each)
        made = _merged(files) | stamp
        lost = made.setdefault("failures", [])
        if any(stopped):
            lost.append(f"stopped after {seconds:.0f} s, its limit or what was left")
        for process, log, late in zip(running, logs, stopped, strict=True):
            if not late and process.returncode:
                told = log.read_text("utf-8", "replace").splitlines()
                made.setdefault("output", []).extend(told[-20:])
                lost.append(f"ended with {process.returncode}: {' '.join(told[-1:])}")
    return made


def _begun(
    name: str, share: str, options: argparse.Namespace, file: Path, log: Path
) -> subprocess.Popen:
    """The process of a share of a part, which writes what it finds to ``file``."""
    command = [sys.executable, __file__, "--parts", name, "--share", share]
    command += ["--out", str(file), "--backend", options.backend]
    command += ["--data", options.data] if options.data else []
    command += ["--quick"] if options.quick else []
    with log.open("wb") as output:
        return subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)


def _merged(files: Sequence[Path]) -> Found:
    return together([_read(file) for file in files])


def _read(file: Path) -> Found:
    """What a file holds; nothing where there is none, or another's."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(file.read_text("utf-8"))
        if isinstance(found, dict):
            return found
    return {}


def _stop(number: int, frame: Any) -> None:
    """Asked to stop: end the parts' processes, too."""
    sys.exit(128 + number)


def _end(process: subprocess.Popen) -> None:
    """End a process and those that it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            continue


# ---- the end


def _summed_up(results: Found, parts: Sequence[str], out: Path) -> int:
    """Print what matters of the parts, and return the exit code."""
    print(f"\n{'=' * 20} {out}")
    print("\n".join(machine.lines(results["machine"])))
    failed = []
    for name in (each for each in PARTS if each in parts):
        found = results[name]
        wrong = found.get("failures", [])
        failed += [f"{name}: {line}" for line in wrong]
        print(f"\n{name}, {found['seconds']} s: {f'FAIL, {len(wrong)}' if wrong else 'pass'}")
        try:
            print("\n".join(f"  {line}" for line in PARTS[name].module.lines(found)))
        except (KeyError, TypeError, ValueError) as error:  # of a part that was stopped
            print(f"  what there is of it is in {out} ({first_lines(error)})")
    print()
    for line in failed[:SHOWN]:
        print(f"FAIL {line}"[:200])
    if len(failed) > SHOWN:
        print(f"and {len(failed) - SHOWN} more in {out}")
    print(f"fail: {len(failed)}" if failed else "pass", flush=True)
    return 1 if failed else 0


def _line(arguments: Sequence[str] | None) -> str:
    return " ".join([Path(__file__).name, *(sys.argv[1:] if arguments is None else arguments)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="what stands beside an option is its default",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", default="verify-gpu.json", metavar="FILE", help="%(default)s")
    parser.add_argument("--data", metavar="DIR", help="where MNIST's files are")
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=PARTS,
        default=list(PARTS),
        metavar="PART",
        help="all",
    )
    parser.add_argument("--backend", default="cupy", metavar="NAME", help="%(default)s")
    parser.add_argument("--quick", action="store_true", help="a little of each, without targets")
    parser.add_argument(
        "--limit",
        type=count,
        default=LIMIT,
        metavar="SECONDS",
        help="for all: %(default)s",
    )
    parser.add_argument("--share", help=argparse.SUPPRESS)  # a process of a part
    parser.add_argument("--on-card", help=argparse.SUPPRESS)  # a peer's process
    return parser


if __name__ == "__main__":
    sys.exit(finish(main))
