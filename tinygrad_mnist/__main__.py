"""``python -m tinygrad_mnist``."""

import sys

if __name__ == "__main__":
    try:
        # in here, as the import takes long enough for a Ctrl-C
        from tinygrad_mnist.cli import main

        code = main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)
