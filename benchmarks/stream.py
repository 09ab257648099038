"""Epochs over embeddings that stay on disk: time and memory under a cap, against those in memory.

    python -m benchmarks.stream --rows 2000000 --cap 4      # 20 GB of float32 in 4 GB
    python -m benchmarks.stream --rows 200000 --cap 4       # fits: the same beside one in memory

A random matrix is written to --folder once. Each way runs in a process of its own, the streamed
ones and plain reading with their address space capped: one head, and 5 folds of 8 settings, AdamW,
batches of 1024, an epoch of training with its validation; reading the file's rows in the chunks of
an epoch, and nothing else. Ways take turns; medians. What is in memory is left out where it does
not fit twice.
"""

import argparse
import json
import os
import resource
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.engine import BATCH, CLASSES, FOLDS, epoch, make_heads
from benchmarks.turns import peak, run, take_turns
from featurestore.embeddings.layout import FILE, MANIFEST
from featurestore.embeddings.matrix import EmbeddingMatrix
from train.engine.sampler import chunk_order
from train.engine.shard import Shard
from train.engine.stream import Stream

GB = 10**9
SETTINGS = 8
WAYS = ["read", "one head, disk", "40 heads, disk", "one head, memory", "40 heads, memory"]


def matrix(folder: Path, rows: int, dim: int) -> EmbeddingMatrix:
    """Return a random matrix on disk, written if it is not there."""
    folder = folder / f"stream-{rows}x{dim}"
    if not (folder / MANIFEST).exists():
        folder.mkdir(parents=True, exist_ok=True)
        values = np.lib.format.open_memmap(
            folder / FILE, mode="w+", dtype=np.float32, shape=(rows, dim)
        )
        rng = torch.Generator().manual_seed(0)
        for start in range(0, rows, 65536):
            part = values[start : start + 65536]
            torch.randn(part.shape, generator=rng, out=torch.from_numpy(part))
        values.flush()
        shape = {"rows": rows, "dim": dim, "storage": "float32"}
        (folder / MANIFEST).write_text(json.dumps(shape))
    return EmbeddingMatrix.open(folder)


def make_shard(embeddings: EmbeddingMatrix, in_memory: bool) -> Shard:
    """Return all rows as tiles of five folds."""
    rows = embeddings.rows
    number = torch.arange(rows)
    stream = Stream(
        gather=lambda wanted, out: embeddings.read_rows(wanted, out=out),
        rows=np.arange(rows),
        dim=embeddings.dim,
        change=lambda x: x,
    )
    return Shard(
        x=stream[:] if in_memory else stream,
        target=torch.randint(CLASSES, (1, rows), generator=torch.Generator().manual_seed(0)),
        fold=(number * 7919 % FOLDS)[None],
        cluster=number // 1000,
        slide_rank=torch.full((rows,), 0.5),
        clusters=rows // 1000 + 1,
        rows=rows,
    )


def measured(options: argparse.Namespace) -> dict[str, float]:
    """Take one way."""
    embeddings = matrix(options.folder, options.rows, options.dim)
    if options.way == "write":
        return {}
    in_memory = options.way.endswith("memory")
    if not in_memory:
        cap = int(options.cap * GB)
        resource.setrlimit(resource.RLIMIT_AS, (cap, cap))
    shard = make_shard(embeddings, in_memory)
    if options.way == "read":
        start, size = time.perf_counter(), 0
        for turn, together in enumerate(chunk_order(shard.rows, BATCH, np.random.default_rng(0))):
            size += shard.x.read([slice(*span) for span in together], turn).nbytes
        return {"seconds": time.perf_counter() - start, "peak": peak()}
    folds, settings = (1, 1) if "one" in options.way else (FOLDS, SETTINGS)
    train, validate = epoch(shard, make_heads(folds, settings, torch.device("cpu")))
    start = time.perf_counter()
    train()
    validate()
    return {"seconds": time.perf_counter() - start, "peak": peak()}


def main() -> None:
    """Take turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--dim", type=int, default=2560)
    parser.add_argument("--cap", type=float, default=4.0, help="address space in GB")
    parser.add_argument("--folder", type=Path, default=Path("/tmp"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--way", choices=["write", *WAYS])
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measured(options)))
        return
    os.environ["MALLOC_ARENA_MAX"] = "2"  # more arenas reserve address space that nobody uses
    size = options.rows * options.dim * 4
    fits = size * 2 < psutil.virtual_memory().total
    ways = [way for way in WAYS if fits or not way.endswith("memory")]
    shape = ["--rows", str(options.rows), "--dim", str(options.dim), "--cap", str(options.cap),
             "--folder", str(options.folder)]  # fmt: skip
    run("benchmarks.stream", [*shape, "--way", "write"])  # elsewhere: a peak outlives a fork
    medians = take_turns("benchmarks.stream", ways, shape, options.repeats)
    title = f"{options.rows:,} x {options.dim}, {size / GB:.1f} GB; cap {options.cap:g} GB"
    table = Table("", "seconds", "rows/s", "GB/s", "peak GB", title=title)
    for way, figures in medians.items():
        rate = options.rows / figures["seconds"]
        table.add_row(
            way, f"{figures['seconds']:.1f}", f"{rate:,.0f}", f"{rate * options.dim * 4 / GB:.2f}",
            f"{figures['peak']:.1f}",
        )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
