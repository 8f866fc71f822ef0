"""Which calls a stated difference is about: conditions on a call and what PyTorch made of it."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from parity.draws import Array, Call, parts
from parity.sides import Run

When = Callable[[Call, Run], bool]


def says(pattern: str) -> When:
    """Where PyTorch's error has words that match."""
    return lambda call, theirs: bool(theirs.error and re.search(pattern, str(theirs.error)))


def fine(when: Callable[[Call], bool]) -> When:
    """Where PyTorch has a result and the call is such."""
    return lambda call, theirs: theirs.error is None and when(call)


def at_the_tip(call: Call, theirs: Run) -> bool:
    """Whether a root is nearly 0 somewhere, or PyTorch's gradient NaN though no input is."""
    tiny = theirs.error is None and bool((theirs.result.abs() < 1e-5).any())
    return tiny or (not infinite(call) and any(np.isnan(g).any() for g in theirs.derivatives))


def without_result(call: Call, theirs: Run) -> bool:
    """Whether PyTorch's result itself is not finite somewhere."""
    return theirs.error is None and not bool((theirs.result.abs() < np.inf).all())


def empty(call: Call) -> bool:
    return any(x.values.size == 0 for x in call.arrays())


def infinite(call: Call) -> bool:
    """Whether NaN or infinity is among the inputs."""
    return any(x.is_float and not np.isfinite(x.values).all() for x in call.arrays())


def recorded(call: Call) -> bool:
    """Whether the op is recorded because an operand, not the target, requires grad."""
    return not call.no_grad and any(x.requires_grad for x in call.arrays()[1:])


def shared(call: Call) -> bool:
    """Whether the target's elements share memory."""
    x = call.first()
    return x.layout == "expanded" and x.values.size > 0 and x.shape[0] > 1


def unsigned_negative(call: Call) -> bool:
    """Whether a negative number meets unsigned integers."""
    return dtypes(call) >= {"uint8"} and any(number < 0 for number in numbers(call))


def mixed(call: Call) -> bool:
    """Whether float dtypes meet."""
    return dtypes(call) >= {"float32", "float64"}


def unlike_shapes(call: Call) -> bool:
    return len({x.shape for x in call.arrays()[:2]}) == 2


def has_number(number: float) -> Callable[[Call], bool]:
    """Whether a number is among the elements or the arguments."""
    return lambda call: any(
        bool((part.values == number).any()) if isinstance(part, Array) else part == number
        for part in (*call.args, *call.kwargs.values())
        if isinstance(part, Array | int | float)
    )


def at_kink(default: float, name: str) -> Callable[[Call], bool]:
    """Whether two tensors are exactly as far apart as a loss's bend."""

    def when(call: Call) -> bool:
        x, y = (part.values for part in call.arrays()[:2])
        bend = call.kwargs.get(name, default)
        return bool(np.isclose(np.abs(x.astype(float) - y), bend, 1e-5).any())

    return when


def at_threshold(call: Call) -> bool:
    """Whether softplus turns into the identity exactly at an element."""
    given = dict(zip(("input", "beta", "threshold"), call.args, strict=False)) | call.kwargs
    x, beta, threshold = call.arrays()[0].values, given.get("beta", 1), given.get("threshold", 20)
    return bool((x * beta == threshold).any())


def for_its_truth(call: Call, theirs: Run) -> bool:
    """Whether PyTorch refuses a flag that is no boolean."""
    return call.spoilt and says(r"must be bool, not|, (str|list|dict)\)|takes (from )?1 ")(
        call, theirs
    )


def cut_off(call: Call, theirs: Run) -> bool:
    """Whether PyTorch refuses a number that fits when its fraction is cut off, or a tensor's."""
    fits = all(abs(number) < 1 for number in numbers(call))
    return says("cannot be converted to type")(call, theirs) and fits


def numbers(call: Call) -> list[int | float]:
    """The Python numbers among a call's arguments."""
    return [v for v in (*call.args, *call.kwargs.values()) if isinstance(v, int | float)]


def negative_data(call: Call) -> bool:
    """Whether a nested list or a NumPy array holds a negative number."""
    found = parts(call.first())
    arrays = [v for v in found if isinstance(v, np.ndarray) and v.dtype.kind in "if"]
    listed = [v for v in found if isinstance(v, int | float)]
    return any(number < 0 for number in listed) or any((x < 0).any() for x in arrays)


def odd_dtypes(call: Call) -> bool:
    """Whether dtypes differ, or are not float."""
    return len({x.dtype for x in call.arrays()}) > 1 or not call.arrays()[0].is_float


def unlike_rest(call: Call) -> bool:
    """Whether a small tensor is of another shape or dtype than its kin."""
    small = [x for x in call.arrays()[1:] if x.ndim < 2]
    return len({x.shape for x in small}) > 1 or odd_dtypes(call)


def too_many_indices(call: Call) -> bool:
    """Whether an index has two ellipses, or takes more dims than there are."""
    index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    taken = 0
    for part in index:
        array = part.values if isinstance(part, Array) else np.asarray(part)
        mask = array.dtype == bool and not isinstance(part, slice)
        taken += 0 if part is None or part is ... else array.ndim if mask else 1
    return sum(part is ... for part in index) > 1 or taken > call.args[0].ndim


def beyond(call: Call) -> bool:
    """Whether an index along a dim lies outside it."""
    x, index = call.arrays()[:2]
    dim = call.args[2] if len(call.args) > 2 else call.kwargs.get("dim")
    size = x.values.size if dim is None else x.shape[dim]
    return bool(((index.values >= size) | (index.values < -size)).any())


def wide_mask(call: Call, theirs: Run) -> bool:
    """Whether PyTorch counts the dims after a mask of several dims and an ellipsis wrong."""
    index = call.args[1] if len(call.args) > 1 and isinstance(call.args[1], tuple) else ()
    masks = [part.values if isinstance(part, Array) else part for part in index]
    wide = [m for m in masks if isinstance(m, np.ndarray) and m.dtype == bool and m.ndim > 1]
    told = theirs.error is None or says("(?i)dimension")(call, theirs)
    return bool(wide) and any(part is ... for part in index) and told


def dtypes(call: Call) -> set[str]:
    """The dtypes of a call's tensors, and those it names."""
    own = {x.dtype for x in call.arrays()}
    named = {v.name for v in (*call.args, *call.kwargs.values()) if hasattr(v, "name")}
    return own | named


def unlike_layer(call: Call) -> bool:
    """Whether a weight has one dim, a bias is one number for all, or the dtypes differ."""
    weight, *bias = call.arrays()[1:3]
    single = any(x.ndim == 0 or x.shape == (1,) for x in bias)
    return weight.ndim < 2 or single or len(dtypes(call)) > 1
