"""Layers, losses, initialisation."""
