"""The activations of ``nn.functional`` as layers."""

from __future__ import annotations

from typing import ClassVar

from tinygrad_mnist.checks import check_scalars, checked_integer
from tinygrad_mnist.nn import functional as F
from tinygrad_mnist.nn.functional.activations import check_approximate, check_bounds, check_inplace
from tinygrad_mnist.nn.module import Module
from tinygrad_mnist.tensor import Tensor


class _Activation(Module):
    """A function of a tensor and of the layer's ``_options``, which are attributes."""

    _function: ClassVar[staticmethod[..., Tensor]]
    _options: ClassVar[tuple[str, ...]] = ()

    def forward(self, input: Tensor) -> Tensor:
        """Of the shape of ``input``."""
        return self._function(input, *[getattr(self, name) for name in self._options])

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self._options)


class _InPlace(_Activation):
    """An activation that PyTorch can do in place."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        check_inplace(type(self).__name__, inplace)
        self.inplace = inplace

    def extra_repr(self) -> str:
        shown = super().extra_repr()
        return ", ".join([shown] * bool(shown) + ["inplace=True"] * self.inplace)


# ---- without options


class Sigmoid(_Activation):
    """1 / (1 + e⁻ˣ)."""

    _function = staticmethod(F.sigmoid)


class Tanh(_Activation):
    """The hyperbolic tangent."""

    _function = staticmethod(F.tanh)


class LogSigmoid(_Activation):
    """log(1 / (1 + e⁻ˣ)), exact at both ends."""

    _function = staticmethod(F.logsigmoid)


class ReLU(_InPlace):
    """max(x, 0)."""

    _function = staticmethod(F.relu)


class ReLU6(_InPlace):
    """min(max(x, 0), 6). Krizhevsky 2010."""

    _function = staticmethod(F.relu6)


class SiLU(_InPlace):
    """x · sigmoid(x), also called swish. Elfwing, Uchibe, Doya 2017."""

    _function = staticmethod(F.silu)


class Mish(_InPlace):
    """x · tanh(log(1 + eˣ)). Misra 2019."""

    _function = staticmethod(F.mish)


# ---- with options


class LeakyReLU(_InPlace):
    """x where x > 0, else negative_slope · x. Maas, Hannun, Ng 2013."""

    _function = staticmethod(F.leaky_relu)
    _options = ("negative_slope",)

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__(inplace)
        check_scalars("LeakyReLU", negative_slope=negative_slope)
        self.negative_slope = negative_slope


class ELU(_InPlace):
    """x where x > 0, else alpha · (eˣ − 1). Clevert, Unterthiner, Hochreiter 2015."""

    _function = staticmethod(F.elu)
    _options = ("alpha",)

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        check_scalars("ELU", alpha=alpha)
        self.alpha = alpha


class Hardtanh(_InPlace):
    """x between the bounds. ValueError for min_val > max_val. Collobert 2004."""

    _function = staticmethod(F.hardtanh)
    _options = ("min_val", "max_val")

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        check_bounds("Hardtanh", min_val, max_val)
        self.min_val = min_val
        self.max_val = max_val


class GELU(_Activation):
    """x · Φ(x), Φ the normal distribution; ``approximate="tanh"`` takes Φ by a tanh.

    ValueError for another word than that and "none". Hendrycks, Gimpel 2016.
    """

    _function = staticmethod(F.gelu)
    _options = ("approximate",)

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        check_approximate("GELU", approximate)
        self.approximate = approximate


class Softplus(_Activation):
    """log(1 + e^(beta·x)) / beta, and x itself where beta·x > ``threshold``. Dugas et al. 2001."""

    _function = staticmethod(F.softplus)
    _options = ("beta", "threshold")

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        check_scalars("Softplus", beta=beta, threshold=threshold)
        self.beta = beta
        self.threshold = threshold


# ---- along a dim


class _Along(_Activation):
    """An activation whose elements along ``dim`` depend on each other."""

    _options = ("dim",)

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        name = type(self).__name__
        if dim is None:
            raise TypeError(
                f"{name}: expected a dim, as in {name}(dim=1); without one PyTorch guesses"
            )
        self.dim = checked_integer(name, "dim", dim)


class Softmax(_Along):
    """eˣ / Σ eˣ along ``dim``, which must be given: PyTorch guesses, with a warning."""

    _function = staticmethod(F.softmax)


class LogSoftmax(_Along):
    """log(eˣ / Σ eˣ) along ``dim``, exact for large x; see ``Softmax``."""

    _function = staticmethod(F.log_softmax)


class Softmin(_Along):
    """e⁻ˣ / Σ e⁻ˣ along ``dim``; see ``Softmax``."""

    _function = staticmethod(F.softmin)
