"""The CuPy backend without a GPU: its CUDA kernels on a CPU, on arrays as strict as a card's.

``load()`` gives the backend, ``transfers()`` says what crosses and what waits, ``machine`` is what
can be set: the devices, their memory, the order in which blocks and threads run.
"""

from cuda_on_cpu.modules import installed, load, module
from cuda_on_cpu.runtime import machine, transfers

__all__ = ["installed", "load", "machine", "module", "transfers"]
