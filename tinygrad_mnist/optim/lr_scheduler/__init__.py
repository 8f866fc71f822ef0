"""Schedules: what sets the learning rates of an optimizer's groups from step to step.

The numbers are PyTorch's to the last bit, so most schedules go on from the rate as it is, and
several may act on one optimizer.
"""

from tinygrad_mnist.optim.lr_scheduler.base import LRScheduler as LRScheduler
from tinygrad_mnist.optim.lr_scheduler.factors import CosineAnnealingLR as CosineAnnealingLR
from tinygrad_mnist.optim.lr_scheduler.factors import ExponentialLR as ExponentialLR
from tinygrad_mnist.optim.lr_scheduler.factors import LambdaLR as LambdaLR
from tinygrad_mnist.optim.lr_scheduler.factors import LinearLR as LinearLR
from tinygrad_mnist.optim.lr_scheduler.factors import MultiStepLR as MultiStepLR
from tinygrad_mnist.optim.lr_scheduler.factors import StepLR as StepLR
from tinygrad_mnist.optim.lr_scheduler.one_cycle import OneCycleLR as OneCycleLR
from tinygrad_mnist.optim.lr_scheduler.plateau import ReduceLROnPlateau as ReduceLROnPlateau
from tinygrad_mnist.optim.lr_scheduler.sequential import SequentialLR as SequentialLR
