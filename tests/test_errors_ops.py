"""What bad input gets: the same type of error on every backend, with the op and what it was given.

A device may report a label out of range only when it is next waited for; the strict backend does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import errors
import numpy as np
import pytest
from strict_backend import StrictBackend

import tinygrad_mnist as tg
from tinygrad_mnist.autograd.record import define
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.nn import functional as F
from tinygrad_mnist.ops import networks, pointwise, products
from tinygrad_mnist.tensor import Tensor

Make = Callable[..., Tensor]


@dataclass(frozen=True)
class Wrong:
    """A call that must fail: what it does with a maker of arrays, the error and its message."""

    name: str
    attempt: Callable[[Make], Any]
    error: type[Exception]
    says: str


SHAPES = [
    Wrong("add", lambda t: t(2, 3) + t(4), ValueError, r"add: .*\(2, ?3\).*\(4,?\)"),
    Wrong("equal", lambda t: t(2, 3) == t(4), ValueError, r"equal: .*\(2, ?3\).*\(4,?\)"),
    Wrong(
        "where",
        lambda t: pointwise.where(t(3) > 0, t(2), t(3)),
        ValueError,
        r"where: .*\(3,?\).*\(2,?\)",
    ),
    Wrong("matmul", lambda t: t(2, 3) @ t(2, 3), ValueError, r"matmul: .*\(2, 3\).*\(2, 3\)"),
    Wrong("matmul batches", lambda t: t(2, 1, 1) @ t(3, 1, 1), ValueError, r"matmul: .*2.*3"),
    Wrong("matmul 0-d", lambda t: t() @ t(3), ValueError, r"matmul: .*\(\).*\(3,\)"),
    Wrong("linear", lambda t: products.linear(t(2, 3), t(4, 5)), ValueError, r"\(2, 3\).*\(4, 5\)"),
    Wrong(
        "linear bias",
        lambda t: products.linear(t(2, 3), t(4, 3), t(3)),
        ValueError,
        r"linear: expected .*bias \(out\), got .*weight \(4, 3\), bias \(3,\)",
    ),
    Wrong("conv2d dims", lambda t: F.conv2d(t(2, 3), t(1, 1, 1, 1)), ValueError, r"\(2, 3\)"),
    Wrong(
        "conv2d channels",
        lambda t: F.conv2d(t(1, 3, 5, 5), t(4, 2, 3, 3)),
        ValueError,
        r"conv2d: .*\(4, 2, 3, 3\).*\(1, 3, 5, 5\)",
    ),
    Wrong(
        "conv2d groups",
        lambda t: F.conv2d(t(1, 4, 5, 5), t(3, 2, 3, 3), groups=2),
        ValueError,
        r"conv2d: .*groups=2",
    ),
    Wrong(
        "conv2d bias",
        lambda t: F.conv2d(t(1, 2, 5, 5), t(3, 2, 3, 3), t(2)),
        ValueError,
        r"conv2d: expected .*bias \(O\), got .*weight \(3, 2, 3, 3\), bias \(2,\)",
    ),
    Wrong(
        "conv2d window",
        lambda t: F.conv2d(t(1, 2, 2, 5), t(3, 2, 3, 3)),
        ValueError,
        r"conv2d: a window of \(3, 3\).*\(2, 5\)",
    ),
    Wrong(
        "conv2d stride",
        lambda t: F.conv2d(t(1, 2, 5, 5), t(3, 2, 3, 3), stride=0),
        ValueError,
        r"conv2d: stride .*got 0",
    ),
    Wrong("max_pool2d dims", lambda t: F.max_pool2d(t(4, 4), 2), ValueError, r"\(4, 4\)"),
    Wrong(
        "max_pool2d padding",
        lambda t: F.max_pool2d(t(1, 1, 4, 4), 2, padding=2),
        ValueError,
        r"max_pool2d: padding \(2, 2\) is above half",
    ),
    Wrong(
        "max_pool2d window",
        lambda t: F.max_pool2d(t(1, 1, 4, 4), 5),
        ValueError,
        r"max_pool2d: a window of \(5, 5\)",
    ),
    Wrong(
        "batch_norm",
        lambda t: F.batch_norm(t(4, 3), None, None, t(2), t(3), training=True),
        ValueError,
        r"batch_norm: .*input \(4, 3\), weight \(2,\), bias \(3,\)",
    ),
    Wrong(
        "batch_norm of one value",
        lambda t: F.batch_norm(t(1, 3), None, None, t(3), t(3), training=True),
        ValueError,
        r"batch_norm: .*\(1, 3\).*eval\(\)",
    ),
    Wrong(
        "cross_entropy",
        lambda t: networks.cross_entropy(t(4, 3), t(3).long()),
        ValueError,
        r"cross_entropy: expected .*target int64 \(N\), got input \(4, 3\), target \(3,\)",
    ),
    Wrong("reshape", lambda t: t(2, 3).reshape(4, 2), ValueError, r"reshape: .*\(2, 3\).*\(4, 2\)"),
    Wrong("reshape -1", lambda t: t(2, 3).reshape(-1, -1), ValueError, r"reshape: .*\(-1, -1\)"),
    Wrong("view", lambda t: t(2, 3).T.view(6), RuntimeError, r"view: .*\(3, 2\).*reshape"),
    Wrong("expand", lambda t: t(2, 3).expand(4, 3), ValueError, r"expand: .*\(2, 3\).*\(4, 3\)"),
    Wrong("permute", lambda t: t(2, 3).permute(0, 0), ValueError, r"permute: .*\(0, 0\)"),
    Wrong("sum_to_size", lambda t: t(2, 3).sum_to_size(2), ValueError, r"\(2, 3\)"),
    Wrong("amax of nothing", lambda t: t(0, 3).amax(0), ValueError, r"amax: .*\(0, 3\)"),
    Wrong("argmax of nothing", lambda t: t(0, 3).argmax(), ValueError, r"argmax: .*\(0, 3\)"),
    Wrong("item", lambda t: t(2).item(), ValueError, r"item: .*\(2,\)"),
    Wrong("in place", lambda t: t(3).add_(t(2, 3)), ValueError, r"\(2, 3\).*\(3,\)"),
]

DIMS = [
    Wrong("sum", lambda t: t(2, 3).sum(2), IndexError, r"sum: dim 2 .*-2 to 1"),
    Wrong("mean", lambda t: t(2, 3).mean(-3), IndexError, r"mean: dim -3 "),
    Wrong("sum twice", lambda t: t(2, 3).sum((0, -2)), ValueError, r"sum: .*twice"),
    Wrong("sum by name", lambda t: t(2).sum(1.0), TypeError, r"sum: dim .*1\.0"),
    Wrong("amax", lambda t: t(2).amax(1), IndexError, r"amax: dim 1 "),
    Wrong("argmax", lambda t: t(2).argmax(1), IndexError, r"argmax: dim 1 "),
    Wrong("softmax", lambda t: t(2).softmax(1), IndexError, r"softmax: dim 1 "),
    Wrong("log_softmax", lambda t: t(2).log_softmax(-2), IndexError, r"log_softmax: dim -2 "),
    Wrong("transpose", lambda t: t(2, 3).transpose(0, 2), IndexError, r"transpose: dim 2 "),
    Wrong("unsqueeze", lambda t: t(2).unsqueeze(2), IndexError, r"unsqueeze: dim 2 "),
    Wrong("squeeze", lambda t: t(2).squeeze(1), IndexError, r"squeeze: dim 1 "),
    Wrong("flatten", lambda t: t(2, 3).flatten(1, 0), ValueError, r"flatten: .*1.*0"),
    Wrong("index", lambda t: t(2)[2], IndexError, r"getitem: "),
    Wrong("too many indices", lambda t: t(2)[0, 0], IndexError, r"getitem: "),
    Wrong("index by a float", lambda t: t(2)[0.5], TypeError, r"float"),
    Wrong("a negative step", lambda t: t(2)[::-1], ValueError, r"positive, got -1"),
]

DTYPES = [
    Wrong("matmul", lambda t: t(2, 2) @ t(2, 2).double(), TypeError, r"matmul: .*float64.*\.to\("),
    Wrong(
        "linear",
        lambda t: products.linear(t(2, 3), t(4, 3).double()),
        TypeError,
        r"linear: .*x float32, weight float64.*\.to\(",
    ),
    Wrong(
        "linear bias",
        lambda t: products.linear(t(2, 3), t(4, 3), t(4).double()),
        TypeError,
        r"linear: .*bias float64.*\.to\(",
    ),
    Wrong(
        "conv2d",
        lambda t: F.conv2d(t(1, 1, 3, 3).double(), t(1, 1, 2, 2)),
        TypeError,
        r"conv2d: .*input float64, weight float32.*\.to\(",
    ),
    Wrong(
        "cross_entropy",
        lambda t: networks.cross_entropy(t(2, 3), t(2)),
        TypeError,
        r"cross_entropy: expected int64 target, got .*target float32; cast it with \.to\(",
    ),
    Wrong("mean", lambda t: t(2).long().mean(), TypeError, r"mean: .*int64; .*float\(\)"),
    Wrong(
        "where",
        lambda t: pointwise.where(t(2), 1.0, 2.0),
        TypeError,
        r"where: expected bool condition.*float32",
    ),
    Wrong("dropout", lambda t: F.dropout(t(2).long()), TypeError, r"dropout: .*int64"),
    Wrong("dropout p", lambda t: F.dropout(t(2), 1.5), ValueError, r"dropout: .*1\.5"),
    Wrong("requires_grad", lambda t: t(2).long().requires_grad_(), RuntimeError, r"int64"),
    Wrong("to", lambda t: t(2).to(dtype="complex64"), TypeError, r"complex64 is not supported"),
    Wrong("a list", lambda t: Tensor.add(t(2), [1, 2]), TypeError, r"add: .*list"),
    Wrong("None", lambda t: Tensor.mul(t(2), None), TypeError, r"multiply: .*NoneType"),
    Wrong(
        "linear of lists", lambda t: products.linear([1.0], t(2, 1)), TypeError, r"linear: .*list"
    ),
    Wrong("pow", lambda t: t(2).long() ** -1, ValueError, r"pow: .*-1"),
    Wrong("overflow", lambda t: t(2).to("uint8") + 300, OverflowError, r"add: found 300, uint8"),
]

GRAPH = [
    Wrong("non-scalar", lambda t: (leaf(t) * 2).backward(), RuntimeError, r"shape \(2, 2\)"),
    Wrong("outside", lambda t: t(2).sum().backward(), RuntimeError, r"does not require grad"),
    Wrong("freed", lambda t: twice(leaf(t).exp().sum()), RuntimeError, r"exp .*retain_graph"),
    Wrong("changed", lambda t: changed(t), RuntimeError, r"multiply .*changed in place"),
    Wrong("numpy", lambda t: leaf(t).numpy(), RuntimeError, r"detach\(\)"),
    Wrong("rebinding", lambda t: leaf(t).sub_(t(2, 2)), RuntimeError, r"no_grad"),
    Wrong(
        "off the graph",
        lambda t: (leaf(t) * 2).requires_grad_(False),
        RuntimeError,
        r"detach\(\)",
    ),
]


def leaf(make: Make) -> Tensor:
    return make(2, 2).requires_grad_()


def twice(y: Tensor) -> None:
    y.backward()
    y.backward()


def changed(make: Make) -> None:
    w = make(2, 2)
    y = (leaf(make) * w).sum()
    w += 1
    y.backward()


@pytest.mark.parametrize(
    "wrong", [*SHAPES, *DIMS, *DTYPES, *GRAPH], ids=lambda w: w.name.replace(" ", "_")
)
def test_error(wrong: Wrong, backend: Backend) -> None:
    def make(*shape: int) -> Tensor:
        return tg.ones(*shape, backend=backend)

    with pytest.raises(wrong.error, match=wrong.says) as caught:
        wrong.attempt(make)
    assert caught.type is wrong.error


# ---- every op


@pytest.mark.parametrize("op", sorted({case.op for case in errors.CASES}))
def test_bad_input(op: str, backend: Backend) -> None:
    """Each line of ``errors``: the type of error, and in one line the op and what was found."""
    complaints = [_complaint(case, backend) for case in errors.CASES if case.op == op]
    assert not any(complaints), "\n".join(filter(None, complaints))


def _complaint(case: errors.Bad, backend: Backend) -> str:
    """What is wrong with the error of a call; nothing where it is as stated."""
    try:
        result = case.attempt(errors.Maker(backend))
        _look(result)
    except Exception as error:  # noqa: BLE001  the wrong type is what is looked for
        words = (case.op, case.op.rstrip("_"), *errors.SHOWN.get(case.op.rstrip("_"), ()))
        words += errors.SHOWN.get(case.op, ())
        found = str(error)
        named = any(re.match(rf"{re.escape(w)}(?![a-z_])", found) for w in words)
        lacking = [text for text in case.says if text not in found]
        if type(error) is case.error and named and not lacking and "\n" not in found:
            return ""
        return f"{type(error).__name__}: {found}  (expected {case.error.__name__}, {case.says})"
    finally:
        with suppress(IndexError):  # a device's, which another error came before
            tg.zeros(backend=backend).item()
    return f"no error but {result!r}  (expected {case.error.__name__}, {case.says})"


def _look(x: Any) -> None:
    """Have the values of a result, for which a device reports what it found out of range."""
    if isinstance(x, Tensor):
        x.tolist()
    elif isinstance(x, tuple | list):
        for part in x:
            _look(part)


def test_every_op_has_bad_input() -> None:
    """But for those of which it is said why they cannot fail."""
    stated, ops = {case.op for case in errors.CASES}, errors.public_ops().values()
    names = set().union(*ops)
    assert stated <= names and errors.CANNOT_FAIL.keys() <= names
    assert not stated & errors.CANNOT_FAIL.keys()
    assert [op for op in ops if not op & (stated | errors.CANNOT_FAIL.keys())] == []


# ---- indices, which a device may check late


@pytest.mark.parametrize("label", [3, -1, 100])
def test_labels_out_of_range(label: int, backend: Backend) -> None:
    x = tg.ones(2, 3, backend=backend)
    target = tg.tensor([0, label], backend=backend)
    with pytest.raises(IndexError, match=rf"cross_entropy: .*{label}.*0 to 2"):
        networks.cross_entropy(x, target)[0].sum().item()


def test_rows_out_of_range(backend: Backend) -> None:
    x = tg.tensor(np.zeros((4, 2), np.uint8), backend=backend)
    for row in (4, -1):
        with pytest.raises(IndexError, match=rf"take_scaled: .*{row}.*0 to 3"):
            networks.take_scaled(x, tg.tensor([row], backend=backend)).tolist()


def test_a_deferred_error_is_raised_once(strict: StrictBackend) -> None:
    """At the next look at a value, and the backend is usable afterwards."""
    y, _ = networks.cross_entropy(tg.ones(1, 3, backend=strict), tg.tensor([5], backend=strict))
    with pytest.raises(IndexError, match="found index 5"):
        y.item()
    assert tg.ones(1, backend=strict).item() == 1


# ---- two backends


def test_two_backends_in_one_op(usable: list[Backend]) -> None:
    """The message names both and the line that moves one."""
    first, *others = usable
    for other in others:
        x, y = tg.ones(2, 2, backend=first), tg.ones(2, 2, backend=other)
        ways: list[Callable[[], Any]] = [
            lambda x=x, y=y: x + y,
            lambda x=x, y=y: x @ y,
            lambda x=x, y=y: products.linear(x, y),
            lambda x=x, y=y: pointwise.where(x > 0, x, y),
            lambda x=x, y=y: x.add_(y),
        ]
        for way in ways:
            with pytest.raises(RuntimeError, match=rf"'{other.name}'.*'{first.name}'.*\.to\("):
                way()


# ---- making tensors and ops


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        ([[1, 2], [3]], ValueError, "ragged"),
        ("text", TypeError, "str"),
        (None, TypeError, "NoneType"),
        (np.array([1j]), TypeError, "complex128"),
        ([{}], TypeError, "expected numbers"),
    ],
)
def test_what_is_no_tensor(data: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        tg.tensor(data, backend="numpy")


def test_unknown_dtypes() -> None:
    for dtype in ("float16", "complex64", "no such thing", object):
        with pytest.raises(TypeError, match=r"expected one of .*float32"):
            tg.tensor([1.0], dtype=dtype, backend="numpy")


def test_shapes_are_integers() -> None:
    for shape in ((2.0,), ("2",), (True,)):
        with pytest.raises(TypeError, match="a shape is made of integers"):
            tg.zeros(*shape, backend="numpy")


def test_a_rule_that_names_what_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"exp: a rule names 'z'.*out.*x"):
        define("exp", x=lambda dY, z: dY)
    with pytest.raises(ValueError, match=r"exp: rules for \['y'\]"):
        define("exp", y=lambda dY: dY)
    with pytest.raises(KeyError, match="no kernel 'nothing'"):
        define("nothing")


def test_seeds() -> None:
    for seed, error in [(1.5, TypeError), (True, TypeError), (-1, ValueError), (2**64, ValueError)]:
        with pytest.raises(error, match="manual_seed"):
            tg.manual_seed(seed)  # type: ignore[arg-type]
