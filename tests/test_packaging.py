"""What is built, what it needs, and that it runs wherever it is run from: real builds, no network.

Each environment is a fresh one that sees this interpreter's packages but not its copy of this one.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.message import Message
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
OPTIONAL = ("numba", "safetensors", "tqdm", "pooch", "matplotlib", "PIL", "requests", "scipy")
OPTIONAL += ("jinja2", "filelock")
TIMEOUT = 300

DEPENDENCIES = {"numpy", "numba", "llvmlite", "scipy", "threadpoolctl"}
DEPENDENCIES |= {"safetensors", "tqdm", "pooch", "matplotlib", "Pillow", "Jinja2", "filelock"}
if platform.machine() in ("x86_64", "AMD64"):
    DEPENDENCIES |= {"tbb"}
EXTRAS = {
    "cuda12": {"cupy-cuda12x"},
    "cuda13": {"cupy-cuda13x"},
    "test": {"pytest", "hypothesis", "mypy", "ruff", "setuptools"},
    "parity": {"torch"},
}


# ---- the tools


def run(*command: object, cwd: Path, **variables: str) -> str:
    """What the command prints. The test fails where it does, with all that was said."""
    hidden = ("PYTHON", "TINYGRAD_MNIST_", "VIRTUAL_ENV", "PIP_")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env={**inherited, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **variables},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def ignored() -> list[str]:
    """The names that git does not look at."""
    return [line.strip("/") for line in (ROOT / ".gitignore").read_text().split()] + [".git"]


def copied(root: Path, to: Path) -> Path:
    """A copy of a checkout without what git ignores, so that no build touches this one."""
    return shutil.copytree(root, to, ignore=shutil.ignore_patterns(*ignored()))


def files(folder: Path) -> set[str]:
    """Every file below that git does not ignore."""
    ignore = shutil.ignore_patterns(*ignored())
    found = set()
    for place, folders, names in os.walk(folder):
        left_out = ignore(place, [*folders, *names])
        folders[:] = [name for name in folders if name not in left_out]
        found |= {str(Path(place, name).relative_to(folder)) for name in names} - left_out
    return found


def sources(root: Path) -> set[str]:
    """The package's Python files as they should be installed."""
    own = {str(path.relative_to(root)) for path in root.glob("tinygrad_mnist/**/*.py")}
    beside = {f"tinygrad_mnist/{path.relative_to(root)}" for path in root.glob("backends/**/*.py")}
    return own | beside


class Environment:
    """A virtual environment with this interpreter's packages, without this package."""

    def __init__(self, home: Path) -> None:
        venv.create(home, with_pip=False, symlinks=os.name != "nt")
        scripts = home / ("Scripts" if os.name == "nt" else "bin")
        self.python = scripts / "python"
        self.script = scripts / "tinygrad-mnist"
        self.elsewhere = home / "elsewhere"
        self.elsewhere.mkdir()
        packages = run(
            self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home
        )
        links = home / "packages"
        links.mkdir()
        for folder in _package_folders():
            for path in folder.iterdir():
                if not path.name.startswith(("tinygrad_mnist", "__editable__")):
                    links.joinpath(path.name).symlink_to(path)
        Path(packages.strip(), "host.pth").write_text(f"{links}\n")

    def run(self, *arguments: object, cwd: Path | None = None, **variables: str) -> str:
        """What ``python *arguments`` prints, by default in a folder with nothing in it."""
        return run(self.python, *arguments, cwd=cwd or self.elsewhere, **variables)

    def install(self, *what: object) -> None:
        """``pip install`` into this environment, from files alone."""
        pip = (sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet")
        run(*pip, "--no-index", "--no-deps", "--no-build-isolation", *what, cwd=self.elsewhere)


def _package_folders() -> set[Path]:
    """Where the dependencies and the build tool are installed."""
    found = [importlib.util.find_spec(name) for name in (*OPTIONAL, "numpy", "setuptools")]
    return {Path(spec.origin).parents[1] for spec in found if spec and spec.origin}


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(ROOT, tmp_path_factory.mktemp("build") / "checkout")


@pytest.fixture(scope="session")
def built(checkout: Path) -> tuple[set[str], set[str]]:
    """The wheel and the source archive in dist/; the files there before and after."""
    before = files(checkout)
    build = "import setuptools.build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"
    run(sys.executable, "-c", build, cwd=checkout)
    return before, files(checkout)


@pytest.fixture(scope="session")
def wheel(checkout: Path, built: object) -> Path:
    (found,) = checkout.glob("dist/*.whl")
    return found


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Nothing installed."""
    return Environment(tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Environment:
    """The wheel installed."""
    environment = Environment(tmp_path_factory.mktemp("plain"))
    assert not _importable(environment)
    environment.install(wheel)
    return environment


@pytest.fixture(scope="session")
def editable(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> tuple[Environment, Path]:
    """An editable install of another copy of the checkout, and that copy."""
    home = tmp_path_factory.mktemp("editable")
    environment = Environment(home / "environment")
    assert not _importable(environment)
    copy = copied(checkout, home / "checkout")
    environment.install("--editable", copy)
    return environment, copy


def _importable(environment: Environment) -> bool:
    find = "import importlib.util as u; print(u.find_spec('tinygrad_mnist') is not None)"
    return json.loads(environment.run("-c", find).lower())


# ---- what is built


def test_a_build_leaves_nothing_behind_that_git_sees(built: tuple[set[str], set[str]]) -> None:
    before, after = built
    assert after == before
    assert "pyproject.toml" in before
    assert "tinygrad_mnist/__init__.py" in before


def test_an_editable_install_leaves_nothing_behind_that_git_sees(
    editable: tuple[Environment, Path], built: tuple[set[str], set[str]]
) -> None:
    assert files(editable[1]) == built[0]


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path, checkout: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    code = {name for name in names if ".dist-info/" not in name}
    assert {name for name in code if name.endswith(".py")} == sources(checkout)
    assert "tinygrad_mnist/backends/numba_kernels/compile.py" in code
    others = {name for name in code if not name.endswith(".py")}
    kernels = {f"cupy_kernels/{path.name}" for path in checkout.glob("backends/*/*.cu")}
    expected = {"py.typed", "report/page.html", *(f"backends/{name}" for name in kernels)}
    assert kernels
    assert others == {f"tinygrad_mnist/{name}" for name in expected}
    assert any(name.endswith("/LICENSE") for name in names - code)


def test_the_source_archive_builds_the_same_wheel(
    wheel: Path, checkout: Path, tmp_path: Path
) -> None:
    (source,) = checkout.glob("dist/*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    build = "import setuptools.build_meta as b; b.build_wheel('dist')"
    run(sys.executable, "-c", build, cwd=unpacked)
    (again,) = unpacked.glob("dist/*.whl")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert sorted(one.namelist()) == sorted(other.namelist())
        for name in one.namelist():
            assert one.read(name) == other.read(name), name


def test_the_top_level_of_the_repository() -> None:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not in a git checkout")
    listed = run(git, "ls-files", cwd=ROOT).splitlines()
    top = {name.partition("/")[0] for name in listed}
    assert {name for name in top if not name.startswith(".")} == {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "tinygrad_mnist",
        "backends",
        "tests",
        "examples",
    }


# ---- what it needs


@pytest.fixture(scope="session")
def about(wheel: Path) -> Message:
    """The wheel's metadata."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def needed(about: Message, extra: str) -> set[str]:
    """The packages that the wheel asks for with this extra alone, "" for none."""

    def asked(extra: str) -> set[str]:
        found = map(Requirement, about.get_all("Requires-Dist", []))
        return {r.name for r in found if not r.marker or r.marker.evaluate({"extra": extra})}

    return asked(extra) - asked("") if extra else asked("")


def test_dependencies_are_these_and_no_more(about: Message) -> None:
    assert needed(about, "") == DEPENDENCIES
    assert set(about.get_all("Provides-Extra", [])) == set(EXTRAS)
    assert {extra: needed(about, extra) for extra in EXTRAS} == EXTRAS


def test_no_dependency_and_no_test_tool_pulls_torch_in(about: Message) -> None:
    """By what is installed here, followed through what each package asks for itself."""
    seen: set[str] = set()
    left = sorted(needed(about, "") | needed(about, "test"))
    while left:
        name = left.pop().lower().replace("_", "-")
        if name in seen:
            continue
        seen.add(name)
        try:
            asked = map(Requirement, metadata.requires(name) or [])
        except metadata.PackageNotFoundError:  # for another system or Python version
            continue
        left += [each.name for each in asked if not each.marker or each.marker.evaluate()]
    assert {"numpy", "llvmlite", "pluggy"} <= seen
    assert "torch" not in seen


def test_the_metadata_say_what_it_is(about: Message) -> None:
    text = (ROOT / "tinygrad_mnist" / "__init__.py").read_text()
    version = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    assert version
    assert about["Name"] == "tinygrad_mnist"
    assert about["Version"] == version[1]
    assert about["License-Expression"] == "MIT"
    assert about["Requires-Python"] == ">=3.11"
    assert about.get_payload().strip() == (ROOT / "README.md").read_text().strip()


# ---- where it runs

# One class under one name, from one file, whoever imports it first.
RESOLVE = """
import json, sys
import tinygrad_mnist
from tinygrad_mnist import backends
from tinygrad_mnist.backend import resolve
from tinygrad_mnist.backends import numba_backend, numpy_backend
import tinygrad_mnist.backends.numpy_backend as again

assert again is numpy_backend
assert type(resolve("numpy")) is numpy_backend.NumpyBackend
assert type(resolve("numba")) is numba_backend.NumbaBackend
names = [n for n, m in sys.modules.items() if getattr(m, "__file__", 0) == again.__file__]
assert names == ["tinygrad_mnist.backends.numpy_backend"], names
print(json.dumps([tinygrad_mnist.__file__, numpy_backend.__file__]))
"""


def check_it_runs(environment: Environment, cwd: Path | None = None) -> list[Path]:
    """Version, backends and classes; the files of the package and of a backend."""
    version = environment.run("-m", "tinygrad_mnist", "--version", cwd=cwd)
    assert re.fullmatch(r"tinygrad_mnist \d+\.\d+\.\d+\n", version)
    listed = environment.run("-m", "tinygrad_mnist", "backends", cwd=cwd).splitlines()
    usable = [line.strip("* ").split()[0] for line in listed if line.endswith("usable")]
    assert usable[:2] == ["numpy", "numba"], listed
    found = json.loads(environment.run("-c", RESOLVE, cwd=cwd))
    return [Path(name).resolve() for name in found]


def beside(root: Path) -> list[Path]:
    """The two files in a checkout."""
    root = root.resolve()
    return [root / "tinygrad_mnist" / "__init__.py", root / "backends" / "numpy_backend.py"]


def test_from_the_root_of_a_checkout_with_no_install(bare: Environment, checkout: Path) -> None:
    assert not _importable(bare)
    assert check_it_runs(bare, checkout) == beside(checkout)


def test_from_the_root_of_a_checkout_after_a_plain_install(
    plain: Environment, checkout: Path
) -> None:
    assert check_it_runs(plain, checkout) == beside(checkout)


def test_away_from_the_checkout_after_a_plain_install(plain: Environment) -> None:
    package, backend = check_it_runs(plain)
    assert package.parent == backend.parents[1]
    assert package.is_relative_to(plain.python.parents[1].resolve())


def test_from_the_root_of_a_checkout_after_an_editable_install(
    editable: tuple[Environment, Path],
) -> None:
    environment, copy = editable
    assert check_it_runs(environment, copy) == beside(copy)


def test_away_from_the_checkout_after_an_editable_install(
    editable: tuple[Environment, Path],
) -> None:
    environment, copy = editable
    assert check_it_runs(environment) == beside(copy)


def test_the_script_is_installed(plain: Environment) -> None:
    assert run(plain.script, "--version", cwd=plain.elsewhere).startswith("tinygrad_mnist ")


# ---- what it does there


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few random images with labels as IDX files."""
    folder = tmp_path_factory.mktemp("small")
    random = np.random.default_rng(0)
    for name, count in (("train", 64), ("t10k", 20)):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        header = b"\0\0\x08" + bytes([3]) + np.array(images.shape, ">u4").tobytes()
        folder.joinpath(f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = b"\0\0\x08" + bytes([1]) + np.array(labels.shape, ">u4").tobytes()
        folder.joinpath(f"{name}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    return folder


@pytest.mark.parametrize("backend", ["numpy", pytest.param("auto", marks=pytest.mark.slow)])
def test_an_installed_wheel_trains(
    plain: Environment, small: Path, tmp_path: Path, backend: str
) -> None:
    options = ["--model", "mlp", "--epochs", 1, "--data", small, "--out", tmp_path / "out"]
    said = plain.run("-m", "tinygrad_mnist", "train", *options, TINYGRAD_MNIST_BACKEND=backend)
    assert re.fullmatch(r"test accuracy: \d+\.\d\d%", said.splitlines()[-1])
    assert (tmp_path / "out" / "model.safetensors").stat().st_size > 400_000


TRAINED = """
import json, sys
from tinygrad_mnist.cli import main

assert main(["train", "--no-jit", "--model", "mlp", "--epochs", "1", *sys.argv[1:]]) == 0
counting = sys.modules.get("counting_backend")
print(json.dumps(counting.CALLS if counting else {}))
"""


def test_a_backend_of_another_package_is_installed_and_trains(
    tmp_path: Path, wheel: Path, small: Path
) -> None:
    """The one in examples/: known by its name, with NumPy's losses, and its calls counted."""
    environment = Environment(tmp_path / "environment")
    third_party = ROOT / "examples" / "third_party_backend"
    environment.install(wheel, copied(third_party, tmp_path / "third_party_backend"))
    listed = environment.run("-m", "tinygrad_mnist", "backends").splitlines()
    shown = [line.strip("* ").split() for line in listed[:4]]
    assert [line[0] for line in shown] == ["numpy", "numba", "cupy", "counting"]
    assert shown[3][1] == "usable"
    verbose = environment.run("-m", "tinygrad_mnist", "backends", "--verbose").splitlines()
    assert verbose[-2:] == listed[-2:]  # there is nothing more to say of it
    losses, calls = {}, {}
    for name in ("numpy", "counting"):
        options = ("--data", small, "--out", tmp_path / name)
        said = environment.run("-c", TRAINED, *options, TINYGRAD_MNIST_BACKEND=name)
        calls[name] = json.loads(said.splitlines()[-1])
        losses[name] = json.loads((tmp_path / name / "history.json").read_text())["steps"]["loss"]
    assert losses["counting"] == losses["numpy"]
    assert len(losses["numpy"]) == 2
    # Two layers, in two steps, one batch of the test, and the steps of which the report tells; one
    # update for all parameters.
    page = (tmp_path / "counting" / "report.html").read_text()
    profiled = re.search(r"The kernels of (\d+) steps", page)
    assert profiled
    steps = 2 + int(profiled[1])
    assert (calls["counting"]["linear"], calls["counting"]["adam_"]) == (2 * steps + 2, steps)
    assert calls["numpy"] == {}


IMPORTED = """
import json, sys
import numpy, numpy.random
before = set(sys.modules)
import tinygrad_mnist
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


def test_importing_the_package_loads_numpy_and_the_standard_library_alone(
    plain: Environment,
) -> None:
    loaded = set(json.loads(plain.run("-c", IMPORTED)))
    assert loaded - sys.stdlib_module_names - {"numpy"} == {"tinygrad_mnist"}


SCRIPT = f"""
import sys
for name in {OPTIONAL!r}:
    sys.modules[name] = None  # importing it fails

import numpy as np
import tinygrad_mnist as tg
from tinygrad_mnist import nn, optim
from tinygrad_mnist.utils.data import DataLoader, ImageDataset

tg.manual_seed(0)
images = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
loader = DataLoader(ImageDataset(images, np.arange(40) % 10), 20, shuffle=True)
model = nn.Sequential(nn.Conv2d(1, 3, 5), nn.MaxPool2d(4), nn.BatchNorm2d(3), nn.ReLU(),
                      nn.Flatten(), nn.Dropout(0.1), nn.Linear(108, 10))
optimizer = optim.Adam(model.parameters(), lr=0.01)
schedule = optim.lr_scheduler.OneCycleLR(optimizer, 0.01, 40)
losses = []
for epoch in range(20):
    for x, y in loader:
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
print(losses[0], losses[-1], tg.zeros(1).backend.name)
"""


def test_scripting_on_numpy_needs_nothing_but_numpy(plain: Environment) -> None:
    first, last, backend = plain.run("-c", SCRIPT, TINYGRAD_MNIST_BACKEND="numpy").split()
    assert float(last) < float(first)
    assert backend == "numpy"
