"""tinygrad_mnist: reverse-mode autodiff on NumPy and Numba, small enough to read.

::

    import tinygrad_mnist as tg

    x = tg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    (x * x).sum().backward()
    x.grad                       # tensor([2., 4., 6.])
"""

from pathlib import Path as _Path

__version__ = "0.1.0"

_here = _Path(__file__).parent
if not (_here / "backends").is_dir():
    # In a checkout the backends stand beside the package; an installed one has them inside.
    __path__.append(str(_here.parent))

from tinygrad_mnist import autograd, nn, optim, testing, utils
from tinygrad_mnist.autograd import (
    enable_grad,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
)
from tinygrad_mnist.backend import BackendError, set_backend, use_backend
from tinygrad_mnist.ops import (
    abs,
    add,
    amax,
    argmax,
    cos,
    divide,
    exp,
    flatten,
    log,
    log_softmax,
    matmul,
    maximum,
    mean,
    minimum,
    multiply,
    permute,
    pow,
    relu,
    reshape,
    sigmoid,
    sign,
    sin,
    softmax,
    sqrt,
    square,
    squeeze,
    subtract,
    sum,
    tanh,
    transpose,
    unsqueeze,
    where,
)
from tinygrad_mnist.ops.table import DTYPES as _DTYPES
from tinygrad_mnist.random import initial_seed, manual_seed
from tinygrad_mnist.tensor import (
    Tensor,
    arange,
    as_tensor,
    from_numpy,
    full,
    ones,
    rand,
    randn,
    tensor,
    zeros,
)

bool_, uint8, int8, int16, int32, int64, float32, float64 = _DTYPES

__all__ = [
    "BackendError",
    "Tensor",
    "__version__",
    "abs",
    "add",
    "amax",
    "arange",
    "argmax",
    "as_tensor",
    "autograd",
    "bool_",
    "cos",
    "divide",
    "enable_grad",
    "exp",
    "flatten",
    "float32",
    "float64",
    "from_numpy",
    "full",
    "initial_seed",
    "int8",
    "int16",
    "int32",
    "int64",
    "is_grad_enabled",
    "log",
    "log_softmax",
    "manual_seed",
    "matmul",
    "maximum",
    "mean",
    "minimum",
    "multiply",
    "nn",
    "no_grad",
    "ones",
    "optim",
    "permute",
    "pow",
    "rand",
    "randn",
    "relu",
    "reshape",
    "set_backend",
    "set_grad_enabled",
    "sigmoid",
    "sign",
    "sin",
    "softmax",
    "sqrt",
    "square",
    "squeeze",
    "subtract",
    "sum",
    "tanh",
    "tensor",
    "testing",
    "transpose",
    "uint8",
    "unsqueeze",
    "use_backend",
    "utils",
    "where",
    "zeros",
]
