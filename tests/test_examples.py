"""The examples: each is a test with a target."""

import importlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import cuda_on_cpu
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from tinygrad_mnist.utils.data import sources
from tinygrad_mnist.utils.data.idx import DataError, idx_header

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
# The reproductions of the published notebooks, and what each writes beside figures.json.
PUBLISHED = {
    "full_batch_mse": [
        "accuracy.png",
        "as_published.safetensors",
        "digit.png",
        "done_right.safetensors",
    ],
    "full_batch_cross_entropy": ["accuracy.png"],
    "sgd_from_idx": ["accuracy.png", "first.png"],
    "cnn_adagrad": ["curves.png", "grid.png"],
    "keras_style": ["curves.png", "first_five.png"],
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
        errors="surrogateescape",
        timeout=1200,
        check=False,
    )


def losses(output: str) -> list[float]:
    return [float(number) for number in re.findall(r"^step +\d+ +loss (\S+)$", output, re.M)]


def accuracy(output: str) -> float:
    found = re.search(r"^test accuracy: (\S+)%$", output, re.M)
    assert found, output
    return float(found[1])


def write_dataset(folder: Path, contrast: int, test: int = 200, train: int = 1280) -> Path:
    """1,280 noisy squares, the place of each telling its class: 20 steps of 64."""
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    for part, count in (("train", train), ("t10k", test)):
        labels = generator.integers(0, 10, count).astype(np.uint8)
        images = generator.integers(0, 60, (count, 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            top, left = 14 * (label // 5), 5 * (label % 5)
            image[top : top + 12, left : left + 5] += np.uint8(contrast)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            data = idx_header(array.shape) + array.tobytes()
            (folder / f"{part}-{kind}-ubyte").write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Squares that any network learns."""
    return write_dataset(tmp_path_factory.mktemp("squares"), 150)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No squares at all: nothing to learn."""
    return write_dataset(tmp_path_factory.mktemp("noise"), 0)


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
    # PyTorch would compile for minutes
    return run("numpy", *arguments, "--no-jit", script=script, folder=folder)


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


# Says on the error stream which functions are jitted.
TELLING = """
import runpy, sys
import tinygrad_mnist

jit = tinygrad_mnist.jit

def told(step):
    print("jitted:", step.__name__, file=sys.stderr)
    return jit(step)

tinygrad_mnist.jit = tinygrad_mnist.compile = told
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("name", [*PYTORCH, "train_mnist"])
def test_no_jit_changes_no_figure_of_a_script(name: str, small_data: Path, tmp_path: Path) -> None:
    short: list[object] = ["--epochs", 20] if name == "moons" else ["--data", small_data]
    short += ["--epochs", 1] if name not in ("moons", "train_mnist") else []
    telling = tmp_path / "telling.py"
    telling.write_text(TELLING)
    example = ROOT / "examples" / f"{name}.py"
    jitted, plain = (
        run("numpy", example, *short, *more, script=telling, folder=tmp_path)
        for more in ((), ("--no-jit",))
    )
    assert jitted.stderr.count("jitted: ") == 1
    assert "jitted: " not in plain.stderr
    assert jitted.returncode == plain.returncode
    assert jitted.stdout == plain.stdout


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


# ---- the published notebooks


@pytest.fixture(scope="session")
def mnist() -> None:
    """Skips where MNIST cannot be had: no figure can be reached on other images."""
    try:
        sources.load("mnist")
    except DataError as error:
        pytest.skip(f"MNIST is not to be had: {error}")


def reproduce(
    name: str, backend: str, out: Path, *arguments: object
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """The process of one reproduction, and its figures.json."""
    script = ROOT / "examples" / f"{name}.py"
    done = run(backend, "--out", out, *arguments, script=script)
    assert "Traceback" not in done.stderr, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    path = out / "figures.json"
    return done, json.loads(path.read_text("utf-8")) if path.is_file() else {}


def check_files(name: str, out: Path) -> None:
    assert sorted(path.name for path in out.iterdir()) == sorted([*PUBLISHED[name], "figures.json"])
    for picture in out.glob("*.png"):
        assert len(np.unique(np.asarray(Image.open(picture).convert("L")))) > 20


# The longest run on one backend always, on the other in the slow run; that of a thousand steps over
# all images on both.
QUICK = [(name, backend) for name in PUBLISHED for backend in ("numpy", "numba")]
LONGEST = [("full_batch_cross_entropy", "numpy"), ("full_batch_cross_entropy", "numba")]
LONGEST += [("full_batch_mse", "numba"), ("cnn_adagrad", "numpy"), ("keras_style", "numpy")]


@pytest.mark.usefixtures("mnist")
@pytest.mark.parametrize(
    ("name", "backend"),
    [pytest.param(*q, marks=pytest.mark.slow) if q in LONGEST else q for q in QUICK],
)
def test_a_reproduction_reaches_its_quick_target(name: str, backend: str, tmp_path: Path) -> None:
    done, found = reproduce(name, backend, tmp_path / "out", "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (found["example"], found["backend"], found["quick"]) == (name, backend, True)
    assert found["dataset"].startswith("mnist, ")
    assert f"NumPy {np.__version__}" in found["measured"]
    assert any(figure["met"] for figure in found["figures"])
    assert len({figure["what"] for figure in found["figures"]}) == len(found["figures"])
    assert "MISSED" not in done.stdout
    check_files(name, tmp_path / "out")


@pytest.mark.parametrize("name", PUBLISHED)
def test_no_jit_changes_no_figure_of_a_reproduction(
    name: str, small_data: Path, tmp_path: Path
) -> None:
    arguments = ("--quick", "--data", small_data)
    _, jitted = reproduce(name, "numpy", tmp_path / "jitted", *arguments)
    _, plain = reproduce(name, "numpy", tmp_path / "plain", *arguments, "--no-jit")
    assert (jitted["jit"], plain["jit"]) == (True, False)
    for found, expected in zip(jitted["figures"], plain["figures"], strict=True):
        if "steps per second" not in found["what"]:
            assert found == expected


@pytest.mark.slow
@pytest.mark.usefixtures("mnist")
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_reproduction_reaches_the_published_figures(
    name: str, backend: str, tmp_path: Path
) -> None:
    done, _ = reproduce(name, backend, tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_reproduction_that_misses_its_targets_says_so(
    name: str, noise: Path, tmp_path: Path
) -> None:
    """Every file is written all the same, and the exit code is 1."""
    arguments = ("--quick", "--data", noise, "--seed", 2**64 - 1)
    done, found = reproduce(name, "numpy", tmp_path / "out", *arguments)
    assert done.returncode == 1, done.stdout
    missed = [figure for figure in found["figures"] if figure["met"] is False]
    assert missed
    assert done.stdout.count("MISSED") == len(missed)
    targets = sum(figure["met"] is not None for figure in found["figures"])
    assert f"{targets - len(missed)} of {targets} targets met" in done.stdout.splitlines()[-1]
    check_files(name, tmp_path / "out")


# A backend that is no NumPy array's, and refuses to be taken for one, as a device's would.
ON_A_DEVICE = """
import runpy, sys
import tinygrad_mnist
{imports}

tinygrad_mnist.set_backend({backend})
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


DEVICES = {
    "strict": {"imports": "from strict_backend import StrictBackend", "backend": "StrictBackend()"},
    "cupy": {"imports": "import cuda_on_cpu", "backend": "cuda_on_cpu.load()"},
}


@pytest.mark.parametrize("device", ["strict", pytest.param("cupy", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_reproduction_runs_where_arrays_are_on_a_device(
    name: str, device: str, small_data: Path, tmp_path: Path
) -> None:
    if device == "cupy" and isinstance(found := cuda_on_cpu.load(), str):
        pytest.skip(found)
    script = tmp_path / "on_a_device.py"
    folder, text = str(ROOT / "examples"), ON_A_DEVICE.format(**DEVICES[device])
    script.write_text(f"import sys; sys.path.insert(0, {folder!r})\n{text}")
    example = ROOT / "examples" / f"{name}.py"
    arguments = ("--quick", "--data", small_data, "--out", tmp_path / "out")
    done = run("numpy", example, *arguments, script=script)
    assert done.returncode in (0, 1)
    assert re.search(rf"^\w+ on {device}: \d+ of \d+ targets met", done.stdout, re.M), done.stderr
    check_files(name, tmp_path / "out")


def test_the_convolutions_work_on_fashion(small_data: Path, tmp_path: Path) -> None:
    """Nothing is published for it, and it has a target of its own."""
    arguments = ("--quick", "--data", small_data, "--dataset", "fashion")
    done, found = reproduce("cnn_adagrad", "numpy", tmp_path / "out", *arguments)
    (figure,) = found["figures"]
    assert (figure["published"], figure["target"]) == (None, "at least 72.00%")
    assert done.returncode == (not figure["here"] >= 0.72)
    assert found["dataset"].startswith("fashion, ")
    check_files("cnn_adagrad", tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "error: nowhere: no such folder; name one that holds "),
        (["--out", __file__], f"error: cannot write to --out {__file__}: File exists\n"),
        (["--data", "two"], "error: folder two: has 2 test images; expected at least 64"),
        (["--backend", "nunpy"], "error: --backend is 'nunpy': there is no such backend"),
    ],
)
@pytest.mark.parametrize("name", PUBLISHED)
def test_what_a_reproduction_cannot_do_is_one_line(
    name: str, arguments: list[str], message: str, tmp_path: Path
) -> None:
    script = ROOT / "examples" / f"{name}.py"
    write_dataset(tmp_path / "two", 150, test=2)
    done = run("numpy", *arguments, script=script, folder=tmp_path)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(message.rstrip())
    assert all(line.startswith("tinygrad_mnist: ") for line in done.stderr.splitlines()[:-1])
    assert [path.name for path in tmp_path.iterdir()] == ["two"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_folder_in_the_place_of_a_file_is_told_of_before_the_training(
    name: str, tmp_path: Path
) -> None:
    for file in (*PUBLISHED[name], "figures.json"):
        out = tmp_path / file.replace(".", "-")
        (out / file).mkdir(parents=True)
        done, _ = reproduce(name, "numpy", out, "--data", "nowhere")
        assert done.returncode == 1
        assert done.stderr == (
            f"error: cannot write to --out {out}: {file} is a folder there; "
            "remove it or name another --out\n"
        )


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_wrong_option_is_explained(name: str, tmp_path: Path) -> None:
    script = ROOT / "examples" / f"{name}.py"
    done = run("numpy", "--seed", "-1", script=script, folder=tmp_path)
    assert done.returncode == 2
    assert "argument --seed: expected a whole number from 0 to 2**64-1, got '-1'" in done.stderr


def test_an_interrupted_reproduction_changes_nothing(small_data: Path, tmp_path: Path) -> None:
    """Neither where there was nothing nor where an earlier one left its files."""
    reproduce(
        "full_batch_cross_entropy", "numpy", tmp_path / "old", "--quick", "--data", small_data
    )
    before = {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()}
    many = write_dataset(tmp_path / "many", 150, train=12_800)  # so that it is not done too soon
    for out in ("new", "old"):
        code, last = interrupted(tmp_path / out, many)
        assert (code, last) == (130, "interrupted")
    assert {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()} == before
    assert not (tmp_path / "new").exists()


def interrupted(out: Path, data: Path) -> tuple[int, str]:
    """The exit code and the last line of a reproduction that gets a Ctrl-C while it trains."""
    script = ROOT / "examples" / "full_batch_cross_entropy.py"
    process = subprocess.Popen(
        [sys.executable, script, "--data", data, "--out", out, "--backend", "numpy"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # where tests run in the background, Ctrl-C is ignored, and a child inherits that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    deadline = time.monotonic() + 60
    while not list(out.glob(".unfinished-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    return process.returncode, stderr.splitlines()[-1]


def test_without_an_error_stream(small_data: Path, tmp_path: Path) -> None:
    script = ROOT / "examples" / "full_batch_cross_entropy.py"
    line = f'exec "{sys.executable}" "{script}" --quick --data "{small_data}" 2>&-'
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["sh", "-c", line],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "targets met" in done.stdout


def test_names_that_are_no_text_lose_no_run(small_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "b\udcffd"
    done, found = reproduce("keras_style", "numpy", out, "--quick", "--data", small_data)
    assert done.returncode == 0, done.stderr
    assert "b\udcffd" in found["command"]
    check_files("keras_style", out)


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that the reproductions share."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    return pytest.importorskip("published", reason="examples/ is not there")


def test_a_figure_is_met_or_missed_and_nan_is_missed(
    published: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = published.Run(Namespace(seed=2**64 - 1), tmp_path)
    for here in (np.float64(0.52), 0.53, math.nan):  # the first at the very limit
        found.near("near", 0.5, here, ".2%", within=0.02)
    for here in (0.9738, 0.9737, math.nan):
        found.near("near", 0.9768, here, ".2%", within=0.003)
    for here in (2.4, 2.5, math.nan):
        found.agrees("agrees", 2.0, here, ".4f", relative=0.2)
    for here in (0.0653, 0.0652, math.nan):
        found.about("about", here, ".4f", expected=0.0733, within=0.008)
    for here in (0.98, 0.9799, math.nan):
        found.at_least("at least", here, ".2%", least=0.98)
    found.tell("told", 3, "g", 1)
    assert [f.met for f in found.figures] == [*[True, False, False] * 5, None]
    assert [f.published for f in found.figures[9:]] == [None] * 6 + [1]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["published", "here", "target"]
    assert lines[1].split() == ["near", "50.00%", "52.00%", "±", "2", "points", "ok"]
    assert lines[10].split() == ["about", "–", "0.0653", "0.0733", "±", "0.008", "ok"]
    assert lines[14].split()[-5:] == ["97.99%", "at", "least", "98.00%", "MISSED"]
    assert lines[16].split() == ["told", "1", "3"]
    assert {line.index("±") for line in lines[1:4]} == {lines[0].index("target")}
    assert found.seeds(3) == [2**64 - 1, 0, 1]


def test_figures_without_a_number_are_null(published: Any) -> None:
    assert published._jsonable({"a": [math.nan, 1.0, -math.inf], "b": "x"}) == {
        "a": [None, 1.0, None],
        "b": "x",
    }


def test_the_weights_are_kept_without_pickle(small_data: Path, tmp_path: Path) -> None:
    """Computed with NumPy, what another reader finds in the files has the accuracies told."""
    _, found = reproduce("full_batch_mse", "numpy", tmp_path, "--quick", "--data", small_data)
    told = {figure["what"]: figure["here"] for figure in found["figures"]}
    arrays = sources.load("mnist", small_data, report=lambda line: None)
    x = arrays.test_images.reshape(-1, 784) / 255
    for name, figure in (
        ("as_published", "epoch 49, accuracy"),
        ("done_right", "done right, accuracy after 5 epochs"),
    ):
        weights = load_file(tmp_path / f"{name}.safetensors")
        h = 1 / (1 + np.exp(-x @ weights["w1"]))
        h = 1 / (1 + np.exp(-h @ weights["w2"]))
        right = (h @ weights["w3"]).argmax(1) == arrays.test_labels
        assert right.mean() == told[figure]


# ---- the tour


def test_the_tour_gives_the_same_numbers_on_each_backend() -> None:
    script = ROOT / "examples" / "scripting.py"
    assert len(script.read_text().splitlines()) <= 60
    done = run("numpy", script=script)
    assert done.returncode == 0, done.stderr
    last = re.search(r"^numpy, numba.*: at most (\S+) apart\n\Z", done.stdout, re.M)
    assert last, done.stdout
    assert float(last[1]) <= 1e-12


# ---- beside others

PEERS = ROOT / "examples" / "compare_with_peers.py"


COLUMNS = ["numpy", "numpy+jit", "numba", "numba+jit"]  # ours


def figures(line: str) -> list[float]:
    return [float(number.replace(",", "")) for number in re.findall(r" {2,}([\d,]+)(?= |$)", line)]


@pytest.mark.parametrize(
    "steps", [["sgd-10", "mlp-32"], pytest.param([], marks=pytest.mark.slow)], ids=len
)
def test_a_comparison_of_steps(steps: list[str], tmp_path: Path) -> None:
    """They run on each backend, plain and replayed; in the slow run all seven."""
    chosen = ("--steps", *steps) if steps else ()
    done = run("numpy", "--peers", "--rounds", 1, *chosen, script=PEERS, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    machine, *about, empty, head = done.stdout.splitlines()[: len(COLUMNS) + 4]
    assert re.search(r" \d+ cores, \w+, \d{4}-\d\d-\d\d, Python \d", machine)
    assert [line.split(":")[0].strip() for line in about] == [*COLUMNS, "floor"]
    assert (empty, head.split()) == ("", ["µs", *COLUMNS, "floor"])
    rows = done.stdout.splitlines()[len(COLUMNS) + 4 :]
    assert [len(figures(line)) for line in rows] == [len(COLUMNS) + 1] * (len(steps) or 7)
    assert min(min(figures(line)) for line in rows) > 0


@pytest.mark.slow
def test_a_comparison_with_the_best_peer(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    arguments = ("--peers", "torch", "--rounds", 1, "--steps", "sgd-10", "mlp-32")
    done = run("numpy", *arguments, script=PEERS, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()[-3:]
    assert head.endswith(f"floor   {COLUMNS[-1]} / best peer")
    for line in rows:
        *_, last_of_ours, torch, _ = figures(line)
        ratio = re.search(r"   (\S+) of torch$", line)
        assert ratio, line
        assert float(ratio[1]) == pytest.approx(last_of_ours / torch, rel=0.02, abs=0.006)


def test_the_best_peer_is_the_fastest_at_that_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PEERS.parent)
    ratio_to_best = importlib.import_module("compare_with_peers").ratio_to_best
    ours = {COLUMNS[-1]: np.array([10.0, 40.0, 20.0])}
    times = {**ours, "jax": np.array([20.0, 20.0, 100.0]), "torch": np.array([30.0, 30.0, 30.0])}
    assert ratio_to_best(times, ["torch", "jax"]) == "0.50 of jax"
    assert ratio_to_best(times, []) == ""


def test_a_peer_that_is_not_installed_or_not_known(tmp_path: Path) -> None:
    for arguments, message in (
        (("--peers", "pytorch"), "invalid choice: 'pytorch'"),
        (("--steps", "mlp"), "invalid choice: 'mlp'"),
        (("--rounds", 0), "expected a whole number of at least 1, got '0'"),
    ):
        done = run("numpy", *arguments, script=PEERS, folder=tmp_path)
        assert done.returncode == 2
        assert message in done.stderr
    done = run("numpy", script=no_peers(tmp_path), folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.endswith("error: not installed: jax\n")


def test_a_comparison_that_is_interrupted_says_so_once(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, PEERS, "--peers", "--rounds", "50"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal's Ctrl-C goes to the workers, too
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    assert process.stdout is not None
    process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, "interrupted\n")


@pytest.mark.parametrize(
    ("package", "reason"),
    [
        ("raise ImportError('libfast.so.1: no such file')", "ImportError: libfast.so.1: no such"),
        ("import os; os._exit(7)", "stopped with 7;"),
        ("__version__ = '9'", "AttributeError: module 'torch' has no attribute 'get_num_threads';"),
    ],
)
def test_a_peer_that_breaks_ends_it_with_one_line(
    package: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text(package)
    script = tmp_path / "broken.py"
    script.write_text(
        "import os, runpy, sys\n"
        f"os.environ['PYTHONPATH'] = {str(tmp_path)!r} + os.pathsep + os.environ['PYTHONPATH']\n"
        f"sys.path[:0] = [{str(tmp_path)!r}, {str(PEERS.parent)!r}]\n"
        f"sys.argv = [{str(PEERS)!r}, '--peers', 'torch', '--steps', 'sgd-10']\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    done = run("numpy", script=script, folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: torch: {reason}")
    assert done.stderr.endswith("; leave it out with --peers\n")
    assert done.stderr.count("\n") == 1


def no_peers(folder: Path) -> Path:
    """A script that asks for JAX where no peer can be found."""
    script = folder / "no_peers.py"
    script.write_text(
        "import importlib.util, runpy, sys\n"
        f"sys.path.insert(0, {str(PEERS.parent)!r})\n"
        "importlib.util.find_spec = lambda name: None\n"
        f"sys.argv = [{str(PEERS)!r}, '--peers', 'jax']\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    return script


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
