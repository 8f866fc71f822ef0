"""Reverse-mode differentiation: values, ops, the backward pass, custom functions."""

from tinygrad_mnist.anomaly import detect_anomaly as detect_anomaly
from tinygrad_mnist.autograd.backward import RemovableHandle as RemovableHandle
from tinygrad_mnist.autograd.backward import backward as backward
from tinygrad_mnist.autograd.backward import grad as grad
from tinygrad_mnist.autograd.function import Context as Context
from tinygrad_mnist.autograd.function import Function as Function
from tinygrad_mnist.autograd.graph import Node as Node
from tinygrad_mnist.autograd.graph import enable_grad as enable_grad
from tinygrad_mnist.autograd.graph import is_grad_enabled as is_grad_enabled
from tinygrad_mnist.autograd.graph import no_grad as no_grad
from tinygrad_mnist.autograd.graph import set_grad_enabled as set_grad_enabled
