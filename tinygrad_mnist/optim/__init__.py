"""Optimizers and schedules, named as in PyTorch."""

from tinygrad_mnist.optim import lr_scheduler
from tinygrad_mnist.optim.optimizer import SGD, Adam, Optimizer

__all__ = ["SGD", "Adam", "Optimizer", "lr_scheduler"]
