"""The reference backend: the contract's own defaults on NumPy, and almost nothing else."""

from typing import Any, ClassVar

import numpy as np

from tinygrad_mnist.kernels import MANY, Array, Backend, Shape, blocked


class NumpyBackend(Backend):
    """Every kernel as the contract writes it."""

    name = "numpy"
    xp: ClassVar[Any] = np
    array_type: ClassVar[type] = np.ndarray

    def details(self) -> dict[str, str]:
        try:
            from threadpoolctl import threadpool_info  # noqa: PLC0415
        except ImportError:
            return {"BLAS": "not known: pip install threadpoolctl"}
        # SciPy may have loaded one of its own.
        found = [
            f"{each['internal_api']} {each['version']} (threads: {each['num_threads']})"
            for each in threadpool_info()
            if each["user_api"] == "blas" and "scipy.libs" not in each["filepath"]
        ]
        return {"BLAS": "; ".join(found) or "not known"}

    # np.broadcast_to takes 1.9 µs, this 0.6; a loss's gradient is expanded from 0-d in each step.
    def expand(self, x: Array, *, shape: Shape) -> Array:
        if x.ndim or 1 in shape or not shape:
            return super().expand(x, shape=shape)
        y = np.ndarray(shape, x.dtype, x, strides=(0,) * len(shape))
        y.setflags(write=False)
        return y

    # np.sum is a wrapper in Python around this: 1.8 µs for 100 elements, and 0.9 without it.
    def sum(self, x: Array, *, dim: Shape, keepdim: bool, out: Array = None) -> Array:
        x = blocked(np, x, dim) if x.size > MANY else x
        return np.add.reduce(x, dim, None, out, keepdim)  # type: ignore[call-overload]
