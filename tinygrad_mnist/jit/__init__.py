"""A step recorded once and replayed: the same kernels without the Python around them.

``function`` decides between a plain call, a recorded one and a replay; ``recording`` watches the
door and makes a ``Program``; ``checking`` replays it against what was recorded; ``passes`` make it
faster.
"""

from tinygrad_mnist.jit.function import Jitted as Jitted
from tinygrad_mnist.jit.function import jit as jit
from tinygrad_mnist.jit.passes import PASSES as PASSES
