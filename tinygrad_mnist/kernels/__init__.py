"""The contract: every kernel a backend has, each with a default written on its array namespace.

A kernel is ``kernel(*arrays, out=None, **static)``. Arrays (and Python numbers) are positional,
everything else is a keyword. Four kinds exist, and the decorators below say which is which:

- a plain kernel fills all of ``out`` (a tuple if it has several results), never reads it, and
  returns it; ``out`` overlaps no input;
- an *elementwise* kernel is a plain kernel whose ``out`` may be one of its inputs;
- a *view* returns an alias of its input and takes no ``out``;
- an *in-place* kernel ends in ``_``, writes the arguments it declares and returns nothing.

``linear``, ``conv2d`` and ``batch_norm`` take the name of an elementwise kernel as ``act``: it is
applied to their (first) result. ``conv2d`` also takes a ``pool``, and pools its result before that.
The bits are those of the kernels one after the other; ``jit`` folds them where it can.

Shapes and dtypes have been checked and made equal before a kernel is called (see ``ops``).
Indices into data are checked here, because a device can only do it without waiting for the host.
"""

from tinygrad_mnist.kernels.base import ACTIVATIONS, Act, Array, Pair, Shape, Step
from tinygrad_mnist.kernels.networks import GOLDEN, MIX_1, MIX_2
from tinygrad_mnist.kernels.optimizers import Optimizers
from tinygrad_mnist.kernels.pointwise import MANY
from tinygrad_mnist.kernels.products import Conv, Pool, convolved, lowest
from tinygrad_mnist.special import blocked

__all__ = ["Act", "Array", "Backend", "Conv", "Pair", "Pool", "Shape", "Step"]
__all__ += ["ACTIVATIONS", "GOLDEN", "MANY", "MIX_1", "MIX_2", "blocked", "convolved", "lowest"]


class Backend(Optimizers):
    """An array engine: a namespace ``xp`` and the kernels of all rooms.

    A subclass sets ``name``, ``xp`` and ``array_type`` and overrides the kernels it can do better,
    with the same signature; ``return super().kernel(...)`` serves what its own does not cover.
    """
