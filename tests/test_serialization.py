"""Files of tensors: what goes in comes out, here and in safetensors' own library, or is refused."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import tinygrad_mnist as tg
from tinygrad_mnist import nn, optim
from tinygrad_mnist.serialization import ModelFileError, read
from tinygrad_mnist.utils.files import write_whole

DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float32", "float64"]


def equal(x: Any, y: Any) -> bool:
    """Whether two nests are the same, to the bit and the type."""
    if isinstance(x, tg.Tensor | np.ndarray):
        x, y = (each.detach().numpy() if isinstance(each, tg.Tensor) else each for each in (x, y))
        return (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())
    if type(x) is not type(y):
        return False
    if isinstance(x, dict):
        return list(x) == list(y) and all(equal(x[key], y[key]) for key in x)
    if isinstance(x, list | tuple):
        return len(x) == len(y) and all(map(equal, x, y))
    return bool(x == y) or x != x


# ---- plain files


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 4)])
def test_a_dict_of_tensors_is_a_plain_safetensors_file(
    tmp_path: Path, dtype: str, shape: tuple[int, ...]
) -> None:
    array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    path = tmp_path / "x"
    tg.save({"a.b": tg.tensor(array), "n": array}, path)
    found = load_file(path)
    assert set(found) == {"a.b", "n"}
    assert all(equal(each, array) for each in found.values())
    assert equal(tg.load(path), {"a.b": tg.tensor(array), "n": tg.tensor(array)})


def test_views_and_parameters_are_saved_as_they_look(tmp_path: Path) -> None:
    x = nn.Parameter(tg.arange(12).float().reshape(3, 4))
    views = {"t": x.t(), "part": x[1:, ::2], "rows": x.detach().expand(2, 3, 4), "it": x}
    tg.save(views, tmp_path / "x")
    found = tg.load(tmp_path / "x")
    assert found.keys() == views.keys()
    assert all(equal(found[name], view.contiguous()) for name, view in views.items())
    assert not any(value.requires_grad for value in found.values())


def test_pytorchs_library_reads_ours_and_we_its(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("safetensors.torch")
    ours = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False))
    theirs = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2, bias=False)
    )
    tg.save(ours.state_dict(), tmp_path / "ours")
    theirs.load_state_dict(library.load_file(tmp_path / "ours"))
    for name, value in theirs.state_dict().items():
        assert equal(value.numpy(), ours.state_dict()[name].numpy())
    torch.nn.init.normal_(theirs[0].weight)
    library.save_file(theirs.state_dict(), tmp_path / "theirs")
    assert not any(ours.load_state_dict(tg.load(tmp_path / "theirs")))
    assert equal(ours[0].weight, theirs[0].weight.detach().numpy())


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_tensors_come_to_the_backend_asked_for(tmp_path: Path, backend: str) -> None:
    tg.save({"x": tg.ones(2)}, tmp_path / "x")
    assert tg.load(tmp_path / "x", backend)["x"].backend.name == backend
    with tg.use_backend(backend):
        assert tg.load(tmp_path / "x")["x"].backend.name == backend
    with pytest.raises(tg.BackendError, match="load: the argument"):
        tg.load(tmp_path / "x", "nunpy")


def test_metadata_go_beside(tmp_path: Path) -> None:
    tg.save({"x": tg.ones(2)}, tmp_path / "x", {"epoch": "3"})
    with safe_open(tmp_path / "x", framework="numpy") as file:
        assert file.metadata()["epoch"] == "3"
    assert read(tmp_path / "x")[1]["epoch"] == "3"


# ---- nests


KEYS = st.text(max_size=5) | st.integers(-3, 3)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**130), 2**130)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(DTYPES).map(lambda dtype: np.arange(3).astype(dtype))
)
NESTS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=12,
)


@given(NESTS)
@settings(max_examples=150, deadline=None)
def test_any_nest_comes_back(tmp_path_factory: pytest.TempPathFactory, nest: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "nest"
    tg.save(nest, path)
    assert equal(nest, tg.load(path))


def test_paths_that_read_alike_stay_apart(tmp_path: Path) -> None:
    nest = {"a.b": tg.ones(1), "a": {"b": tg.zeros(1)}, "n": 1}
    tg.save(nest, tmp_path / "x")
    assert equal(nest, tg.load(tmp_path / "x"))


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.Adam(p, amsgrad=True),
        lambda p: optim.SGD([{"params": p, "lr": 0.5}], momentum=0.9),
        optim.Adagrad,
    ],
)
def test_an_optimizer_goes_on_from_its_file(tmp_path: Path, make: Any) -> None:
    def stepped(model: nn.Module, optimizer: Any) -> None:
        optimizer.zero_grad()
        (model(tg.ones(2, 3)) ** 2).sum().backward()
        optimizer.step()

    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    one, two = make([*first.parameters()]), make([*second.parameters()])
    for _ in range(3):
        stepped(first, one)
    tg.save({"model": first.state_dict(), "optimizer": one.state_dict()}, tmp_path / "x")
    stepped(first, one)
    found = tg.load(tmp_path / "x")
    second.load_state_dict(found["model"])
    two.load_state_dict(found["optimizer"])
    stepped(second, two)
    assert equal(first.state_dict(), second.state_dict())
    assert equal(one.state_dict(), two.state_dict())


@pytest.mark.parametrize(
    ("nest", "message"),
    [
        ({"a": [1, {2}]}, "got a set at 'a.1'"),
        ({"f": len}, "got a builtin_function_or_method at 'f'"),
        (nn.Linear(1, 1), "got a Linear; of a module or an optimizer, save its state_dict"),
        ({(1, 2): 3}, r"as keys, got \(1, 2\)"),
        ({"a": {True: 1}}, "as keys, got True at 'a'"),
        (1j, "got a complex"),
    ],
)
def test_what_is_no_state_is_refused_and_nothing_written(
    tmp_path: Path, nest: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        tg.save(nest, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


# ---- files that are none


def test_every_cut_and_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    """Or changes nothing, as blanks that pad the header do."""
    nest = {"w": tg.arange(5).float(), "step": 3, "betas": (0.9, 0.99)}
    path, bad = tmp_path / "x", tmp_path / "bad"
    tg.save(nest, path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        bad.write_bytes(whole[:size])
        with pytest.raises(ModelFileError, match="bad"):
            tg.load(bad)
    noticed = 0
    for at in range(len(whole)):
        bad.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            assert equal(tg.load(bad), nest), f"byte {at}"
        except ModelFileError as error:
            assert "bad" in str(error)
            noticed += 1
    assert noticed > 0.9 * len(whole)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none"):
        tg.load(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        tg.load(tmp_path)
    save_file({"x": np.ones(3, np.float16)}, tmp_path / "half")
    with pytest.raises(ModelFileError, match=r"half.*'x' is of F16"):
        tg.load(tmp_path / "half")
    save_file({}, tmp_path / "x", {"tinygrad_mnist.structure": json.dumps({"tensor": "gone"})})
    with pytest.raises(ModelFileError, match="gone"):
        tg.load(tmp_path / "x")


# ---- files are whole or not there


FULL = """
    import resource, sys
    from tinygrad_mnist.utils.files import write_whole

    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # as full as a disk can be made here
    try:
        write_whole(sys.argv[1], bytes(5000))
    except OSError as error:
        print(error.errno, error.filename)
"""


def test_a_disk_that_is_full_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_whole(path, b"old")
    code = [sys.executable, "-c", textwrap.dedent(FULL), str(path)]
    done = subprocess.run(code, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(errno.EFBIG), str(path)]
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["x"]


def test_an_error_names_the_file_not_the_temporary_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        tg.save({}, tmp_path / "none" / "x")
    assert caught.value.filename == str(tmp_path / "none" / "x")
