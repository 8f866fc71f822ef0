"""The CUDA kernels of the CuPy backend: their sources ``*.cu``, and what launches them."""
