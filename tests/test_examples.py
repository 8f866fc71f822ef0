"""The examples: each is a test with a target."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinygrad_mnist.utils.data.idx import idx_header

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "train_mnist.py"

# The examples that are PyTorch's but for their imports, and the pictures that each draws.
PYTORCH = {
    "moons": ["decision.png"],
    "recurrent_rows": [],
    "residual_cnn": [],
    "variational_autoencoder": ["plane.png", "reconstructions.png", "samples.png"],
    "vision_transformer": [],
}
IMPORTS = {
    "import tinygrad_mnist as tg\n": "import torch as tg\n",
    "import tinygrad_mnist.nn.functional as F\n": "import torch.nn.functional as F\n",
    "from tinygrad_mnist import nn, optim\n": "from torch import nn, optim\n",
    "from tinygrad_mnist.utils.data import DataLoader, datasets, transforms\n": (
        "from torch.utils.data import DataLoader\n"
        "from like_torchvision import datasets, transforms\n"
    ),
}


def run(
    backend: str, *arguments: object, script: Path = EXAMPLE, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TINYGRAD_MNIST_")}
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        cwd=folder,
        env=clean | {"TINYGRAD_MNIST_BACKEND": backend, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def losses(output: str) -> list[float]:
    return [float(number) for number in re.findall(r"^step +\d+ +loss (\S+)$", output, re.M)]


def accuracy(output: str) -> float:
    found = re.search(r"^test accuracy: (\S+)%$", output, re.M)
    assert found, output
    return float(found[1])


@pytest.fixture(scope="module")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,280 noisy squares, the place of each telling its class: 20 steps of 64."""
    folder = tmp_path_factory.mktemp("squares")
    generator = np.random.default_rng(0)
    for part, count in (("train", 1280), ("t10k", 200)):
        labels = generator.integers(0, 10, count).astype(np.uint8)
        images = generator.integers(0, 60, (count, 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            top, left = 14 * (label // 5), 5 * (label % 5)
            image[top : top + 12, left : left + 5] += 150
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            data = idx_header(array.shape) + array.tobytes()
            (folder / f"{part}-{kind}-ubyte").write_bytes(data)
    return folder


def test_it_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 60


def test_one_seed_gives_one_loss_curve_on_every_backend(small_data: Path) -> None:
    curves = {}
    for backend in ("numpy", "numba"):
        result = run(backend, "--data", small_data, "--seed", 3)
        assert result.returncode in (0, 1), result.stderr
        curves[backend] = losses(result.stdout)
        assert len(curves[backend]) == 20
        assert curves[backend][-1] < curves[backend][0]
    np.testing.assert_allclose(curves["numba"], curves["numpy"], rtol=1e-4)


def test_another_seed_gives_another_curve(small_data: Path) -> None:
    first, second = (losses(run("numpy", "--data", small_data, "--seed", s).stdout) for s in (0, 1))
    assert first != second


def test_below_its_target_it_exits_with_1(small_data: Path) -> None:
    """Twenty steps are too few for 98.8%, or the target would mean nothing."""
    result = run("numpy", "--data", small_data)
    assert result.returncode == (accuracy(result.stdout) < 98.8)


# ---- the scripts of a PyTorch user


def for_pytorch(name: str) -> str:
    """The example with PyTorch's imports, and torchvision's, in the place of ours."""
    text = (ROOT / "examples" / f"{name}.py").read_text()
    for ours, theirs in IMPORTS.items():
        text = text.replace(ours, theirs)
    return text


def run_example(
    name: str, library: str, folder: Path, *arguments: object
) -> subprocess.CompletedProcess[str]:
    """Run the example in ``folder``: on a backend, or, as "torch", with PyTorch's imports."""
    if library != "torch":
        script = ROOT / "examples" / f"{name}.py"
        return run(library, *arguments, script=script, folder=folder)
    pytest.importorskip("torch", reason="PyTorch is not installed")
    script = folder / f"{name}.py"
    script.write_text(for_pytorch(name))
    return run("numpy", *arguments, script=script, folder=folder)


def result_and_target(output: str) -> tuple[float, float]:
    """The two numbers of an example's last line."""
    found = re.search(r": (\S+?)%?(?: nats)? \(target (\S+?)%?\)\n\Z", output)
    assert found, output
    return float(found[1]), float(found[2])


@pytest.mark.parametrize("name", PYTORCH)
def test_a_pytorch_script_is_short_and_differs_in_its_imports_alone(name: str) -> None:
    text = for_pytorch(name)
    assert len(text.splitlines()) < 120
    assert "tinygrad_mnist" not in text


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("name", PYTORCH)
def test_a_pytorch_script_runs_here_and_there(
    name: str, library: str, small_data: Path, tmp_path: Path
) -> None:
    """One line of progress, the pictures, and exit code 1 where the target is missed."""
    short = ["--epochs", 20] if name == "moons" else ["--epochs", 1, "--data", small_data]
    done = run_example(name, library, tmp_path, *short)
    assert done.returncode in (0, 1), done.stderr
    assert "Warning" not in done.stderr
    assert len(re.findall(r"^epoch \d+: ", done.stdout, re.M)) == 1
    found, target = result_and_target(done.stdout)
    assert done.returncode == (not found >= target)  # of NaN, too
    pictures = sorted((tmp_path / f"{name}-out").glob("*.png"))
    assert [picture.name for picture in pictures] == PYTORCH[name]
    for picture in pictures:
        assert len(np.unique(np.asarray(Image.open(picture).convert("L")))) > 20


@pytest.mark.slow
@pytest.mark.parametrize("name", PYTORCH)
def test_a_pytorch_script_reaches_its_target_within_ten_minutes(name: str, tmp_path: Path) -> None:
    done = run_example(name, "numpy", tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("library", ["numba", "torch"])
@pytest.mark.parametrize("name", [name for name in PYTORCH if name != "moons"])
def test_a_pytorch_script_reaches_its_quick_target(name: str, library: str, tmp_path: Path) -> None:
    done = run_example(name, library, tmp_path, "--quick")
    assert done.returncode == 0, done.stderr + done.stdout


# ---- the figures of the reference training


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_99_percent_in_one_epoch_on_mnist(seed: int) -> None:
    found = {}
    for backend in ("numpy", "numba"):
        result = run(backend, "--seed", seed)
        assert result.returncode == 0, result.stderr + result.stdout
        found[backend] = losses(result.stdout)[:20], accuracy(result.stdout)
    np.testing.assert_allclose(found["numba"][0], found["numpy"][0], rtol=1e-4)
    assert abs(found["numba"][1] - found["numpy"][1]) <= 0.2
    assert min(found["numba"][1], found["numpy"][1]) >= 98.8


@pytest.mark.slow
def test_the_command_line_reaches_its_figures_on_mnist(tmp_path: Path) -> None:
    def trained(*arguments: object) -> float:
        command = [sys.executable, "-m", "tinygrad_mnist", "train", "--out", tmp_path / "out"]
        result = subprocess.run(
            [*map(str, command), *map(str, arguments)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=600,
            check=True,
        )
        return accuracy(result.stdout)

    assert np.mean([trained("--backend", "numpy", "--seed", seed) for seed in range(3)]) >= 99.0
    assert trained("--model", "mlp") >= 97.5
