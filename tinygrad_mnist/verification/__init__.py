"""Every op and some trainings on all usable backends: ``python -m tinygrad_mnist verify``."""
