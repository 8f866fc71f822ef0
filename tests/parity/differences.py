"""Where the package differs from PyTorch on purpose, and why. The tests assert each of these."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from parity.conditions import (
    When,
    at_kink,
    at_the_tip,
    at_threshold,
    beyond,
    cut_off,
    dtypes,
    empty,
    fine,
    for_its_truth,
    has_number,
    infinite,
    mixed,
    negative_data,
    numbers,
    odd_dtypes,
    recorded,
    says,
    shared,
    too_many_indices,
    unlike_layer,
    unlike_rest,
    unlike_shapes,
    unsigned_negative,
    wide_mask,
    without_result,
)
from parity.draws import Call, Op
from parity.sides import Run


@dataclass(frozen=True)
class Difference:
    """A way in which calls differ: all that it covers where ``always``, else some of them."""

    name: str
    ops: str  # a regular expression of the whole of the ops' names
    kind: str  # a regular expression of compare.KINDS
    when: When  # the call, and what PyTorch made of it
    reason: str
    always: bool = False

    def covers(self, op: Op, call: Call, theirs: Run) -> bool:
        return re.fullmatch(self.ops, op.name) is not None and self.when(call, theirs)


def stated(op: Op, call: Call, theirs: Run, kind: str | None) -> Difference | None:
    """The difference that is stated for a call: of the kind found, or one that must be there."""
    covering = [d for d in DIFFERENCES if d.covers(op, call, theirs)]
    meant = [d for d in covering if kind and re.fullmatch(d.kind, kind)]
    return next(iter(meant or [d for d in covering if d.always]), None)


# ---- the table

PRODUCTS = r".*matmul|mm|bmm|mv|addmm|baddbmm|torch\.einsum|F\.(linear|conv.*)"
LOSSES = r"F\.(l1|smooth_l1|huber|mse)_loss|F\.kl_div"
NUMBERS = (
    r"operator\.(?!getitem).*|Tensor\.(\w+_|where)|torch\.(full|full_like|arange|where)|F\.pad|scatter|"
    r"add|sub|mul|div|floor_divide|remainder|pow|bitwise_\w+|m..imum|clamp\w*|masked_fill"
)
IN_PLACE = r"operator\.(i\w+|setitem)|Tensor\.\w+_"

LEFT_OUT = {"alpha", "rounding_mode", "decimals", "copy"}

DIFFERENCES: list[Difference] = [
    # -- what is refused here
    Difference(
        "in-place-recorded",
        IN_PLACE,
        "refused",
        fine(recorded),
        "in place is for no_grad; what is recorded is written x = x + y",
        always=True,
    ),
    Difference(
        "fill-shared-memory",
        r"Tensor\.(fill|zero|masked_fill)_",
        "refused",
        fine(shared),
        "every op in place refuses a target whose elements share memory; PyTorch all but these",
        always=True,
    ),
    Difference(
        "unsigned-wrap",
        NUMBERS,
        "refused",
        fine(unsigned_negative),
        "a number that the dtype does not hold is an error, never another number",
    ),
    Difference(
        "unsigned-data",
        r"torch\.(as_)?tensor",
        "refused",
        fine(negative_data),
        "a number that the dtype does not hold is an error, never another number",
    ),
    Difference(
        "lenient-index",
        r"operator\.[gs]etitem",
        "refused",
        fine(too_many_indices),
        "PyTorch drops a second ellipsis and a full slice too many",
        always=True,
    ),
    Difference(
        "loss-broadcast",
        LOSSES,
        "refused",
        fine(unlike_shapes),
        "PyTorch warns that this is likely to be wrong, and computes it",
        always=True,
    ),
    Difference(
        "integer-negative-power",
        r"pow|operator\.i?pow",
        "refused",
        fine(lambda call: not any(x.is_float for x in call.arrays())),
        "the inverse of an integer is no integer; PyTorch makes it 0",
    ),
    Difference(
        "dtype-of-nothing",
        rf"{PRODUCTS}|torch\.randn_like|F\.(softmin|.*pool2d)",
        "refused",
        fine(lambda call: empty(call) and odd_dtypes(call)),
        "dtypes are checked where there are no elements too",
    ),
    Difference(
        "shape-of-nothing",
        r"gather|take_along_dim|scatter.*|roll|Tensor\.repeat|F\.(conv.*|batch_norm|nll_loss|scaled_dot_product_attention)",
        "refused",
        fine(empty),
        "shapes and dims are checked where there are no elements too",
    ),
    Difference(
        "index-into-nothing",
        r"operator\.getitem",
        "refused",
        lambda call, theirs: theirs.error is None and theirs.result.numel() == 0,
        "an index out of range is an error even where the result has no elements",
    ),
    Difference(
        "ragged-empty",
        r"torch\.(as_)?tensor",
        "refused",
        lambda call, theirs: theirs.error is None and theirs.result.numel() == 0,
        "nested lists that are ragged are refused, even those that hold nothing",
    ),
    Difference(
        "infinite-linspace",
        r"torch\.linspace",
        "refused",
        fine(lambda call: not all(np.isfinite(v) for v in numbers(call))),
        "between infinities there is nothing to space evenly; PyTorch returns NaN",
    ),
    Difference(
        "mT-of-0d",
        r"Tensor\.mT",
        "refused",
        fine(lambda call: call.arrays()[0].ndim == 0),
        "there are no two dims to swap",
        always=True,
    ),
    Difference(
        "index-modulo-size",
        "take_along_dim",
        "refused",
        fine(beyond),
        "an index out of range is an error, as in take and gather; PyTorch wraps it here",
        always=True,
    ),
    Difference(
        "bool-index",
        r"Tensor\.__index__",
        "refused",
        fine(lambda call: call.arrays()[0].dtype == "bool"),
        "a boolean is no position in a sequence, as in NumPy",
        always=True,
    ),
    Difference(
        "fractional-scale",
        "addmm|baddbmm",
        "refused",
        fine(lambda call: not any(x.is_float for x in call.arrays())),
        "integers times 0.5 are no integers; PyTorch cuts 0.5 to 0",
    ),
    Difference(
        "fractional-padding",
        r"F\.pad",
        "refused",
        fine(lambda call: not call.arrays()[0].is_float),
        "a number that the dtype does not hold is an error, never another number",
    ),
    Difference(
        "image-without-pixels",
        r"F\.conv_transpose2d",
        "refused",
        lambda call, theirs: theirs.error is None and theirs.result.numel() == 0,
        "as in conv2d; PyTorch's transposed convolution alone returns one",
    ),
    Difference(
        "integer-dropout",
        r"F\.dropout(2d)?",
        "refused",
        fine(lambda call: not call.arrays()[0].is_float),
        "scaled integers are no integers; PyTorch takes them where nothing is left",
    ),
    Difference(
        "unlike-bias",
        r"F\.(conv\w+|batch_norm)",
        "refused",
        fine(unlike_rest),
        "the bias is checked as all operands are",
    ),
    # -- what is accepted here
    Difference(
        "no-kernel",
        ".*",
        "accepted",
        says("not implemented for '"),
        "PyTorch has no kernel for the dtype",
    ),
    Difference(
        "integer-division-by-zero",
        r".*(floor_?div|mod|remainder|div).*",
        "accepted",
        says("ZeroDivisionError"),
        "gives 0: to find out would be to wait for the device",
    ),
    Difference(
        "keepdim-of-all",
        r"(torch\.)?(sum|mean|var|std|any|all|prod|norm|max|min)",
        "accepted",
        says("invalid combination of arguments.*keepdim|(sum|mean).. missing 1 required"),
        "keepdim needs no dim: all dims are kept with size 1",
    ),
    Difference(
        "bound-of-each-kind",
        "(Tensor\\.)?clamp_?",
        "accepted",
        says("invalid combination of arguments.*Tensor"),
        "one bound may be a tensor and the other a number",
    ),
    Difference(
        "number-for-tensor",
        r"maximum|minimum|logical_\w+",
        "accepted",
        says("must be Tensor, not (int|float|bool)"),
        "a number is broadcast as in all ops of two tensors",
    ),
    Difference(
        "position-of-bools",
        "argmax|argmin",
        "accepted",
        says("does not support bool input"),
        "False is less than True",
    ),
    Difference(
        "dims-as-they-come",
        r".*(flip|squeeze|prod|logsumexp)|torch\.full",
        "accepted",
        says(
            "not int$|not tuple|dim=tuple|NoneType|tuple\\)|logsumexp.. missing|"
            "broadcast shape \\[1"
        ),
        "one dim or size, several or None, wherever dims are taken",
    ),
    Difference(
        "bool-operand",
        r"sub|Tensor\.sub_|operator\.i?sub|F\.l1_loss",
        "accepted",
        says("Subtraction, the `-` operator, with a bool tensor"),
        "a boolean beside a number is 0 or 1, as in +; two booleans are refused",
    ),
    Difference(
        "any-integer-index",
        r"take(_along_dim)?|gather|scatter.*|index_select|F\.(one_hot|embedding|cross_entropy|nll_loss)",
        "accepted",
        says("LongTensor|long tensor|int64|scalar type Long|should be Long"),
        "an index may be of any integer dtype",
    ),
    Difference(
        "take-along-any",
        "take_along_dim",
        "accepted",
        says(r"no dimensions|view size is not|index -\d+ is out"),
        "of one element, of views, and with indices counted from the end",
    ),
    Difference(
        "format-of-one-element",
        r"builtins\.format",
        "accepted",
        says("unsupported format string"),
        "one element is formatted as its number, whatever its dims and gradients",
    ),
    Difference(
        "unread-values",
        r"F\.binary_cross_entropy",
        "accepted",
        says("should be between 0 and 1"),
        "gives NaN: to find out would be to wait for the device",
    ),
    Difference(
        "flag-by-truth",
        r"max|min|(torch\.)?prod|logsumexp|arg\w+|sort|topk|nonzero|F\.(avg_pool2d|batch_norm|dropout(2d)?)",
        "accepted",
        for_its_truth,
        "a flag is taken for its truth, as in Python",
    ),
    Difference(
        "dtype-by-position",
        r"torch\.as_tensor",
        "accepted",
        says("takes 1 positional argument but 2 were given"),
        "as_tensor(data, dtype), as PyTorch's documentation has it",
    ),
    Difference(
        "no-sizes",
        r"torch\.(zeros|ones|empty|rand|randn|permute|reshape|broadcast_to)|"
        r"Tensor\.(view|reshape|permute|expand|repeat|sum_to_size|broadcast_to)",
        "accepted",
        says(r"missing 1 required .*: .(size|dims|shape|repeats)|got \((|\w+=.*|Tensor)\)"),
        "f() is f(()): no sizes are those of a 0-d tensor",
    ),
    Difference(
        "step-from-0",
        r"torch\.arange",
        "accepted",
        says("invalid combination of arguments"),
        "arange(end, step=s) starts at 0",
    ),
    Difference(
        "fraction-cut",
        r"(Tensor\.)?masked_fill_?|operator\.setitem",
        "accepted",
        cut_off,
        "a fraction is cut off first: -0.5 is 0; and of a tensor the value is not read",
    ),
    Difference(
        "tracked-value-in-integers",
        "masked_fill",
        "accepted",
        says("Autograd not support dtype"),
        "integers have no gradient, whatever fills them",
    ),
    Difference(
        "norm-of-more-dims",
        "norm",
        "accepted",
        says("dim must be a 2-tuple"),
        "the root of the sum of squares over any dims",
    ),
    Difference(
        "pad-any-dims",
        r"F\.pad",
        "accepted",
        says("Padding size .* is not supported"),
        "reflect and replicate pad the last dims of any tensor",
    ),
    Difference(
        "mask-before-ellipsis",
        r"operator\.[gs]etitem",
        "accepted|shape",
        wide_mask,
        "a mask takes as many dims as it has; PyTorch forgets it where an ellipsis follows",
    ),
    Difference(
        "cast-by-assignment",
        r"operator\.setitem",
        "accepted",
        says("source and destination dtypes match"),
        "x[i] = v casts to the dtype of x under every index",
    ),
    Difference(
        "narrow-mask",
        r"F\.scaled_dot_product_attention",
        "accepted",
        says("Dimension (specified|out of range)"),
        "a mask is broadcast, whatever its dims",
    ),
    # -- other results
    Difference(
        "unsigned-comparison",
        r"(operator\.)?(eq|ne|lt|le|gt|ge)",
        "values",
        fine(unsigned_negative),
        "a negative number is less than any unsigned one; PyTorch wraps it first",
    ),
    Difference(
        "uint8-truth",
        "any|all",
        "dtype",
        fine(lambda call: call.arrays()[0].dtype == "uint8"),
        "the truth is boolean; PyTorch keeps uint8 for older code",
        always=True,
    ),
    Difference(
        "sign-of-NaN",
        "sign",
        "values",
        fine(infinite),
        "NaN propagates",
    ),
    Difference(
        "infinite-logit",
        r"F\.(binary_cross_entropy_with_logits|gelu)",
        "values",
        fine(infinite),
        "the limit, where PyTorch has 0 · ∞",
    ),
    Difference(
        "promoted-loss",
        r"F\.(huber_loss|binary_cross_entropy_with_logits)",
        "dtype",
        fine(mixed),
        "dtypes are promoted as in all ops; PyTorch takes the input's here",
    ),
    # -- other gradients
    Difference(
        "slope-at-NaN",
        r"(operator\.)?abs|F\.(l1_loss|smooth_l1_loss|leaky_relu|elu|hardtanh|relu6)|logsumexp|var|std|norm",
        "gradient",
        fine(infinite),
        "the result is not finite either",
    ),
    Difference(
        "all-dims-as-none",
        "var|std",
        "(second )?gradient",
        fine(lambda call: () in call.args or call.kwargs.get("dim") in ((), [])),
        "PyTorch reduces dim=() over all dims and differentiates it over none",
    ),
    Difference(
        "clamped-log",
        r"F\.binary_cross_entropy",
        "gradient",
        fine(lambda call: has_number(0)(call) or has_number(1)(call)),
        "the logarithm is clamped for the target's gradient as for the loss",
    ),
    Difference(
        "zero-target",
        r"F\.kl_div",
        "(second )?gradient",
        fine(has_number(0)),
        "0 · log 0 is 0 in the gradients too",
    ),
    Difference(
        "lost-bias",
        r"F\.(layer|batch|group)_norm",
        "second gradient",
        fine(lambda call: not call.arrays()[0].requires_grad),
        "PyTorch loses the dependence of the bias's gradient on the result's",
    ),
    Difference(
        "second-at-zero-power",
        r"pow|operator\.pow",
        "second gradient",
        fine(has_number(0)),
        "PyTorch masks the slope of x⁰ instead of differentiating it, and has NaN for 0 · log 0",
    ),
    Difference(
        "second-at-kink",
        r"F\.elu",
        "second gradient",
        fine(has_number(0)),
        "at the kink there is no second derivative",
    ),
    Difference(
        "second-at-bend",
        r"F\.huber_loss",
        "second gradient",
        fine(at_kink(1.0, "delta")),
        "at the bend there is no second derivative",
    ),
    Difference(
        "second-at-beta",
        r"F\.smooth_l1_loss",
        "second gradient",
        fine(at_kink(1.0, "beta")),
        "at the bend there is no second derivative",
    ),
    Difference(
        "second-at-threshold",
        r"F\.softplus",
        "second gradient",
        fine(at_threshold),
        "at the threshold there is no second derivative",
    ),
    Difference(
        "slope-at-the-tip",
        r"std|norm|F\.mish",
        "(second )?gradient",
        at_the_tip,
        "0 where a root has a tip or an exponential overflows, and PyTorch has 0 · ∞",
    ),
    Difference(
        "second-of-nothing",
        r"mean|var|std|F\..*loss|F\.kl_div|F\.(binary_)?cross_entropy.*",
        "second gradient",
        fine(empty),
        "the mean of nothing is NaN, by whatever it is differentiated",
    ),
    Difference(
        "slope-of-no-variance",
        "var|std",
        "(second )?gradient",
        without_result,
        "of too few elements the variance is NaN, and so are its derivatives",
    ),
    Difference(
        "empty-attention",
        r"F\.scaled_dot_product_attention",
        "shape",
        fine(empty),
        "leading dims are broadcast; PyTorch drops those of size 0",
    ),
    Difference(
        "dtype-of-empty-softmax",
        "(log_)?softmax",
        "dtype",
        fine(empty),
        "floats, as of the integers that PyTorch refuses",
    ),
    Difference(
        "mixed-outer-product",
        r"torch\.einsum",
        "refused",
        fine(lambda call: len(dtypes(call)) > 1 or "bool" in dtypes(call)),
        "dtypes are to be alike, and numbers, whether or not anything is summed",
    ),
    Difference(
        "part-of-shared-memory",
        r"operator\.setitem",
        "refused",
        fine(shared),
        "a target whose elements share memory is refused, whichever of them are written",
        always=True,
    ),
    Difference(
        "mean-of-integers",
        r"F\.(adaptive_)?avg_pool2d",
        "refused",
        fine(lambda call: not call.arrays()[0].is_float),
        "the mean of integers is no integer, as in mean()",
        always=True,
    ),
    Difference(
        "dtype-of-mixed-bounds",
        "clamp",
        "dtype",
        fine(mixed),
        "the bounds' dtypes are promoted as in all ops; PyTorch skips those of 0-d tensors",
    ),
    Difference(
        "inverse-of-no-booleans",
        "pow",
        "accepted",
        says("negative integer powers"),
        "of no elements there is none without an inverse",
    ),
    Difference(
        "keyword-left-out",
        r"add|sub|div|round|Tensor\.to",
        "refused",
        fine(lambda call: bool(LEFT_OUT & set(call.kwargs))),
        "one way to do a thing: x + 2 * y, (x / y).floor(), x.clone()",
        always=True,
    ),
    Difference(
        "whole-arange",
        r"torch\.arange",
        "refused|shape|values",
        fine(lambda call: any(isinstance(n, float) for n in numbers(call))),
        "an integer dtype takes the integer parts of the bounds, as PyTorch does for int64 alone",
    ),
    Difference(
        "integers-at-random",
        r"torch\.randn",
        "refused",
        lambda call, theirs: theirs.error is None and theirs.result.numel() == 0,
        "dtypes are checked where there are no elements too",
    ),
    Difference(
        "cast-before-the-sign",
        r"F\.softmin",
        "accepted",
        says("Negation"),
        "where a dtype is asked for, booleans are cast before their sign changes",
    ),
    Difference(
        "where-alone",
        r"torch\.where",
        "refused",
        fine(lambda call: len(call.args) + len(call.kwargs) == 1),
        "condition.nonzero(as_tuple=True) says what it does",
        always=True,
    ),
    Difference(
        "booleans-are-no-numbers",
        "sign|square",
        "refused",
        fine(lambda call: "bool" in dtypes(call)),
        "the sign and the square of a truth; cast it first",
        always=True,
    ),
    Difference(
        "narrowed-in-place",
        IN_PLACE,
        "refused",
        fine(lambda call: len(dtypes(call)) > 1),
        "integers that would be narrowed could wrap without a word",
    ),
    Difference(
        "slope-at-NaN",
        "max|min",
        "(second )?gradient",
        fine(infinite),
        "where the extreme is NaN, so is every slope, as with amax",
    ),
    Difference(
        "layer-of-one-row",
        r"F\.linear",
        "refused",
        fine(unlike_layer),
        "a weight is (out, in), a bias (out,), of one dtype: nothing is broadcast or promoted",
    ),
]
