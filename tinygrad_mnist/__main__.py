"""``python -m tinygrad_mnist``."""

import sys

from tinygrad_mnist.cli import main

if __name__ == "__main__":
    sys.exit(main())
