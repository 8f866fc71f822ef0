"""Helpers around training that are not layers: ``utils.data``."""
