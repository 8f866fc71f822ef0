"""The test suite on the backend: every test that takes it; none is skipped for want of it."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from on_gpu.machine import ROOT
from on_gpu.work import Found, Work
from tinygrad_mnist import config

KEPT = 50  # failures
SLOWEST = 10
EXAMPLES = ROOT / "examples"
QUICK = ("tests/test_nn_utils.py",)


def tests(work: Work) -> None:
    """Run pytest in a process of its own; totals, and the first lines of each failure.

    It stops with the part: what ended until then is kept.
    """
    name = work.backend.name
    number, of = work.share
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record"
        record.touch()
        command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider"]
        command += ["-p", "on_gpu.recorder", "--share", f"{number}/{of}", "--record", str(record)]
        command += ["--continue-on-collection-errors", "-o", "faulthandler_timeout=100"]
        command += ["-m", selected(name), *(QUICK if work.quick else ())]
        path = [str(EXAMPLES), str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
        environment |= {config.REQUIRE: name.partition(":")[0]}
        work.found["command"] = " ".join(command[1:])
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace",
        )  # fmt: skip
        output = ""
        while process.poll() is None:
            try:
                output, _ = process.communicate(timeout=3)
            except subprocess.TimeoutExpired:
                take(work, record)
        take(work, record)
    if process.returncode not in (0, 1):
        work.found["output"] = output.splitlines()[-20:]
        work.fail(f"pytest ended with {process.returncode}")


def selected(name: str) -> str:
    """The marks of the tests that take the backend; without a mark of its own, all quick ones."""
    return "gpu and not slow" if name.startswith("cupy") else "not slow and not gpu"


def take(work: Work, record: Path) -> None:
    """What the record holds by now."""
    totals = dict.fromkeys(("passed", "failed", "error", "skipped"), 0)
    ended, started, seconds = {}, None, {}
    collected = 0
    for line in record.read_text("utf-8").splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            continue  # the last, half written
        collected += told.get("collected", 0)
        started = told.get("started", started)
        if "outcome" in told:
            totals[told["outcome"]] += 1
            ended[told["id"]] = told
            seconds[told["id"]] = told.get("seconds", 0.0)
    failed = [each for each in ended.values() if each["outcome"] in ("failed", "error")]
    reasons: dict[str, int] = {}
    for each in ended.values():
        if each["outcome"] == "skipped" and each["lines"]:
            reasons[each["lines"][0]] = reasons.get(each["lines"][0], 0) + 1
    slowest = sorted(seconds, key=lambda each: -seconds[each])[:SLOWEST]
    work.found.update(
        collected=collected,
        totals=totals,
        skipped=reasons,
        slowest={each: seconds[each] for each in slowest},
        failed={each["id"]: each["lines"] for each in failed[:KEPT]},
        running=[] if started is None or started in ended else [started],
    )
    work.save()


def wrong(found: Found) -> list[str]:
    """What is not as it must be."""
    totals = found.get("totals", {})
    failed = totals.get("failed", 0) + totals.get("error", 0)
    ended = sum(totals.values())
    lines = [f"{failed} tests failed"] if failed else []
    if ended < found.get("collected", 0):
        running = ", ".join(found.get("running", ()))
        at = f", at {running}" if running else ""
        lines.append(f"stopped after {ended} of {found['collected']} tests{at}")
    if not ended:
        lines.append("no test ran")
    return lines


def lines(found: Found) -> list[str]:
    """For the end of the output."""
    totals = ", ".join(f"{count} {what}" for what, count in found.get("totals", {}).items())
    shown = [f"of {found.get('collected', 0)} tests: {totals}"]
    for name, told in list(found.get("failed", {}).items())[:5]:
        shown.append(f"  {name}: {' '.join(told[:1])}"[:160])
    return shown
