"""Numba kernels: plain loops over NumPy arrays, one file per family."""
