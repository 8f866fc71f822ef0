"""The array engines. Raw arrays only: no Tensor, no graph, no gradient in here.

Imported as ``tinygrad_mnist.backends``. Each module holds one subclass of
``tinygrad_mnist.kernels.Backend``, and nothing else of the package is known here.
"""
