"""A plugin of pytest: runs a share of the tests, and writes down each as it ends.

What was found is then known also where the run was stopped.
"""

import json
from pathlib import Path

import pytest

LINES = 6  # of a failure


def pytest_addoption(parser):
    parser.addoption("--share", metavar="I/N", default="0/1", help="every N-th test, from I on")
    parser.addoption("--record", metavar="FILE", help="a line of JSON for each test")


def pytest_configure(config):
    if config.getoption("--record"):
        config.pluginmanager.register(Recorder(Path(config.getoption("--record"))))


@pytest.hookimpl(trylast=True)  # of those that are selected
def pytest_collection_modifyitems(config, items):
    number, of = map(int, config.getoption("--share").split("/"))
    chosen = items[number::of]
    kept = set(map(id, chosen))
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in kept])
    items[:] = chosen


class Recorder:
    def __init__(self, path):
        self.file = path.open("a", encoding="utf-8")

    def write(self, **line):
        print(json.dumps(line), file=self.file, flush=True)

    def pytest_collectreport(self, report):
        if report.failed:
            self.write(id=report.nodeid, outcome="error", lines=shown(report))

    def pytest_collection_finish(self, session):
        self.write(collected=len(session.items))

    def pytest_runtest_logstart(self, nodeid):
        self.write(started=nodeid)

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or not report.passed:
            outcome = "error" if report.failed and report.when != "call" else report.outcome
            told = shown(report) if report.failed else []
            if report.skipped and isinstance(report.longrepr, tuple):
                told = [report.longrepr[2]]
            seconds = round(report.duration, 3)
            self.write(id=report.nodeid, outcome=outcome, seconds=seconds, lines=told)


def shown(report):
    """The lines that say what went wrong, the last of a traceback first of all."""
    text = str(report.longrepr).splitlines()
    errors = [line for line in text if line.startswith("E ")]
    return (errors or text[-LINES:])[:LINES]
