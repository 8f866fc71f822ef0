"""Bad input to what makes, moves and writes tensors."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

import tinygrad_mnist as tg
from errors.table import Bad, Maker, bad
from tinygrad_mnist.backend import BackendError
from tinygrad_mnist.tensor import Tensor

OF_SIZES = ("zeros", "ones", "empty", "rand", "randn", "full", "randint")
OF_NUMBERS = ("zeros", "ones", "empty", "full", "arange", "linspace", "eye", "randperm")
LIKE = ("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like")


def _of_size(name: str) -> list[Bad]:
    def make(t: Maker, size: Any, **given: Any) -> Any:
        more = {"full": ((size, 1.0)), "randint": ((9, size))}.get(name, (size,))
        return getattr(tg, name)(*more, backend=t.backend, **given)

    return [
        bad(name, lambda t: make(t, (2, -1)), ValueError, "(2, -1)"),
        bad(name, lambda t: make(t, (2.0,)), TypeError, "integers", "2.0"),
        bad(name, lambda t: make(t, ("2",)), TypeError, "integers", "'2'"),
        bad(name, lambda t: make(t, (True,)), TypeError, "integers", "True"),
        bad(name, lambda t: make(t, (2, None)), TypeError, "integers", "None"),
        bad(name, lambda t: make(t, (2,), dtype="complex64"), TypeError, "complex64"),
        bad(name, lambda t: make(t, (2,), dtype="nothing"), TypeError, "'nothing'"),
        bad(name, lambda t: make(t, (2,), dtype=object), TypeError, "object"),
        bad(
            name,
            lambda t: make(t, (2,), dtype=int, requires_grad=True),
            *((TypeError, "int64") if name.startswith("rand") and name != "randint" else NO_GRAD),
        ),
    ]


NO_GRAD: tuple[Any, ...] = (RuntimeError, "require grad", "int64")

SIZES = [
    bad("zeros", lambda t: tg.zeros(t(2, 2)), TypeError, "a tensor of shape (2, 2)"),
    bad("zeros", lambda t: tg.zeros(2, 3.0), TypeError, "integers", "3.0"),
    bad("ones", lambda t: tg.ones(None), TypeError, "integers", "None"),
    bad("rand", lambda t: tg.rand(2, dtype=int), TypeError, "float", "int64"),
    bad("randn", lambda t: tg.randn(2, dtype=bool), TypeError, "float", "bool"),
    bad("full", lambda t: tg.full((2,), "a"), TypeError, "'a'"),
    bad("full", lambda t: tg.full((2,), None), TypeError, "None"),
    bad("full", lambda t: tg.full((2,), t(1)), TypeError, "fill_value"),
    bad("full", lambda t: tg.full((2,), 256, dtype="uint8"), OverflowError, "256", "uint8"),
    bad("full", lambda t: tg.full((2,), 2**63), OverflowError, str(2**63), "int64"),
    bad("full", lambda t: tg.full((2,), float("inf"), dtype=int), OverflowError, "inf", "int64"),
    bad("eye", lambda t: tg.eye(-1), ValueError, "-1"),
    bad("eye", lambda t: tg.eye(2, -1), ValueError, "(2, -1)"),
    bad("eye", lambda t: tg.eye(2.0), TypeError, "2.0"),
    bad("eye", lambda t: tg.eye((2, 3)), TypeError, "(2, 3)"),
    bad("eye", lambda t: tg.eye(2, dtype="float16"), TypeError, "float16"),
    bad("eye", lambda t: tg.eye(2, dtype=int, requires_grad=True), *NO_GRAD),
    bad("arange", lambda t: tg.arange(0, 2, 0), ValueError, "step", "0"),
    bad("arange", lambda t: tg.arange(0, 2, -1), ValueError, "step", "-1"),
    bad("arange", lambda t: tg.arange(2, 0), ValueError, "2", "0"),
    bad("arange", lambda t: tg.arange(0, 2, 0.5, dtype=int), ValueError, "step", "0"),
    bad("arange", lambda t: tg.arange(float("inf")), ValueError, "inf"),
    bad("arange", lambda t: tg.arange(0, float("nan")), ValueError, "nan"),
    bad("arange", lambda t: tg.arange("3"), TypeError, "'3'"),
    bad("arange", lambda t: tg.arange(None), TypeError, "None"),
    bad("arange", lambda t: tg.arange(t(1)), TypeError, "number"),
    bad("arange", lambda t: tg.arange(300, dtype="uint8"), OverflowError, "299", "uint8"),
    bad("arange", lambda t: tg.arange(3, dtype=bool), TypeError, "bool"),
    bad("arange", lambda t: tg.arange(3, dtype="int128"), TypeError, "int128"),
    bad("arange", lambda t: tg.arange(3, requires_grad=True), *NO_GRAD),
    bad("linspace", lambda t: tg.linspace(0, 1, -1), ValueError, "-1"),
    bad("linspace", lambda t: tg.linspace(0, 1, 2.0), TypeError, "2.0"),
    bad("linspace", lambda t: tg.linspace(0, "1", 2), TypeError, "'1'"),
    bad("linspace", lambda t: tg.linspace(0, float("inf"), 2), ValueError, "inf"),
    bad("linspace", lambda t: tg.linspace(0, 300, 2, dtype="uint8"), OverflowError, "300"),
    bad("linspace", lambda t: tg.linspace(0, 1, 2, dtype="float16"), TypeError, "float16"),
    bad("randint", lambda t: tg.randint(3), TypeError, "size"),
    bad("randint", lambda t: tg.randint(3, 3, (2,)), ValueError, "3 and 3"),
    bad("randint", lambda t: tg.randint(0, (2,)), ValueError, "0 and 0"),
    bad("randint", lambda t: tg.randint(0, 2**33, (2,)), ValueError, str(2**33)),
    bad("randint", lambda t: tg.randint(0.5, 2, (2,)), TypeError, "0.5"),
    bad("randint", lambda t: tg.randint(0, "2", (2,)), TypeError, "'2'"),
    bad("randint", lambda t: tg.randint(0, 300, (2,), dtype="uint8"), OverflowError, "299"),
    bad("randperm", lambda t: tg.randperm(-1), ValueError, "-1"),
    bad("randperm", lambda t: tg.randperm(2.0), TypeError, "2.0"),
    bad("randperm", lambda t: tg.randperm((2, 3)), TypeError, "(2, 3)"),
    bad("randperm", lambda t: tg.randperm(300, dtype="uint8"), OverflowError, "299", "uint8"),
    bad("randperm", lambda t: tg.randperm(3, dtype="x"), TypeError, "'x'"),
]


def _like(name: str) -> list[Bad]:
    make: Callable[..., Any] = getattr(tg, name)
    more = (1.0,) if name == "full_like" else ()
    return [
        bad(name, lambda t: make([1.0], *more), TypeError, "list"),
        bad(name, lambda t: make(np.ones(2), *more), TypeError, "ndarray"),
        bad(name, lambda t: make(None, *more), TypeError, "NoneType"),
        bad(name, lambda t: make((2, 3), *more), TypeError, "tuple"),
        bad(name, lambda t: make(t(2), *more, dtype="float16"), TypeError, "float16"),
    ]


LIKES = [
    bad("full_like", lambda t: tg.full_like(t(2), "a"), TypeError, "'a'"),
    bad("full_like", lambda t: tg.full_like(t(2, dtype="uint8"), -1), OverflowError, "-1", "uint8"),
    bad("rand_like", lambda t: tg.rand_like(t(2).long()), TypeError, "int64"),
    bad("randn_like", lambda t: tg.randn_like(t(2).bool()), TypeError, "bool"),
    bad("zeros_like", lambda t: tg.zeros_like(t(2).long(), requires_grad=True), *NO_GRAD),
]


def _of_data(name: str) -> list[Bad]:
    make: Callable[..., Any] = getattr(tg, name)
    return [
        bad(name, lambda t: make([[1, 2], [3]], backend=t.backend), ValueError, "ragged"),
        bad(name, lambda t: make("text", backend=t.backend), TypeError, "str"),
        bad(name, lambda t: make(None, backend=t.backend), TypeError, "NoneType"),
        bad(name, lambda t: make(np.array([1j]), backend=t.backend), TypeError, "complex128"),
        bad(name, lambda t: make(np.ones(2, np.float16), backend=t.backend), TypeError, "float16"),
        bad(name, lambda t: make([{}], backend=t.backend), TypeError, "numbers"),
        bad(name, lambda t: make([1.0], dtype="float16", backend=t.backend), TypeError, "float16"),
        bad(name, lambda t: make([300], dtype="uint8", backend=t.backend), OverflowError, "300"),
        bad(name, lambda t: make([2**63], backend=t.backend), OverflowError, str(2**63)),
        bad(name, lambda t: make([1.0, t.leaf(2)], backend=t.backend), RuntimeError, "detach()"),
        bad(name, lambda t: make([t.leaf(2)], backend=t.backend), RuntimeError, "detach()"),
    ]


DATA = [
    bad("__init__", lambda t: Tensor([1.0]), TypeError, "tensor(data)"),
    bad("tensor", lambda t: tg.tensor([1], requires_grad=True), *NO_GRAD),
    bad("from_numpy", lambda t: tg.from_numpy([1.0]), TypeError, "list"),
    bad("from_numpy", lambda t: tg.from_numpy(t(2)), TypeError, "Tensor"),
    bad("from_numpy", lambda t: tg.from_numpy(np.array([1j])), TypeError, "complex128"),
    bad("from_numpy", lambda t: tg.from_numpy(np.array(["a"])), TypeError, "<U1"),
    bad("from_dlpack", lambda t: tg.from_dlpack([1.0]), TypeError, "list"),
    bad("from_dlpack", lambda t: tg.from_dlpack(np.array([1j])), TypeError, "complex128"),
    bad("from_dlpack", lambda t: tg.from_dlpack(np.ones(2, np.float16)), TypeError, "float16"),
    bad("item", lambda t: t(2).item(), ValueError, "(2,)"),
    bad("item", lambda t: t(0).item(), ValueError, "(0,)"),
    bad("__bool__", lambda t: bool(t(2)), ValueError, "(2,)"),
    bad("__bool__", lambda t: bool(t(0)), ValueError, "(0,)"),
    bad("__float__", lambda t: float(t(2)), ValueError, "(2,)"),
    bad("__int__", lambda t: int(t(2)), ValueError, "(2,)"),
    bad("__index__", lambda t: [1, 2][t(1)], TypeError, "float32"),
    bad("__index__", lambda t: [1, 2][t(2).long()], ValueError, "(2,)"),
    bad("__len__", lambda t: len(t()), TypeError, "0-d"),
    bad("__iter__", lambda t: list(t()), TypeError, "0-d"),
    bad("__contains__", lambda t: "a" in t(2), TypeError, "str"),
    bad("__contains__", lambda t: None in t(2), TypeError, "NoneType"),
    bad("__contains__", lambda t: t(3) in t(2), ValueError, "(3,)", "(2,)"),
    bad("__format__", lambda t: f"{t(2):.3f}", ValueError, "(2,)"),
    bad("numpy", lambda t: t.leaf(2).numpy(), RuntimeError, "detach()"),
    bad("__array__", lambda t: np.asarray(t.leaf(2)), RuntimeError, "detach()"),
    bad("__dlpack__", lambda t: t.leaf(2).__dlpack__(), BufferError, "detach()"),
    bad("__deepcopy__", lambda t: copy.deepcopy(t.leaf(2) * 2), RuntimeError, "detach()"),
    bad("__reduce__", lambda t: pickle.dumps(t.leaf(2) * 2), RuntimeError, "detach()"),
    bad("size", lambda t: t(2, 3).size(2), IndexError, "dim 2", "2 dims"),
    bad("size", lambda t: t().size(0), IndexError, "0-d"),
    bad("size", lambda t: t(2, 3).size("0"), TypeError, "'0'"),
    bad("to", lambda t: t(2).to("complex64"), TypeError, "complex64", "float64"),
    bad("to", lambda t: t(2).to("float16"), TypeError, "float16 is not supported", "float64"),
    bad("to", lambda t: t(2).to("bfloat16"), TypeError, "bfloat16", "float64"),
    bad("to", lambda t: t(2).to(dtype="float16"), TypeError, "float16"),
    bad("to", lambda t: t(2).to(complex), TypeError, "complex128"),
    bad("to", lambda t: t(2).to(3), TypeError, "3"),
    bad("to", lambda t: t(2).to("nowhere"), BackendError, "nowhere"),
    bad("to", lambda t: t(2).to(device="nowhere"), BackendError, "nowhere"),
    bad("to", lambda t: t(2).to(backend=3), BackendError, "3"),
    bad("to", lambda t: t(2).to([1.0]), TypeError, "[1.0]"),
    bad("cuda", lambda t: t(2).cuda("nowhere"), BackendError, "nowhere"),
    bad("cuda", lambda t: t(2).cuda(1.5), TypeError, "1.5"),
    bad("cuda", lambda t: t(2).cuda(999), BackendError, "999"),
    bad("data", lambda t: setattr(t(2), "data", t(3)), ValueError, "(2,)", "(3,)"),
    bad("data", lambda t: setattr(t(2), "data", t(2).double()), ValueError, "float64"),
    bad("data", lambda t: setattr(t(2), "data", [1.0, 2.0]), ValueError, "[1.0, 2.0]"),
]

GRADIENTS = [
    bad("backward", lambda t: (t.leaf(2) * 2).backward(), RuntimeError, "(2,)"),
    bad("backward", lambda t: t(2).sum().backward(), RuntimeError, "require grad"),
    bad("backward", lambda t: (t.leaf(2) * 2).backward(t(3)), ValueError, "(2,)", "(3,)"),
    bad("backward", lambda t: (t.leaf(2) * 2).backward([1.0, 1.0]), TypeError, "list"),
    bad("requires_grad_", lambda t: t(2).long().requires_grad_(), *NO_GRAD),
    bad("requires_grad_", lambda t: (t.leaf(2) * 2).requires_grad_(False), RuntimeError, "detach"),
    bad(
        "requires_grad", lambda t: setattr(t(2).bool(), "requires_grad", True), RuntimeError, "bool"
    ),
    bad("retain_grad", lambda t: t(2).retain_grad(), RuntimeError, "require grad"),
    bad("register_hook", lambda t: t(2).register_hook(print), RuntimeError, "require"),
]

# ---- in place

OF_TWO = {
    "add_": "add",
    "sub_": "sub",
    "mul_": "mul",
    "div_": "div",
    "floor_divide_": "floor_divide",
    "remainder_": "remainder",
    "pow_": "pow",
}
OF_ONE = (
    "neg_",
    "abs_",
    "square_",
    "reciprocal_",
    "exp_",
    "log_",
    "sqrt_",
    "rsqrt_",
    "sin_",
    "cos_",
    "tanh_",
    "sigmoid_",
    "relu_",
    "floor_",
    "ceil_",
    "round_",
    "trunc_",
    "expm1_",
    "log1p_",
    "tan_",
    "asin_",
    "acos_",
    "atan_",
    "sinh_",
    "cosh_",
    "erf_",
    "sign_",
)
WITH: dict[str, Callable[[Maker], tuple[Any, ...]]] = {
    **{name: lambda t: (2.0,) for name in OF_TWO},
    **{name: lambda t: () for name in (*OF_ONE, "zero_", "uniform_", "normal_")},
    "copy_": lambda t: (2.0,),
    "fill_": lambda t: (2.0,),
    "lerp_": lambda t: (t(2), 0.5),
    "clamp_": lambda t: (0.0, 1.0),
    "clamp_min_": lambda t: (0.0,),
    "clamp_max_": lambda t: (0.0,),
    "masked_fill_": lambda t: (t(2).bool(), 0.0),
    "logical_not_": lambda t: (),
    "scatter_": lambda t: (0, t(2).long() * 0, 1.0),
    "scatter_add_": lambda t: (0, t(2).long() * 0, t(2)),
}


def _in_place(name: str) -> list[Bad]:
    """What may not be written."""

    def write(t: Maker, x: Any) -> Any:
        return getattr(x, name)(*WITH[name](t))

    return [
        bad(name, lambda t: write(t, t.leaf(2)), RuntimeError, "no_grad"),
        bad(name, lambda t: write(t, t.leaf(2) * 2), RuntimeError, "no_grad"),
        bad(name, lambda t: write(t, t(1).expand(2)), RuntimeError, "(2,)", "clone()"),
    ]


def _in_place_of_two(name: str) -> list[Bad]:
    def write(x: Any, y: Any) -> Any:
        return getattr(x, name)(y)

    return [
        bad(name, lambda t: write(t(3), t(2, 3)), ValueError, "(2, 3)", "(3,)"),
        bad(name, lambda t: write(t(1), t(3)), ValueError, "(3,)", "(1,)"),
        bad(name, lambda t: write(t(3), t(2)), ValueError, "(2,)", "(3,)"),
        bad(name, lambda t: write(t(2), t.leaf(2)), RuntimeError, "no_grad"),
        bad(name, lambda t: write(t(2), [1.0]), TypeError, "list"),
        bad(name, lambda t: write(t(2), None), TypeError, "NoneType"),
        bad(name, lambda t: write(t(2).long(), 0.5), TypeError, "float32", "int64"),
        bad(name, lambda t: write(t(2).long(), t(2)), TypeError, "float32", "int64"),
    ]


IN_PLACE = [
    *(
        bad(name, lambda t, name=name: getattr(t(2).long(), name)(), TypeError, "float32", "int64")
        for name in ("reciprocal_", "exp_", "log_", "sqrt_", "rsqrt_", "sin_", "cos_", "tanh_")
    ),
    bad("sigmoid_", lambda t: t(2).bool().sigmoid_(), TypeError, "float32", "bool"),
    bad("neg_", lambda t: t(2).bool().neg_(), TypeError, "bool"),
    bad("bitwise_and_", lambda t: t(2).bitwise_and_(1), TypeError, "float32"),
    bad("bitwise_and_", lambda t: t(2).long().bitwise_and_(t(3).long()), ValueError, "(3,)"),
    bad("bitwise_or_", lambda t: t(2).bool().bitwise_or_(1), TypeError, "int64", "bool"),
    bad("bitwise_or_", lambda t: t(1).bool().bitwise_or_(t(2).bool()), ValueError, "(2,)", "(1,)"),
    bad("bitwise_xor_", lambda t: t(2).bool().bitwise_xor_([True]), TypeError, "list"),
    bad("bitwise_xor_", lambda t: t(2).long().bitwise_xor_(0.5), TypeError, "float32"),
    bad("clamp_", lambda t: t(2).clamp_(), ValueError, "neither"),
    bad("clamp_", lambda t: t(2).clamp_(t(2, 2)), ValueError, "(2, 2)", "(2,)"),
    bad("clamp_", lambda t: t(2).long().clamp_(0.5), TypeError, "float32", "int64"),
    bad("clamp_min_", lambda t: t(2).clamp_min_("a"), TypeError, "str"),
    bad("clamp_max_", lambda t: t(2).long().clamp_max_(0.5), TypeError, "float32", "int64"),
    bad("masked_fill_", lambda t: t(2).masked_fill_(t(2), 0), TypeError, "float32"),
    bad("masked_fill_", lambda t: t(2).masked_fill_(t(3).bool(), 0), ValueError, "(3,)", "(2,)"),
    bad("masked_fill_", lambda t: t(2).masked_fill_(t(2, 2).bool(), 0), ValueError, "(2, 2)"),
    bad("masked_fill_", lambda t: t(2).masked_fill_(t(2).bool(), "a"), TypeError, "str"),
    bad("copy_", lambda t: t(2).copy_(t(3)), ValueError, "(3,)", "(2,)"),
    bad("copy_", lambda t: t(2).copy_(t(2, 2)), ValueError, "(2, 2)", "(2,)"),
    bad("copy_", lambda t: t(2).copy_([1.0]), TypeError, "list"),
    bad("copy_", lambda t: t(2).copy_(None), TypeError, "NoneType"),
    bad("fill_", lambda t: t(2).fill_("a"), TypeError, "'a'"),
    bad("fill_", lambda t: t(2).fill_(None), TypeError, "None"),
    bad("fill_", lambda t: t(2).fill_(t(2, 2)), TypeError, "0-d", "a tensor of shape (2, 2)"),
    bad("fill_", lambda t: t(2, dtype="uint8").fill_(256), OverflowError, "256", "uint8"),
    bad("fill_", lambda t: t(2).long().fill_(float("nan")), OverflowError, "nan", "int64"),
    bad("lerp_", lambda t: t(2).lerp_(t(3), 0.5), ValueError, "(3,)", "(2,)"),
    bad("lerp_", lambda t: t(2).lerp_(t(2).double(), 0.5), TypeError, "float64"),
    bad("lerp_", lambda t: t(2).long().lerp_(t(2).long(), 0.5), TypeError, "int64"),
    bad("lerp_", lambda t: t(2).lerp_([1.0, 1.0], 0.5), TypeError, "list"),
    bad("lerp_", lambda t: t(2).lerp_(t(2), "a"), TypeError, "weight"),
    bad("uniform_", lambda t: t(2).uniform_(1, 0), ValueError, "1 and 0"),
    bad("uniform_", lambda t: t(2).long().uniform_(), TypeError, "int64"),
    bad("uniform_", lambda t: t(2).uniform_("a"), TypeError, "a"),
    bad("normal_", lambda t: t(2).normal_(0, -1), ValueError, "-1"),
    bad("normal_", lambda t: t(2).long().normal_(), TypeError, "int64"),
    bad("normal_", lambda t: t(2).normal_(0, "a"), TypeError, "std"),
]

CASES = [
    *(case for name in OF_SIZES for case in _of_size(name)),
    *SIZES,
    *(case for name in LIKE for case in _like(name)),
    *LIKES,
    *(case for name in ("tensor", "as_tensor") for case in _of_data(name)),
    *DATA,
    *GRADIENTS,
    *(case for name in WITH for case in _in_place(name)),
    *(case for name in OF_TWO for case in _in_place_of_two(name)),
    *IN_PLACE,
]
