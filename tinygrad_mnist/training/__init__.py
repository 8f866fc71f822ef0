"""The loop that trains a classifier, its evaluation, its checkpoints, and model files."""

from tinygrad_mnist.serialization import ModelFileError
from tinygrad_mnist.training.checkpoints import Checkpoints
from tinygrad_mnist.training.loop import Epoch, History, Training, evaluate, fit, progress
from tinygrad_mnist.training.models import ModelInfo, load_model, save_model
from tinygrad_mnist.training.steps import Evaluation

__all__ = ["Checkpoints", "Epoch", "Evaluation", "History", "ModelFileError", "ModelInfo"]
__all__ += ["Training", "evaluate", "fit", "load_model", "progress", "save_model"]
