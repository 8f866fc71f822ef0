"""Every call of CUDA that this process makes, counted by CUDA's own tools interface, CUPTI.

CUPTI comes with CUDA's toolkit, and with PyTorch's and JAX's packages. It tells of each call of the
runtime and of the driver, whoever makes it: CuPy, cuBLAS, this package. A driver's call inside a
runtime's is that call, and is not counted again.
"""

import ctypes
import glob
import importlib.util
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinygrad_mnist import driver

BY_POINTERS = 4  # cudaMemcpyDefault, which is what CuPy asks for on the device
MEMORY_TYPE, ON_HOST = 2, 1  # of CUpointer_attribute, CUmemorytype
DRIVER, RUNTIME = 1, 2  # of CUpti_CallbackDomain
ENTER = 0  # of CUpti_ApiCallbackSite
KINDS = {0: "host to host", 1: "to the device", 2: "to the host", 3: "on the device"}
FOLDERS = ("extras/CUPTI/lib64", "lib64", "lib")


class _Data(ctypes.Structure):
    """The beginning of CUpti_CallbackData."""

    _fields_ = (
        ("site", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("parameters", ctypes.c_void_p),
    )


class _Copy(ctypes.Structure):
    """The parameters of cudaMemcpy and cudaMemcpyAsync, up to what both have."""

    _fields_ = (
        ("to", ctypes.c_void_p),
        ("of", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
        ("kind", ctypes.c_int),
    )


_CALLBACK = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.POINTER(_Data)
)


class Calls:
    """Counts calls from ``counted()`` on. OSError where there is no CUPTI, or it refuses."""

    def __init__(self) -> None:
        self.path, self._library = _library()
        self._subscriber = ctypes.c_void_p()
        self._counts: Counter[str] = Counter()
        self._by_pointers: list[tuple[str, int, int]] = []  # copies: name, to, of
        self._depth = 0
        self._on = False
        self._callback = _CALLBACK(self._called)  # which has to outlive the subscription
        self._check(
            self._library.cuptiSubscribe(ctypes.byref(self._subscriber), self._callback, None)
        )
        for domain in (RUNTIME, DRIVER):
            self._check(self._library.cuptiEnableDomain(1, self._subscriber, domain))

    def close(self) -> None:
        """End the subscription."""
        self._library.cuptiUnsubscribe(self._subscriber)

    @contextmanager
    def counted(self) -> Iterator[Counter[str]]:
        """What is called inside the ``with`` block, by name; copies with their direction."""
        self._counts = Counter()
        self._by_pointers.clear()
        self._on = True
        try:
            yield self._counts
        finally:
            self._on = False
            for name, to, of in self._by_pointers:
                self._counts[f"{name}: {KINDS[2 * on_device(of) + on_device(to)]}"] += 1

    def _called(self, user: Any, domain: int, number: int, data: Any) -> None:
        found = data.contents
        if domain == RUNTIME:
            self._depth += 1 if found.site == ENTER else -1
        if not self._on or found.site != ENTER or (domain == DRIVER and self._depth > 0):
            return
        name = (found.name or b"?").decode()
        if name.startswith(("cudaMemcpyAsync", "cudaMemcpy_")) or name == "cudaMemcpy":
            copied = ctypes.cast(found.parameters, ctypes.POINTER(_Copy)).contents
            if copied.kind == BY_POINTERS:  # CUDA is not to be called from here
                self._by_pointers.append((name, copied.to or 0, copied.of or 0))
                return
            name = f"{name}: {KINDS.get(copied.kind, 'of another kind')}"
        self._counts[name] += 1

    def _check(self, status: int) -> None:
        if status:
            text = ctypes.c_char_p()
            self._library.cuptiGetResultString(status, ctypes.byref(text))
            raise OSError(f"{self.path}: {(text.value or b'').decode()} ({status})")


def on_device(pointer: int) -> bool:
    """Whether there is memory of a device; what CUDA does not know is the host's."""
    found, library = ctypes.c_uint(ON_HOST), driver.library()
    if library is not None:
        place = ctypes.c_uint64(pointer)
        if library.cuPointerGetAttribute(ctypes.byref(found), MEMORY_TYPE, place):
            return False
    return found.value != ON_HOST


def _library() -> tuple[str, Any]:
    """CUPTI's path, and itself. OSError where there is none that loads."""
    failed = ["no libcupti.so found"]
    for path in dict.fromkeys(_paths()):
        try:
            return path, ctypes.CDLL(path)
        except OSError as error:
            failed.append(f"{path}: {error}")
    raise OSError(failed[-1])


def _paths() -> Iterator[str]:
    """Where it may be: in other packages, in the toolkit, or where the loader looks."""
    found = importlib.util.find_spec("nvidia")
    for folder in (found and found.submodule_search_locations) or ():
        yield from sorted(glob.glob(f"{folder}/*/lib/libcupti.so*"), reverse=True)
    roots = [os.environ.get("CUDA_PATH"), os.environ.get("CUDA_HOME")]
    for root in (*filter(None, roots), "/usr/local/cuda", *glob.glob("/usr/local/cuda-*")):
        for folder in FOLDERS:
            yield from sorted(map(str, Path(root, folder).glob("libcupti.so*")), reverse=True)
    yield "libcupti.so"


def sorted_out(counts: Counter[str]) -> dict[str, int]:
    """What crosses between host and device, and what waits for it; with all that was called."""
    found = {"to the device": 0, "to the host": 0, "direction unknown": 0, "waits": 0}
    for name, count in counts.items():
        if "Synchronize" in name:
            found["waits"] += count
        elif "emcpy" in name:
            found[_direction(name)] = found.get(_direction(name), 0) + count
    return found


def _direction(name: str) -> str:
    for kind in KINDS.values():
        if name.endswith(f": {kind}"):
            return kind
    for part, kind in (("HtoD", KINDS[1]), ("DtoH", KINDS[2]), ("DtoD", KINDS[3])):
        if part in name:
            return kind
    return "direction unknown"
