"""tinygrad_mnist: reverse-mode autodiff on NumPy, Numba and CuPy, small enough to read.

::

    import tinygrad_mnist as tg

    x = tg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    (x * x).sum().backward()
    x.grad.tolist()              # [2.0, 4.0, 6.0]
"""

from pathlib import Path as _Path

__version__ = "0.1.0"

_here = _Path(__file__).parent
if not (_here / "backends").is_dir():
    # In a checkout the backends stand beside the package; an installed one has them inside.
    __path__.append(str(_here.parent))

from tinygrad_mnist import autograd as autograd
from tinygrad_mnist import cuda as cuda
from tinygrad_mnist import nn as nn
from tinygrad_mnist import optim as optim
from tinygrad_mnist import profiler as profiler
from tinygrad_mnist import testing as testing
from tinygrad_mnist import utils as utils
from tinygrad_mnist.autograd import detect_anomaly as detect_anomaly
from tinygrad_mnist.autograd import enable_grad as enable_grad
from tinygrad_mnist.autograd import is_grad_enabled as is_grad_enabled
from tinygrad_mnist.autograd import no_grad as no_grad
from tinygrad_mnist.autograd import set_grad_enabled as set_grad_enabled
from tinygrad_mnist.backend import BackendError as BackendError
from tinygrad_mnist.backend import set_backend as set_backend
from tinygrad_mnist.backend import use_backend as use_backend
from tinygrad_mnist.checks import DTYPES as _DTYPES
from tinygrad_mnist.creation import arange as arange
from tinygrad_mnist.creation import as_tensor as as_tensor
from tinygrad_mnist.creation import empty as empty
from tinygrad_mnist.creation import empty_like as empty_like
from tinygrad_mnist.creation import eye as eye
from tinygrad_mnist.creation import from_dlpack as from_dlpack
from tinygrad_mnist.creation import from_numpy as from_numpy
from tinygrad_mnist.creation import full as full
from tinygrad_mnist.creation import full_like as full_like
from tinygrad_mnist.creation import linspace as linspace
from tinygrad_mnist.creation import ones as ones
from tinygrad_mnist.creation import ones_like as ones_like
from tinygrad_mnist.creation import rand as rand
from tinygrad_mnist.creation import rand_like as rand_like
from tinygrad_mnist.creation import randint as randint
from tinygrad_mnist.creation import randn as randn
from tinygrad_mnist.creation import randn_like as randn_like
from tinygrad_mnist.creation import randperm as randperm
from tinygrad_mnist.creation import tensor as tensor
from tinygrad_mnist.creation import zeros as zeros
from tinygrad_mnist.creation import zeros_like as zeros_like
from tinygrad_mnist.functions import *
from tinygrad_mnist.jit import jit as jit
from tinygrad_mnist.profiler import profile as profile
from tinygrad_mnist.random import Generator as Generator
from tinygrad_mnist.random import get_rng_state as get_rng_state
from tinygrad_mnist.random import initial_seed as initial_seed
from tinygrad_mnist.random import manual_seed as manual_seed
from tinygrad_mnist.random import set_rng_state as set_rng_state
from tinygrad_mnist.serialization import load as load
from tinygrad_mnist.serialization import save as save
from tinygrad_mnist.tensor import Tensor as Tensor

compile = jit  # PyTorch's name for it
from tinygrad_mnist.cuda import device as device

bool_, uint8, int8, int16, int32, int64, float32, float64 = _DTYPES
bool, int, long, float, double = bool_, int32, int64, float32, float64

profiler.profile_program()
