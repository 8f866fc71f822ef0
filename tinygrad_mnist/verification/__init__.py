"""Every op and some trainings on all usable backends: ``python -m tinygrad_mnist verify``.

``run.verify`` does it. Nothing here needs more than NumPy and the engine.
"""

from __future__ import annotations

from tinygrad_mnist.verification.steps import STEPS

# The files of ``cases``, which are loaded for a verification alone.
FAMILIES: tuple[str, ...]
FAMILIES = ("pointwise", "shapes", "reductions", "indexing", "products")
FAMILIES += ("images", "networks", "activations", "losses", "direct")
TRAININGS = (*STEPS, "train-cnn", "train-mlp")
