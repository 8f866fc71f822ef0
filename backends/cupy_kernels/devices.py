"""Whether CuPy reaches a device here, what is known of it, and the backends of several devices.

A machine with one device has one backend, whose calls are as they are. With several devices each
has a subclass of its own, whose methods run with that device as CuPy's current one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import cupy
import numpy as np
from cupy.cuda import runtime

from tinygrad_mnist import config
from tinygrad_mnist.backends.cupy_kernels import launching

LEAST = 14  # of CuPy's versions: 13 promotes dtypes as NumPy 1 did
OLD_DRIVER, NO_DEVICE = 35, 100  # cudaErrorInsufficientDriver, cudaErrorNoDevice
GIB = 2**30


# ---- whether there is one


def problem() -> str | None:
    """Why CuPy reaches no device and the line that mends it; None if it does."""
    if int(cupy.__version__.partition(".")[0]) < LEAST:
        return f"CuPy is {cupy.__version__}, expected {LEAST} or later; {_install('-U ')}"
    try:
        config.tf32()
    except ValueError as error:
        return f"{error}; mend it with: unset {config.TF32}"
    try:
        return None if runtime.getDeviceCount() else _no_device()
    except runtime.CUDARuntimeError as error:
        if error.status == NO_DEVICE:
            return _no_device()
        if error.status == OLD_DRIVER:
            return _old_driver()
        return f"CUDA does not start: {error}; mend it with: nvidia-smi, which says more"


def _no_device() -> str:
    hidden = config.beginning_with("CUDA_VISIBLE_DEVICES")
    if hidden:
        (value,) = hidden.values()
        return (
            f"CUDA finds no device while CUDA_VISIBLE_DEVICES is {value!r}; "
            "mend it with: unset CUDA_VISIBLE_DEVICES"
        )
    return "CUDA finds no device; mend it with: an NVIDIA GPU, which nvidia-smi lists"


def _old_driver() -> str:
    """The runtime says the same where there is no driver."""
    newest, needed = runtime.driverGetVersion(), _cuda()
    if not newest:
        return "there is no NVIDIA driver; mend it with: NVIDIA's driver, if there is a GPU"
    text = f"NVIDIA's driver is for CUDA {_version(newest)}, and CuPy for CUDA {_version(needed)}"
    if needed // 1000 > 12 and newest // 1000 == 12:
        other = "pip uninstall cupy-cuda13x, then pip install 'tinygrad_mnist[cuda12]'"
        return f"{text}; mend it with: a new NVIDIA driver, or {other}"
    return f"{text}; mend it with: a new NVIDIA driver"


def _cuda() -> int:
    """The CUDA that CuPy was built for, as 13020 for 13.2."""
    return int(runtime.runtimeGetVersion())


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _install(option: str = "") -> str:
    return f"mend it with: pip install {option}'tinygrad_mnist[cuda{_cuda() // 1000}]'"


# ---- whether it works


def failure(backend: Any) -> str | None:
    """What is wrong with a small product on the backend, and the line that mends it; or None.

    A sum follows it, which CuPy compiles if it is not in its cache: so all libraries are needed.
    """
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    columns = np.arange(12, dtype=np.float32).reshape(3, 4)
    try:
        a, b = (backend.asarray(x) for x in (rows, columns))
        product = backend.matmul(a, b)
        found = backend.to_numpy(backend.add(product, product))
    except MemoryError as error:
        return f"{error}; {memory()}"
    except runtime.CUDARuntimeError as error:
        return f"a product fails: {error}; mend it with: nvidia-smi, which says more"
    except Exception as error:  # noqa: BLE001  each library fails in its own way
        return f"a product fails: {type(error).__name__}: {_line(error)}; {_install()}"
    if (found == 2 * (rows @ columns)).all():
        return None
    return f"a product is wrong, it gives {found.tolist()}; {_install('--force-reinstall ')}"


def _line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")


# ---- what there is to know


def details() -> dict[str, str]:
    """The current device, the versions, how float32 products round, what is compiled."""
    number = runtime.getDevice()
    device = cupy.cuda.Device(number)
    free, total = device.mem_info
    major, minor = device.compute_capability[:-1], device.compute_capability[-1]
    return {
        "device": f"{_name(number)}, compute capability {major}.{minor}",
        "memory": f"{free / GIB:.1f} of {total / GIB:.1f} GiB free",
        "CUDA": f"CuPy {cupy.__version__} for CUDA {_version(_cuda())}, a driver for CUDA "
        f"{_version(runtime.driverGetVersion())}",
        "TF32": "on" if config.tf32() else f"off; {config.TF32}=1 is faster and less exact",
        "compiled": f"{launching.function.cache_info().currsize} of the backend's kernels",
    }


def _name(number: int) -> str:
    return str(runtime.getDeviceProperties(number)["name"].decode(errors="replace"))


def memory() -> str:
    """What there is to know where memory is short, and what to do."""
    number = runtime.getDevice()
    free, total = runtime.memGetInfo()
    pool = cupy.get_default_memory_pool()
    used, held = pool.used_bytes(), pool.total_bytes()
    return (
        f"device {number} ({_name(number)}) has {free / GIB:.2f} of {total / GIB:.2f} GiB free, "
        f"this program's pool holds {held / GIB:.2f} GiB, {used / GIB:.2f} of them in use; mend it "
        "with: a smaller batch, or drop tensors and call "
        "cupy.get_default_memory_pool().free_all_blocks()"
    )


# ---- several devices


def at(kind: Any, device: int) -> Any:
    """The subclass of ``kind`` for that device, itself where there is one only, or why none."""
    found = problem()
    if found is not None:
        return found
    count = runtime.getDeviceCount()
    if device >= count:
        there = ", ".join(f"'{kind.name}:{i}' ({_name(i)})" for i in range(count))
        return f"there is no device {device}; mend it with: {there}"
    return kind if count == 1 else _on(kind, device)


@cache
def _on(kind: Any, device: int) -> Any:
    """``kind`` with methods that run on ``device``."""
    methods = {
        name: _with(device, method)
        for name, method in inspect.getmembers(kind, inspect.isfunction)
        if name == "__init__" or not name.startswith("_")
    }
    methods["asarray"] = _with(device, _brought(device, kind))
    methods["here"] = lambda self: cupy.cuda.Device(device)
    own = f"{kind.name}:{device}" if device else kind.name
    return type(f"{kind.__name__}{device}", (kind,), {**methods, "name": own})


def _with(device: int, method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def there(*args: Any, **kwargs: Any) -> Any:
        with cupy.cuda.Device(device):
            return method(*args, **kwargs)

    return there


def _brought(device: int, kind: Any) -> Callable[..., Any]:
    """``asarray``, which brings what lies on another device; CuPy's leaves it there."""

    @wraps(kind.asarray)
    def asarray(self: Any, x: Any) -> Any:
        found = kind.asarray(self, x)
        return found if found.device.id == device else found.copy()

    return asarray
