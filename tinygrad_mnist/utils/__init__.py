"""Helpers around training that are not layers."""

from tinygrad_mnist.utils import data

__all__ = ["data"]
