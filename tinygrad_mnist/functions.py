"""The ops as functions: ``exp(x)`` for ``x.exp()``.

Ops made by ``unary``, ``rounding`` and ``binary`` look at their operands themselves: they are
functions as they stand, those of two also with a number on the left. Other methods rely on being
called on a tensor; ``_function`` sees to it.
"""

from __future__ import annotations

from collections.abc import Callable as _Callable
from functools import wraps as _wraps
from typing import ParamSpec as _ParamSpec
from typing import TypeVar as _TypeVar

from tinygrad_mnist.checks import no_tensor as _no_tensor
from tinygrad_mnist.composed.arrangements import pad as pad
from tinygrad_mnist.composed.arrangements import split as split
from tinygrad_mnist.composed.arrangements import stack as stack
from tinygrad_mnist.composed.einsum import einsum as einsum
from tinygrad_mnist.ops.pointwise import where as where
from tinygrad_mnist.ops.products import matmul as matmul
from tinygrad_mnist.ops.shapes import cat as cat
from tinygrad_mnist.tensor import Tensor as _Tensor

_P = _ParamSpec("_P")
_R = _TypeVar("_R")


def _function(method: _Callable[_P, _R]) -> _Callable[_P, _R]:
    """``method`` for a tensor as its first argument. TypeError for anything else."""
    name = method.__name__

    @_wraps(method)
    def function(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if not args or not isinstance(args[0], _Tensor):
            raise _no_tensor(name, "the first argument", args[0] if args else None)
        return method(*args, **kwargs)

    return function


# ---- of two tensors, or of a tensor and a number on either side

add = _Tensor.add
subtract = sub = _Tensor.sub
multiply = mul = _Tensor.mul
divide = div = _Tensor.div
floor_divide = _Tensor.floor_divide
remainder = _Tensor.remainder
pow = _Tensor.pow
maximum = _Tensor.maximum
minimum = _Tensor.minimum
eq = _Tensor.eq
ne = _Tensor.ne
lt = _Tensor.lt
le = _Tensor.le
gt = _Tensor.gt
ge = _Tensor.ge
bitwise_and = _Tensor.bitwise_and
bitwise_or = _Tensor.bitwise_or
bitwise_xor = _Tensor.bitwise_xor
logical_and = _function(_Tensor.logical_and)
logical_or = _function(_Tensor.logical_or)
logical_xor = _function(_Tensor.logical_xor)
isclose = _function(_Tensor.isclose)
allclose = _function(_Tensor.allclose)
equal = _function(_Tensor.equal)

# ---- of one tensor

neg = negative = _Tensor.neg
abs = _Tensor.abs
sign = _Tensor.sign
square = _Tensor.square
reciprocal = _function(_Tensor.reciprocal)
exp = _Tensor.exp
expm1 = _Tensor.expm1
log = _Tensor.log
log1p = _Tensor.log1p
sqrt = _Tensor.sqrt
rsqrt = _function(_Tensor.rsqrt)
sin = _Tensor.sin
cos = _Tensor.cos
tan = _Tensor.tan
asin = _Tensor.asin
acos = _Tensor.acos
atan = _Tensor.atan
sinh = _Tensor.sinh
cosh = _Tensor.cosh
tanh = _Tensor.tanh
sigmoid = _Tensor.sigmoid
relu = _Tensor.relu
erf = _Tensor.erf
floor = _Tensor.floor
ceil = _Tensor.ceil
trunc = _Tensor.trunc
round = _Tensor.round
isnan = _Tensor.isnan
isinf = _Tensor.isinf
isfinite = _Tensor.isfinite
bitwise_not = _Tensor.bitwise_not
logical_not = _function(_Tensor.logical_not)
clamp = _function(_Tensor.clamp)
clamp_min = _function(_Tensor.clamp_min)
clamp_max = _function(_Tensor.clamp_max)
masked_fill = _function(_Tensor.masked_fill)

# ---- reductions

sum = _function(_Tensor.sum)
mean = _function(_Tensor.mean)
amax = _function(_Tensor.amax)
amin = _function(_Tensor.amin)
max = _function(_Tensor.max)
min = _function(_Tensor.min)
argmax = _function(_Tensor.argmax)
argmin = _function(_Tensor.argmin)
any = _function(_Tensor.any)
all = _function(_Tensor.all)
var = _function(_Tensor.var)
std = _function(_Tensor.std)
norm = _function(_Tensor.norm)
prod = _function(_Tensor.prod)
cumsum = _function(_Tensor.cumsum)
logsumexp = _function(_Tensor.logsumexp)
sort = _function(_Tensor.sort)
argsort = _function(_Tensor.argsort)
topk = _function(_Tensor.topk)
softmax = _function(_Tensor.softmax)
log_softmax = _function(_Tensor.log_softmax)

# ---- shapes

concat = concatenate = cat
reshape = _function(_Tensor.reshape)
flatten = _function(_Tensor.flatten)
unflatten = _function(_Tensor.unflatten)
permute = _function(_Tensor.permute)
transpose = _function(_Tensor.transpose)
movedim = _function(_Tensor.movedim)
t = _function(_Tensor.t)
squeeze = _function(_Tensor.squeeze)
unsqueeze = _function(_Tensor.unsqueeze)
broadcast_to = _function(_Tensor.broadcast_to)
chunk = _function(_Tensor.chunk)
unbind = _function(_Tensor.unbind)
narrow = _function(_Tensor.narrow)
select = _function(_Tensor.select)
flip = _function(_Tensor.flip)
roll = _function(_Tensor.roll)
tril = _function(_Tensor.tril)
triu = _function(_Tensor.triu)
clone = _function(_Tensor.clone)

# ---- at indices

index_select = _function(_Tensor.index_select)
take = _function(_Tensor.take)
take_along_dim = _function(_Tensor.take_along_dim)
gather = _function(_Tensor.gather)
scatter = _function(_Tensor.scatter)
scatter_add = _function(_Tensor.scatter_add)
masked_select = _function(_Tensor.masked_select)
nonzero = _function(_Tensor.nonzero)

# ---- products

mm = _function(_Tensor.mm)
bmm = _function(_Tensor.bmm)
mv = _function(_Tensor.mv)
dot = _function(_Tensor.dot)
outer = _function(_Tensor.outer)
addmm = _function(_Tensor.addmm)
baddbmm = _function(_Tensor.baddbmm)
