"""Initial values: each function overwrites ``tensor`` and returns it, without a gradient.

The numbers are drawn on the host, from the seeded generator or ``generator``: the same on every
backend. TypeError for a tensor that is not of floats where it is drawn at random, ValueError for
bounds in the wrong order and for too few dims.
"""

from __future__ import annotations

import difflib
import math

import numpy as np

from tinygrad_mnist import random
from tinygrad_mnist.autograd.graph import no_grad
from tinygrad_mnist.checks import check_scalars, fit, shown
from tinygrad_mnist.creation import from_numpy
from tinygrad_mnist.tensor import Tensor

# Of a layer whose inputs are this function of what the layer before gives.
_GAINS = {
    "linear": 1.0,
    "conv1d": 1.0,
    "conv2d": 1.0,
    "conv3d": 1.0,
    "conv_transpose1d": 1.0,
    "conv_transpose2d": 1.0,
    "conv_transpose3d": 1.0,
    "sigmoid": 1.0,
    "tanh": 5 / 3,
    "relu": math.sqrt(2),
    "leaky_relu": None,  # by its slope
    "selu": 3 / 4,
}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which weights grow to make up for what ``nonlinearity`` takes away.

    √2 for "relu", √(2 / (1 + param²)) for "leaky_relu" of slope ``param`` (0.01 by default), 5/3
    for "tanh", 3/4 for "selu", 1 for "linear", "sigmoid" and the convolutions. ValueError for
    another name.
    """
    if nonlinearity not in _GAINS:
        raise _unknown("calculate_gain: nonlinearity", nonlinearity, list(_GAINS))
    gain = _GAINS[nonlinearity]
    if gain is not None:
        return gain
    slope = 0.01 if param is None else param
    check_scalars("calculate_gain", param=slope)
    return math.sqrt(2 / (1 + slope * slope))


# ---- of one number


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with ``val``."""
    fit("constant_", "tensor (…)", tensor)
    with no_grad():
        return tensor.fill_(val)


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with zeros."""
    return constant_(tensor, 0)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with ones."""
    return constant_(tensor, 1)


def eye_(tensor: Tensor) -> Tensor:
    """A matrix (n, m) with ones on the diagonal and zeros elsewhere."""
    fit("eye_", "tensor (n, m)", tensor)
    rows, columns = tensor.shape
    return _filled(tensor, np.eye(rows, columns))


# ---- at random


def uniform_(
    tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: random.Generator | None = None
) -> Tensor:
    """Fill with uniform numbers in [a, b). ValueError where its dtype does not hold b − a."""
    _check("uniform_", tensor, a=a, b=b)
    _check_order("uniform_", a, b)
    a, b, most = float(a), float(b), float(np.finfo(tensor.dtype).max)
    if max(abs(a), abs(b), b - a) > most:
        raise ValueError(
            f"uniform_: a, b and b - a must lie within {tensor.dtype}, got {a} and {b}"
        )
    return _filled(tensor, _source("uniform_", generator).uniform(a, b, tensor.shape))


def normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: random.Generator | None = None
) -> Tensor:
    """Fill with normal numbers. ValueError for a negative ``std``."""
    _check("normal_", tensor, mean=mean, std=std)
    if not std >= 0:
        raise ValueError(f"normal_: std must be at least 0, got {std}")
    return _filled(tensor, _source("normal_", generator).normal(mean, std, tensor.shape))


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: random.Generator | None = None,
) -> Tensor:
    """Fill with normal numbers, of those that lie in [a, b]. ValueError for ``std`` ≤ 0.

    ``mean`` and ``std`` are those of the whole distribution. The density is taken as constant in
    each of 4096 parts of the interval.
    """
    _check("trunc_normal_", tensor, mean=mean, std=std, a=a, b=b)
    _check_order("trunc_normal_", a, b)
    if not std > 0:
        raise ValueError(f"trunc_normal_: std must be above 0, got {std}")
    low, high = (a - mean) / std, (b - mean) / std
    likeliest = min(max(low, 0.0), high)
    reach = math.sqrt(likeliest**2 + 80)  # beyond, the density is below e⁻⁴⁰ of the likeliest
    x = np.linspace(max(low, -reach), min(high, reach), 4097)
    middles = (x[1:] + x[:-1]) / 2
    reached = np.cumsum(np.exp((likeliest**2 - middles**2) / 2))
    chances = np.concatenate([[0.0], reached / reached[-1]])
    drawn = np.interp(_source("trunc_normal_", generator).random(tensor.shape), chances, x)
    return _filled(tensor, np.clip(drawn * std + mean, a, b))


def xavier_uniform_(
    tensor: Tensor, gain: float = 1.0, generator: random.Generator | None = None
) -> Tensor:
    """Fill with U(−b, b), b = gain · √(6 / (fan_in + fan_out)). Glorot, Bengio 2010."""
    bound = math.sqrt(3) * _xavier_std("xavier_uniform_", tensor, gain)
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(
    tensor: Tensor, gain: float = 1.0, generator: random.Generator | None = None
) -> Tensor:
    """Fill with N(0, std²), std = gain · √(2 / (fan_in + fan_out)). Glorot, Bengio 2010."""
    return normal_(tensor, 0.0, _xavier_std("xavier_normal_", tensor, gain), generator)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: random.Generator | None = None,
) -> Tensor:
    """Fill with U(−b, b), b = gain · √(3 / fan), gain = ``calculate_gain(nonlinearity, a)``.

    ``mode`` "fan_in" keeps the size of what goes forward, "fan_out" that of the gradients that
    come back. ValueError for another. He et al. 2015, "Delving deep into rectifiers".
    """
    bound = math.sqrt(3) * _kaiming_std("kaiming_uniform_", tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: random.Generator | None = None,
) -> Tensor:
    """Fill with N(0, std²), std = gain / √fan; see ``kaiming_uniform_``. He et al. 2015."""
    std = _kaiming_std("kaiming_normal_", tensor, a, mode, nonlinearity)
    return normal_(tensor, 0.0, std, generator)


def orthogonal_(
    tensor: Tensor, gain: float = 1.0, generator: random.Generator | None = None
) -> Tensor:
    """Fill with ``gain`` times an orthogonal matrix, all dims but the first taken as one.

    Of more rows than columns the columns are orthonormal, else the rows: Q of the QR decomposition
    of normal numbers, with R's diagonal positive. Saxe, McClelland, Ganguli 2013.
    """
    _check("orthogonal_", tensor, gain=gain)
    _fans("orthogonal_", tensor)
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    drawn = _source("orthogonal_", generator).normal(size=(rows, columns))
    q, r = np.linalg.qr(drawn.T if rows < columns else drawn)
    q = gain * q * np.where(np.diag(r) < 0, -1.0, 1.0)
    return _filled(tensor, (q.T if rows < columns else q).reshape(tensor.shape))


# ---- what they share


def _fans(name: str, tensor: Tensor) -> tuple[int, int]:
    """How many inputs feed one output of a weight (out, in, …), and outputs one input feeds."""
    if tensor.ndim < 2:
        raise ValueError(f"{name}: expected a tensor of at least 2 dims, got shape {tensor.shape}")
    outputs, inputs, *window = tensor.shape
    return inputs * math.prod(window), outputs * math.prod(window)


def _xavier_std(name: str, tensor: Tensor, gain: float) -> float:
    _check(name, tensor, gain=gain)
    return gain * math.sqrt(2 / max(1, sum(_fans(name, tensor))))


def _kaiming_std(name: str, tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    _check(name, tensor, a=a)
    fans = dict(zip(("fan_in", "fan_out"), _fans(name, tensor), strict=True))
    if mode not in fans:
        raise _unknown(f"{name}: mode", mode, list(fans))
    return calculate_gain(nonlinearity, a) / math.sqrt(max(1, fans[mode]))


def _check(name: str, tensor: Tensor, **numbers: float) -> None:
    fit(name, "tensor float (…)", tensor)
    check_scalars(name, **numbers)


def _check_order(name: str, a: float, b: float) -> None:
    if not a <= b:
        raise ValueError(f"{name}: expected a ≤ b, got {a} and {b}")


def _unknown(what: str, word: str, known: list[str]) -> ValueError:
    close = difflib.get_close_matches(str(word), known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return ValueError(f"{what} must be one of {', '.join(known)}, got {shown(word)}{hint}")


def _source(name: str, generator: random.Generator | None) -> np.random.Generator:
    if generator is None:
        return random.generator()
    if not isinstance(generator, random.Generator):
        raise TypeError(
            f"{name}: expected a tinygrad_mnist.Generator, got {type(generator).__name__}"
        )
    return generator.numpy()


def _filled(tensor: Tensor, values: np.ndarray | float) -> Tensor:
    with no_grad():
        return tensor.copy_(from_numpy(np.asarray(values, tensor.dtype), backend=tensor.backend))
