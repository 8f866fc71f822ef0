"""Files of tensors: states of models and optimizers, in the safetensors format.

A dict of tensors becomes a plain safetensors file, as PyTorch's library writes and reads them.
Other nests keep their tensors there under the paths to them, and what lies around those as JSON in
the file's metadata. Nothing in a file is ever executed.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_mnist.backend import resolve
from tinygrad_mnist.checks import DTYPES
from tinygrad_mnist.creation import tensor
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.optional import needed
from tinygrad_mnist.tensor import Tensor
from tinygrad_mnist.utils.files import write_whole

# Of the metadata; a name of one's own may be anything else.
STRUCTURE, CHECKSUM = "tinygrad_mnist.structure", "tinygrad_mnist.crc32"
_HEADER = "__metadata__"  # where safetensors has the metadata, among the tensors' names
_DTYPES = {"BOOL", "U8", "I8", "I16", "I32", "I64", "F32", "F64"}  # safetensors' names of ours
_PLAIN = (bool, int, float, str, type(None))


class ModelFileError(ValueError):
    """A file of tensors that is none, is damaged, or is of another model or training."""


def save(obj: Any, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors to a safetensors file, whole or not at all::

        tg.save(model.state_dict(), "model.safetensors")
        tg.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "both")

    ``obj`` is a tensor, a NumPy array, or a nest of such, numbers, strings and None in dicts (with
    strings or integers as keys), lists and tuples. ``metadata`` are strings of your own beside it.
    What is at ``path`` is replaced in one go, and stays as it was after an error; the same state
    makes the same bytes. OSError where the file cannot be written, TypeError for what else is in
    ``obj``, ValueError for a name that safetensors or this program needs.
    """
    arrays: dict[str, np.ndarray] = {}
    about = dict(metadata or {})
    if taken := {STRUCTURE, CHECKSUM} & set(about):
        raise ValueError(
            f"save: metadata may not have {', '.join(sorted(taken))}; name it otherwise"
        )
    if _is_flat(obj):
        arrays = {name: _host(name, value) for name, value in obj.items()}
    else:
        about[STRUCTURE] = json.dumps(_outline(obj, "", arrays))
    if _HEADER in arrays:
        raise ValueError(f"save: no tensor may be named {_HEADER!r}, which safetensors needs")
    about[CHECKSUM] = _checksum(arrays, about)
    write_whole(path, _encoded(arrays, about))


def load(path: str | Path, backend: str | Backend | None = None) -> Any:
    """What ``save`` wrote, or a dict by name of the tensors of any safetensors file.

    The tensors are on ``backend``, by default the current one. OSError where the file cannot be
    read; ModelFileError where it is no safetensors file, is damaged or holds dtypes that no tensor
    has here; BackendError.
    """
    return read(path, backend)[0]


def read(path: str | Path, backend: str | Backend | None = None) -> tuple[Any, dict[str, str]]:
    """What ``load`` gives, and the metadata of the file."""
    target = None if backend is None else resolve(backend, "load: the argument")
    arrays, about = _read(Path(path))
    if CHECKSUM in about and about[CHECKSUM] != _checksum(arrays, about):
        raise ModelFileError(f"{path} is damaged: its checksum is of other contents")
    try:
        tensors = {name: tensor(array, backend=target) for name, array in arrays.items()}
        if STRUCTURE not in about:
            return tensors, about
        return _filled(json.loads(about[STRUCTURE]), tensors), about
    except (TypeError, ValueError, KeyError, RecursionError) as error:
        raise ModelFileError(f"{path}: {error}") from error


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata alone, with the errors of ``load``."""
    return _read(Path(path), with_arrays=False)[1]


def _read(path: Path, with_arrays: bool = True) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with needed("reading a .safetensors file"):
        from safetensors import SafetensorError, safe_open  # noqa: PLC0415  it takes a while

    with path.open("rb"):
        pass  # the library's own message for a missing file or a folder is less clear
    try:
        with safe_open(path, framework="numpy") as file:
            names = sorted(file.keys()) if with_arrays else []
            for name in names:
                if (dtype := file.get_slice(name).get_dtype()) not in _DTYPES:
                    raise ModelFileError(
                        f"{path}: {name!r} is of {dtype}, which no tensor here is; "
                        "write it as float32 or float64"
                    )
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except SafetensorError as error:
        raise ModelFileError(f"{path} is no safetensors file, or a damaged one: {error}") from error
    except OSError as error:  # of the library, which names no file
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _encoded(arrays: Mapping[str, np.ndarray], about: Mapping[str, str]) -> bytes:
    """The file's bytes; the library alone would put the metadata in another order each time."""
    with needed("writing a .safetensors file"):
        from safetensors.numpy import save as encoded  # noqa: PLC0415  it takes a while

    content = encoded(dict(arrays), dict(about))
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header[_HEADER] = dict(sorted(header[_HEADER].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers are aligned
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def _checksum(arrays: Mapping[str, np.ndarray], about: Mapping[str, str]) -> str:
    """The CRC-32 of names, dtypes, shapes, numbers and metadata, in the order of the names."""
    found = 0
    for name, text in sorted(about.items()):
        if name != CHECKSUM:
            found = zlib.crc32(f"{name}={text}\n".encode(), found)
    for name, array in sorted(arrays.items()):
        found = zlib.crc32(f"{name} {array.dtype} {array.shape}\n".encode(), found)
        found = zlib.crc32(array.tobytes(), found)
    return f"{found:08x}"


# ---- nests


def _is_tensor(x: Any) -> bool:
    return isinstance(x, Tensor | np.ndarray)


def _is_flat(obj: Any) -> bool:
    """Whether a plain safetensors file can hold it."""
    return isinstance(obj, Mapping) and all(
        isinstance(name, str) and _is_tensor(x) for name, x in obj.items()
    )


def _host(name: str, x: Any) -> np.ndarray:
    """The array to be written. TypeError for one that would not come back."""
    array = x.detach().numpy() if isinstance(x, Tensor) else x
    dtype = array.dtype.newbyteorder("=")
    if dtype not in DTYPES:
        raise TypeError(
            f"save: {name!r} is an array of {array.dtype}, expected one of "
            f"{', '.join(map(str, DTYPES))}"
        )
    # which makes one dimension of none
    return np.ascontiguousarray(array, dtype).reshape(array.shape)


def _outline(x: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """``x`` for JSON; its tensors go into ``arrays``. TypeError for what is no state."""
    if _is_tensor(x):
        name = path
        while name in arrays:  # {"a.b": x, "a": {"b": y}}
            name += "'"
        arrays[name] = _host(name, x)
        return {"tensor": name}
    if isinstance(x, np.generic):
        x = x.item()
    if isinstance(x, _PLAIN):
        return x
    if isinstance(x, Mapping):
        for key in x:
            if not isinstance(key, str | int) or isinstance(key, bool):
                raise TypeError(
                    f"save: expected strings or integers as keys, got {key!r}{_at(path)}"
                )
        return {"dict": [[k, _outline(v, _below(path, k), arrays)] for k, v in x.items()]}
    if isinstance(x, list | tuple):
        kind = "tuple" if isinstance(x, tuple) else "list"
        return {kind: [_outline(v, _below(path, i), arrays) for i, v in enumerate(x)]}
    raise TypeError(
        f"save: expected tensors, numbers, strings and None in dicts, lists and tuples, got a "
        f"{type(x).__name__}{_at(path)}; of a module or an optimizer, save its state_dict()"
    )


def _filled(x: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What ``_outline`` made JSON of."""
    if not isinstance(x, dict):
        return x
    ((kind, inner),) = x.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "dict":
        return {key: _filled(value, tensors) for key, value in inner}
    if kind in ("list", "tuple"):
        parts: Iterable[Any] = (_filled(value, tensors) for value in inner)
        return tuple(parts) if kind == "tuple" else list(parts)
    raise ValueError(f"its structure has the unknown part {kind!r}")


def _below(path: str, key: str | int) -> str:
    return f"{path}.{key}" if path else str(key)


def _at(path: str) -> str:
    return f" at {path!r}" if path else ""
