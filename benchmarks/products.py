"""Products of embeddings with few columns, by every kernel there is, on the processor at hand.

    OMP_NUM_THREADS=1 python -m benchmarks.products

Milliseconds of processor time for a block of 1,024 x 2560: forward (weights of heads) and backward
(their residuals, while the block may still be in the cache), for one head, five and forty. Every
block is another piece of a matrix that no cache holds. The kernel that `train.engine.matmul` takes
here is marked; minima of the blocks, in turns.
"""

import argparse
import time

import torch
from rich.console import Console
from rich.table import Table

from train.engine.matmul import KERNELS, kernel_of

ROWS, CLASSES = 1024, 7


def main() -> None:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dim", type=int, default=2560)
    parser.add_argument("--blocks", type=int, default=40)
    options = parser.parse_args()
    blocks = torch.randn((options.blocks, ROWS, options.dim))
    capability, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    table = Table("columns", *KERNELS, title=f"ms a block; {capability}, {threads} threads")
    for columns in (CLASSES, 5 * CLASSES, 40 * CLASSES):
        weights, residuals = torch.randn(columns, options.dim), torch.randn(columns, ROWS)
        seconds = {(name, way): float("inf") for name in KERNELS for way in ("forward", "backward")}
        for block in blocks:
            for name, kernel in KERNELS.items():
                ways = {"forward": (weights, block), "backward": (residuals, block.T)}
                for way, arguments in ways.items():
                    start = time.process_time()
                    kernel(*arguments)
                    taken = time.process_time() - start
                    seconds[name, way] = min(seconds[name, way], taken)
        for way, right in (("forward", blocks[0]), ("backward", blocks[0].T)):
            taken_kernel = kernel_of(columns, right)
            cells = [
                f"{seconds[name, way] * 1e3:.2f}{' *' if name == taken_kernel else ''}"
                for name in KERNELS
            ]
            table.add_row(f"{columns}, {way}", *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
