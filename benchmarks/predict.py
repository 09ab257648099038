"""Predicting a cohort against scanning its embeddings: rows/s, cores' seconds, peak memory.

    python -m benchmarks.predict                                  # 200,000 x 2560 doubles
    python -m benchmarks.predict --kind float
    python -m benchmarks.predict --rows 1000000 --cap 4 --repeats 1    # 20 GB in 4 GB

A random cohort, 2,200 tiles a slide, is written to --folder once. Ways have processes of their own:
DuckDB and pyarrow decode the column and use nothing of it (pyarrow in the threads and batches of
the prediction); the prediction is all of it, from reading the keys to the last partition, and,
apart, the part after the keys are joined. Ways take turns; medians. --cap is on the address space
of the prediction. --shuffled deals the tiles of all slides over all row groups.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from benchmarks.turns import peak, run, take_turns

GB = 10**9
SLIDE, GROUP, CLASSES = 2200, 4096, 7  # 1.1 million tiles of 500 slides
WAYS = ["duckdb", "pyarrow", "predict"]


class Clock:
    """Seconds, and those of all cores together, which neighbours on a machine disturb less."""

    def __init__(self) -> None:
        self.began = time.perf_counter(), time.process_time()

    def said(self) -> dict[str, float]:
        """Return what has gone by."""
        now = time.perf_counter(), time.process_time()
        return dict(zip(("seconds", "cores"), np.subtract(now, self.began).tolist(), strict=True))


def write(root: Path, options: argparse.Namespace) -> None:
    """Write the cohort if it is not there."""
    if (root / "tiles.parquet").exists():
        return
    (root / "embeddings").mkdir(parents=True, exist_ok=True)
    rng, rows, dim = np.random.default_rng(0), options.rows, options.dim
    number = np.arange(rows)
    names = [f"slide-{n:03d}" for n in number // SLIDE]
    keys = pa.table({"slide_id": names, "x": number % 256 * 256, "y": number // 256 * 256})
    order = rng.permutation(rows) if options.shuffled else number
    kind = np.float64 if options.kind == "double" else np.float32
    offsets = np.arange(GROUP + 1, dtype=np.int32) * dim
    for file, part in enumerate(np.array_split(order, 8)):
        with pq.ParquetWriter(
            root / "embeddings" / f"part-{file}.parquet",
            pa.schema([*keys.schema, ("embedding", pa.list_(pa.from_numpy_dtype(kind)))]),
            use_dictionary=["slide_id"],
        ) as writer:
            for start in range(0, len(part), GROUP):
                own = part[start : start + GROUP]
                values = pa.array(
                    rng.standard_normal((len(own), dim), np.float32).ravel().astype(kind)
                )
                lists = pa.ListArray.from_arrays(pa.array(offsets[: len(own) + 1]), values)
                writer.write_table(keys.take(pa.array(own)).append_column("embedding", lists))
    pq.write_table(keys, root / "tiles.parquet")


def duckdb_scan(root: Path, options: argparse.Namespace) -> dict[str, float]:
    """Decode the embedding column, keep nothing."""
    import duckdb

    files = [str(root / "embeddings" / "*.parquet")]
    duckdb.execute(f"set threads = {options.threads}")
    clock = Clock()
    duckdb.execute(
        "select sum(embedding[1] + embedding[-1]) from read_parquet($1)", files
    ).fetchone()
    return clock.said()


def pyarrow_scan(root: Path, options: argparse.Namespace) -> dict[str, float]:
    """The same with pyarrow, a row group a thread."""
    from featurestore.embeddings.batches import embedding_batches, row_groups
    from featurestore.io import parquet
    from train.inference.stream import BATCH_BYTES

    clock = Clock()
    with ThreadPoolExecutor(options.threads) as pool:
        work = row_groups(parquet.dataset(str(root / "embeddings")).filled)
        list(
            pool.map(
                lambda piece: sum(map(len, embedding_batches(piece, options.dim, BATCH_BYTES))),
                work,
            )
        )
    return clock.said()


def prediction(root: Path, options: argparse.Namespace) -> dict[str, float]:
    """Predict every tile with a linear head."""
    import torch
    from accelerate import Accelerator

    from featurestore import FeatureStore
    from featurestore.spec.store_spec import StoreSpec
    from train.config.schema import Config
    from train.inference.cohort import prediction_set
    from train.inference.stream import predict_cohort
    from train.models.checkpoint import ModelSpec, TrainedModel
    from train.runtime.processes import Processes
    from train.runtime.run import Run
    from train.tracking.tracker import NullTracker

    names = [f"class {number}" for number in range(CLASSES)]
    spec = ModelSpec("linear", 0, "none", options.dim, names, [1.0] * CLASSES)
    torch.manual_seed(0)
    model = TrainedModel(spec.build().eval().requires_grad_(False), spec)
    processes = Processes(Accelerator(cpu=True))
    with tempfile.TemporaryDirectory(dir=root.parent) as folder:
        if options.cap:
            cap = int(options.cap * GB)
            resource.setrlimit(resource.RLIMIT_AS, (cap, cap))
        out = Path(folder)
        config = Config(mode="predict", output=folder, threads=options.threads)
        run = Run(config, processes, Console(quiet=True), NullTracker(), out, out / "predictions")
        clock = Clock()
        spec = StoreSpec(
            predict_tiles=str(root / "tiles.parquet"), embeddings=str(root / "embeddings")
        )
        store = FeatureStore(spec, options.threads, "1GB" if options.cap else None)
        cohort = prediction_set(store, model.digest)
        joined = clock.said()
        predict_cohort(run, cohort, model)
        done = clock.said()
        written = sum(pq.read_metadata(f).num_rows for f in out.rglob("*.parquet"))
        assert written == options.rows
    return done | {f"streaming {key}": done[key] - joined[key] for key in done}


DOES = {"duckdb": duckdb_scan, "pyarrow": pyarrow_scan, "predict": prediction}


def main() -> None:
    """Take turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=2560)
    parser.add_argument("--kind", choices=["double", "float"], default="double")
    parser.add_argument("--shuffled", action="store_true")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--cap", type=float, default=0.0, help="address space in GB; 0: none")
    parser.add_argument("--folder", type=Path, default=Path("/tmp"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--way", choices=["write", *WAYS])
    options = parser.parse_args()
    order = "-shuffled" if options.shuffled else ""
    root = options.folder / f"predict-{options.kind}-{options.rows}x{options.dim}{order}"
    if options.way == "write":
        write(root, options)
        print("{}")
        return
    if options.way:
        print(json.dumps({**DOES[options.way](root, options), "peak": peak()}))
        return
    os.environ["MALLOC_ARENA_MAX"] = "2"  # more arenas reserve address space that nobody uses
    arguments = [
        f"--{name}={getattr(options, name)}"
        for name in ("rows", "dim", "kind", "threads", "cap", "folder")
    ] + ["--shuffled"] * options.shuffled
    run("benchmarks.predict", [*arguments, "--way", "write"])
    report(options, take_turns("benchmarks.predict", WAYS, arguments, options.repeats))


def report(options: argparse.Namespace, found: dict[str, dict[str, float]]) -> None:
    """Print the medians."""
    table = Table(
        "", "seconds", "rows/s", "of DuckDB's", "of pyarrow's", "cores' seconds", "of pyarrow's",
        "peak GB",
        title=f"{options.rows:,} x {options.dim} list<{options.kind}>, {options.threads} threads",
    )  # fmt: skip
    own = found["predict"]
    found["after the join"] = {
        "seconds": own["streaming seconds"], "cores": own["streaming cores"], "peak": own["peak"]
    }  # fmt: skip
    for way, took in found.items():
        seconds, cores = took["seconds"], took["cores"]
        table.add_row(
            way, f"{seconds:.2f}", f"{options.rows / seconds:,.0f}",
            f"{found['duckdb']['seconds'] / seconds:.0%}",
            f"{found['pyarrow']['seconds'] / seconds:.0%}",
            f"{cores:.2f}", f"{found['pyarrow']['cores'] / cores:.0%}", f"{took['peak']:.2f}",
        )  # fmt: skip
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
