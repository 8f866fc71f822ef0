"""Optimizers and schedules, named as in PyTorch."""

from tinygrad_mnist.optim import lr_scheduler
from tinygrad_mnist.optim.adadelta import Adadelta
from tinygrad_mnist.optim.adagrad import Adagrad
from tinygrad_mnist.optim.adam import Adam, AdamW
from tinygrad_mnist.optim.optimizer import Optimizer
from tinygrad_mnist.optim.rmsprop import RMSprop
from tinygrad_mnist.optim.sgd import SGD

__all__ = ["SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop", "lr_scheduler"]
