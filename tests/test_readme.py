"""What the README says: its Python blocks run, its commands exist, its links lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import draw, environment, write_folder
from test_datasets import write
from test_packaging import copied

from tinygrad_mnist import config

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    Path("README.md"),
    *(Path("examples", each, "README.md") for each in ("", "third_party_backend")),
]


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
    return [text for kind, text in found if kind == language]


def test_python_blocks_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(config.DATA, str(write(tmp_path / "data")))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    said = capsys.readouterr().out
    assert "<All keys matched successfully>" in said
    loss, right = re.search(r"loss (\S+), (\d+) of 256 right", said).groups()  # type: ignore[union-attr]
    assert float(loss) < 0.2
    assert int(right) > 245


COMMANDS = [line.partition("  #")[0] for block in blocks("sh") for line in block.splitlines()]
# Of the command line itself, on little data; what compares the backends takes a minute.
QUICK = [c for c in COMMANDS if c.startswith("python -m tinygrad_mnist") and " verify" not in c]


def in_shell(command: str, cwd: Path, **variables: str) -> str:
    """What a command prints that runs as it stands, where ``python`` is this one."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=cwd,
        env={**environment(**variables), "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def test_the_commands_run_in_order(tmp_path: Path) -> None:
    assert len(QUICK) >= 8
    data = str(write_folder(tmp_path / "data", 600, 100))
    draw(tmp_path / "digit.png", 3, light_on_dark=True)
    draw(tmp_path / "another.jpg", 7, light_on_dark=False)
    said = {c: in_shell(c, tmp_path, TINYGRAD_MNIST_DATA=data) for c in QUICK}
    (predicted,) = (text for command, text in said.items() if " predict " in command)
    assert [line.split()[1] for line in predicted.splitlines()] == ["3", "7"]
    assert "is finished" in said["python -m tinygrad_mnist train --resume"]
    assert (tmp_path / "mlp-out" / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in QUICK and "pip" not in c])
def test_the_longer_commands_run(tmp_path: Path, command: str) -> None:
    """On the data that this machine has, or fetches."""
    in_shell(command, copied(ROOT, tmp_path / "checkout"), TINYGRAD_MNIST_BACKEND="auto")


@pytest.mark.slow
def test_the_first_command_runs_in_a_fresh_environment(tmp_path: Path) -> None:
    """pip fetches what it needs. The second is what .ci/run does."""
    first, second = (c for c in COMMANDS if "pip" in c)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    checkout = copied(ROOT, tmp_path / "checkout")
    data = str(write_folder(tmp_path / "data", 600, 100))
    activated = f"{tmp_path}/venv/bin:$PATH"
    said = in_shell(
        f"PATH={activated}; unset PYTHONPATH; {first}", checkout, TINYGRAD_MNIST_DATA=data
    )
    assert said.splitlines()[-1].startswith("test accuracy: ")
    assert second.removeprefix("pip install -e '.[test]' && ") in (ROOT / ".ci/run").read_text()


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        found = ROOT / page.parent / target
        assert target.startswith("https://") or found.exists(), target


def test_the_examples_are_all_told_of_and_there() -> None:
    named = [set(re.findall(r"\bexamples/(\w+\.py)", (ROOT / page).read_text())) for page in PAGES]
    there = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert set().union(*named) <= there
    told = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    assert [name for name in there if name not in told] == []


def test_the_plan_names_what_is_there() -> None:
    (plan,) = blocks("")
    folder, named = ROOT, 0
    for line in plan.splitlines():
        names = re.split(r"\s{3,}|(?<=/)\s{2}|(?<=y)\s{2}", line.strip())
        for name in (n for n in names if re.fullmatch(r"\w+(/|\.py)", n)):
            if not line.startswith(" "):
                folder = ROOT / name
                assert folder.exists(), name
            else:
                assert (folder / name).exists(), name
            named += 1
    assert named >= 15
