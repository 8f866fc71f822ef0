"""How long ``import tinygrad_mnist`` takes beyond ``import numpy``, in fresh processes.

    python tests/benchmarks/import_time.py [--runs 20]

The two kinds of process take turns, so that a change in the machine's speed meets both. Each time
is a whole process: interpreter, imports, exit.
"""

import argparse
import statistics
import subprocess
import sys
import time


def seconds(statement: str) -> float:
    """The time of one fresh process that runs ``statement``."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20, metavar="N", help="default: 20")
    runs = parser.parse_args().runs
    statements = ("import numpy", "import tinygrad_mnist")
    for statement in statements:  # once unmeasured: bytecode, the file cache
        seconds(statement)
    pairs = [[seconds(statement) for statement in statements] for _ in range(runs)]
    for statement, times in zip(statements, zip(*pairs, strict=True), strict=True):
        print(f"{statement:<22} {statistics.median(times) * 1000:7.1f} ms")
    differences = [ours - theirs for theirs, ours in pairs]
    print(f"{'difference':<22} {statistics.median(differences) * 1000:7.1f} ms")


if __name__ == "__main__":
    main()
