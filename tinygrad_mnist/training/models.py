"""Model files: a model's state, and what is needed to make the model and its inputs again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygrad_mnist import __version__, nn
from tinygrad_mnist.models import ARCHITECTURES
from tinygrad_mnist.serialization import ModelFileError, read, read_metadata, save

FORMAT = "tinygrad_mnist"
VERSION = "1"


@dataclass(frozen=True)
class ModelInfo:
    """What a model file says of its model."""

    architecture: str
    arguments: dict[str, Any]
    dataset: str
    mean: float
    std: float


def save_model(path: str | Path, model: nn.Module, info: ModelInfo) -> None:
    """Write the model's state and ``info`` as one safetensors file, whole or not at all.

    OSError where it cannot be written.
    """
    metadata = {
        "format": FORMAT,
        "made_by": f"tinygrad_mnist {__version__}",
        "version": VERSION,
        "architecture": info.architecture,
        "arguments": json.dumps(info.arguments),
        "dataset": info.dataset,
        "mean": repr(info.mean),
        "std": repr(info.std),
    }
    save(model.state_dict(), path, metadata)


def load_model(path: str | Path) -> tuple[nn.Module, ModelInfo]:
    """A model that ``save_model`` wrote, in evaluation mode, on the current backend.

    OSError where the file cannot be read; ModelFileError where it is no safetensors file, no model
    of this package, of an unknown architecture or version, or does not fit its architecture.
    """
    info = _info(path, read_metadata(path))  # before the tensors, which may be many
    state, _ = read(path)
    try:
        model = ARCHITECTURES[info.architecture](**info.arguments)
    except (ValueError, TypeError, ArithmeticError, MemoryError) as error:
        raise ModelFileError(
            f"{path}: its arguments {info.arguments} make no {info.architecture}: {error}; "
            "give a model.safetensors that 'train' wrote"
        ) from error
    try:
        model.load_state_dict(state)
    except (ValueError, TypeError) as error:
        raise ModelFileError(f"{path}: {error}") from error
    return model.eval(), info


def _info(path: str | Path, metadata: Mapping[str, str]) -> ModelInfo:
    if metadata.get("format") != FORMAT:
        raise ModelFileError(
            f"{path} is no model of this program: its metadata lack format={FORMAT!r}; "
            "give a model.safetensors that 'train' wrote"
        )
    if metadata.get("version") != VERSION:
        raise ModelFileError(
            f"{path} is of format version {metadata.get('version')!r}, expected {VERSION!r}"
        )
    if metadata.get("architecture") not in ARCHITECTURES:
        raise ModelFileError(
            f"{path} holds the architecture {metadata.get('architecture')!r}, "
            f"expected one of {', '.join(ARCHITECTURES)}"
        )
    try:
        info = ModelInfo(
            architecture=metadata["architecture"],
            arguments=dict(json.loads(metadata["arguments"])),
            dataset=metadata["dataset"],
            mean=float(metadata["mean"]),
            std=float(metadata["std"]),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ModelFileError(f"{path} has damaged metadata: {error!r}") from error
    if not all(isinstance(value, int) and value > 0 for value in info.arguments.values()):
        raise ModelFileError(
            f"{path} has damaged metadata: arguments {info.arguments}, expected whole numbers "
            "above 0"
        )
    if not (math.isfinite(info.mean) and math.isfinite(info.std) and info.std > 0):
        raise ModelFileError(
            f"{path} has damaged metadata: mean {info.mean} and std {info.std}, expected finite "
            "numbers, std above 0"
        )
    return info
