"""Every op drawn at random and compared with PyTorch: values, gradients, errors.

An op is one line in the ``OPS`` of a ``calls_*`` module: its path in PyTorch, and a function that
draws a call from a ``Dice``. ``compare`` runs the call on both sides, ``differences`` states what
differs on purpose. Nothing here imports PyTorch: the test hands it in.
"""

from __future__ import annotations

from collections import Counter
from zlib import crc32

from parity import (
    calls_creation,
    calls_losses,
    calls_networks,
    calls_pointwise,
    calls_products,
    calls_reductions,
    calls_shapes,
    calls_tensors,
)
from parity.compare import KINDS
from parity.draws import Op

SEED = 2024
CASES = 100  # of each op; the slow test has twenty times as many

OPS: list[Op] = [
    *calls_creation.OPS,
    *calls_tensors.OPS,
    *calls_pointwise.OPS,
    *calls_reductions.OPS,
    *calls_shapes.OPS,
    *calls_products.OPS,
    *calls_networks.OPS,
    *calls_losses.OPS,
]

counts: Counter[str] = Counter()  # what the run compared, for the summary


def seed(op: Op, case: int) -> tuple[int, int, int]:
    """The seed of one case, which does not depend on the others."""
    return SEED, crc32(op.name.encode()), case


def summary() -> str:
    """What was compared in this run, in one line; empty where nothing was."""
    if not counts["cases"]:
        return ""
    kinds = [f"{kind} {counts[f'stated {kind}']}" for kind in KINDS if counts[f"stated {kind}"]]
    return (
        f"{counts['ops']} ops, {counts['cases']} calls: {counts['errors']} with an error on either "
        f"side, {counts['gradients']} with gradients, {counts['second gradients']} with second "
        f"gradients; {sum(counts[f'stated {kind}'] for kind in KINDS)} differ on purpose "
        f"({', '.join(kinds)}), {counts['unstated']} otherwise"
    )
