"""What the README says: its Python blocks run, its commands exist, its links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
from test_datasets import write

from tinygrad_mnist import cli, config

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


def test_commands_are_understood() -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("python -m tinygrad_mnist")]
    assert len(commands) >= 4
    for line in commands:
        arguments = cli._parser().parse_args(shlex.split(line)[3:])
        assert callable(arguments.run)


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
