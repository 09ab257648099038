"""Time and memory of a first materialisation as the cohort grows, against its two floors.

    python -m benchmarks.scale --rows 10000 30000 100000 300000 1000000 --storage float16

Each runs in a process of its own whose address space is capped (--cap, as `ulimit -v` does, with
allocators that reserve no more of it than they use: see `LEAN`). The floors, measured in turn with
it: DuckDB merely decoding the embedding column, and writing as many bytes one after another.
Synthetic cohorts are written to --folder once (20 GB for the largest).
"""

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.materialise import cohort, scan, store
from benchmarks.turns import peak, take_turns

GB = 10**9
LEAN = {
    "ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": "268435456", "MALLOC_TRIM_THRESHOLD_": "1073741824",
}  # fmt: skip


def materialised(root: Path, options: argparse.Namespace) -> dict[str, float]:
    """Make the snapshot of a cohort that this machine has not seen."""
    limits = {"memory_limit": "1GB"}
    with store(root, keep=False, storage=options.storage, **limits) as (materialise, spec):
        resource.setrlimit(resource.RLIMIT_AS, (int(options.cap * GB), int(options.cap * GB)))
        return taken(lambda: materialise(spec))


def scanned(root: Path, options: argparse.Namespace) -> dict[str, float]:
    """Decode the embedding column, keep nothing."""
    import duckdb  # noqa: F401 - its import is not part of the scan

    return taken(lambda: scan(root))


def written(root: Path, options: argparse.Namespace) -> dict[str, float]:
    """Write as many bytes as the snapshot's embeddings have."""
    size = {"float32": 4}.get(options.storage, 2)
    left = int(root.name.split("-")[1].split("x")[0]) * options.dim * size
    block = np.random.default_rng(0).bytes(2**23)
    with tempfile.NamedTemporaryFile(dir=root.parent, buffering=0) as file:

        def write() -> None:
            nonlocal left
            while left > 0:
                left -= file.write(block[:left])

        return taken(write)


def taken(work: Callable[[], object]) -> dict[str, float]:
    """Return the seconds that some work takes, those of all cores, and the peak of memory."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {"seconds": seconds, "cpu": cpu, "peak": peak()}


WAYS = {"materialise": materialised, "scan": scanned, "write": written}


def main() -> None:
    """Measure each size, print the table and the slope."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    parser.add_argument("--dim", type=int, default=2560)
    parser.add_argument("--storage", default="float16")
    parser.add_argument("--cap", type=float, default=4.0, help="gigabytes of address space")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    roots = [options.folder.resolve() / f"cohort-{rows}x{options.dim}" for rows in options.rows]
    if options.way:
        print(json.dumps(WAYS[options.way](roots[0], options)))
        return
    report(
        options,
        [measured(root, rows, options) for root, rows in zip(roots, options.rows, strict=True)],
    )


def measured(root: Path, rows: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Write a cohort if it is not there; take turns."""
    cohort(root, rows, options.dim)
    arguments = [f"--rows={rows}", f"--dim={options.dim}", f"--storage={options.storage}",
                 f"--cap={options.cap}", f"--folder={options.folder}"]  # fmt: skip
    os.environ |= LEAN
    return take_turns("benchmarks.scale", list(WAYS), arguments, options.repeats)


def report(options: argparse.Namespace, found: list[dict[str, dict[str, float]]]) -> None:
    """Print the medians, their ratio to the floors, and the log-log slope."""
    from rich.console import Console
    from rich.table import Table

    title = f"x {options.dim}, {options.storage}, at most {options.cap:g} GB of address space"
    table = Table(
        "rows",
        "seconds (of all cores)",
        "scan",
        "write",
        "times both",
        "peak GB",
        "µs a row",
        title=title,
    )
    seconds = []
    for rows, ways in zip(options.rows, found, strict=True):
        seconds.append(ways["materialise"]["seconds"])
        ratios = [ways["materialise"][unit] / sum(ways[way][unit] for way in ("scan", "write"))
                  for unit in ("seconds", "cpu")]  # fmt: skip
        table.add_row(
            f"{rows:,}", *(f"{ways[way]['seconds']:.2f} ({ways[way]['cpu']:.2f})" for way in WAYS),
            "{:.2f} ({:.2f})".format(*ratios), f"{ways['materialise']['peak']:.2f}",
            f"{1e6 * seconds[-1] / rows:.1f}",
        )  # fmt: skip
    Console().print(table)
    if len(seconds) > 1:
        slope = np.polyfit(np.log(options.rows), np.log(seconds), 1)[0]
        print(f"log-log slope: {slope:.2f}")


if __name__ == "__main__":
    main()
