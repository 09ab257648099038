"""The training tiles of one fold as a float32 matrix: this store against what people write.

    pip install -e '.[bench]' && python -m benchmarks.materialise --rows 100000 --dim 2560

Each way runs in a process of its own, in turns; the tables show medians. A synthetic cohort is
written to --folder once (2 GB at these sizes), and read once before anything is timed.

- store, first use: contract, views, folds, guard, snapshot, then the fold's rows in memory.
- store, later use: the snapshot is there. `open` is what is left of all that comes before the rows.
- store, another threshold: the embeddings are there, the views are not: median of ten in a row.
- pyarrow: reads everything, `Table.join` with the keys, `take`, convert.
- pyarrow, careful: joins the keys alone, then goes through the embeddings batch by batch.
- datasets: Hugging Face `load_dataset` into its cache, rows by `select`, in Arrow format.
- DuckDB scan: decodes the embedding column and keeps nothing of it: the floor.

The rivals are given the keys of the fold; the store works them out. Gigabytes are the peak of the
whole process, mapped files counted in.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.turns import peak, take_turns
from featurestore.spec.store_spec import StoreSpec

FOLD = 0
KEYS = ["slide_id", "x", "y"]
Timed = dict[str, float]


def first(root: Path) -> Timed:
    """Make the snapshot of a cohort that this machine has not seen."""
    with store(root, keep=False) as (materialise, spec):
        start = time.perf_counter()
        made = materialise(spec)
        written = time.perf_counter()
        return took(start, gathered(made), open=written - start)


def later(root: Path) -> Timed:
    """Open the snapshot that is there."""
    with store(root) as (materialise, spec):
        start = time.perf_counter()
        made = materialise(spec)
        opened = time.perf_counter()
        return took(start, gathered(made), open=opened - start)


def threshold(root: Path) -> Timed:
    """Sweep a threshold over ten values."""
    with store(root) as (materialise, spec):
        seconds, fresh = [], 1e-6 * (time.time() % 1000)  # values that no earlier run used
        for step in range(10):
            start = time.perf_counter()
            chosen = {**spec.thresholds, "Fat": step / 20 + fresh}
            made = materialise(replace(spec, thresholds=chosen))
            seconds.append(time.perf_counter() - start)
        typical = float(np.median(seconds))
        start = time.perf_counter()
        matrix = gathered(made)
        return {**took(start, matrix), "seconds": typical, "open": typical}


def gathered(made) -> np.ndarray:
    """Return the rows of the training tiles."""
    tiles = made.fit_set(FOLD)
    rows = tiles.keys["row"].to_numpy()[np.asarray(tiles.keys["split"]) == "train"]
    return tiles.matrix.read_rows(rows)


def arrow(root: Path) -> Timed:
    """Read everything, `Table.join` the keys, gather the rows, convert."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    train = wanted(root)
    start = time.perf_counter()
    embeddings = ds.dataset(root / "embeddings").to_table()
    numbered = embeddings.select(KEYS).append_column("row", pa.array(np.arange(len(embeddings))))
    rows = train.join(numbered, KEYS, join_type="inner").sort_by([(k, "ascending") for k in KEYS])
    vectors = embeddings["embedding"].take(rows["row"])
    blocks = [chunk.flatten().to_numpy().astype(np.float32) for chunk in vectors.chunks]
    return took(start, np.concatenate(blocks).reshape(len(rows), -1))


def careful(root: Path) -> Timed:
    """Join the keys alone; then copy each batch's rows to where they belong."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    train = wanted(root)
    start = time.perf_counter()
    data = ds.dataset(root / "embeddings")
    keys = data.to_table(KEYS)
    numbered = keys.append_column("row", pa.array(np.arange(len(keys))))
    rows = train.join(numbered, KEYS, join_type="inner").sort_by([(k, "ascending") for k in KEYS])
    place = np.full(len(keys), -1)
    place[rows["row"].to_numpy()] = np.arange(len(rows))
    matrix, at = None, 0
    for batch in data.to_batches(["embedding"], batch_size=1024):
        block = batch.column(0).flatten().to_numpy().reshape(len(batch), -1)
        if matrix is None:
            matrix = np.empty((len(rows), block.shape[1]), np.float32)
        own = place[at : at + len(batch)]
        matrix[own[own >= 0]] = block[own >= 0]
        at += len(batch)
    return took(start, matrix)


def huggingface(root: Path) -> Timed:
    """Load into the library's cache, select the rows, take them as Arrow."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    import pyarrow as pa
    from datasets import load_dataset

    train = wanted(root)
    files = sorted(map(str, (root / "embeddings").iterdir()))
    with tempfile.TemporaryDirectory(dir=root.parent) as cache:
        start = time.perf_counter()
        data = load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
        keys = data.select_columns(KEYS).with_format("arrow")[:]
        numbered = keys.append_column("row", pa.array(np.arange(len(keys))))
        rows = train.join(numbered, KEYS).sort_by([(k, "ascending") for k in KEYS])
        chosen = data.select_columns("embedding").select(rows["row"].to_numpy())
        blocks = [
            column.flatten().to_numpy().astype(np.float32)
            for batch in chosen.with_format("arrow").iter(4096)
            for column in batch["embedding"].chunks
        ]
        return took(start, np.concatenate(blocks).reshape(len(rows), -1))


def scan(root: Path) -> Timed:
    """Decode the embedding column, keep nothing."""
    import duckdb

    start = time.perf_counter()
    query = "select sum(embedding[1] + embedding[-1]) from read_parquet($1)"
    duckdb.execute(query, [str(root / "embeddings" / "*.parquet")]).fetchone()
    return took(start, np.zeros((1, 1), np.float32))


WAYS: dict[str, tuple[str, Callable[[Path], Timed]]] = {
    "first": ("store, first use", first),
    "later": ("store, later use", later),
    "threshold": ("store, another threshold", threshold),
    "arrow": ("pyarrow, join and take", arrow),
    "careful": ("pyarrow, careful", careful),
    "datasets": ("Hugging Face datasets", huggingface),
    "scan": ("DuckDB scan (floor)", scan),
}
SAME = ["first", "later", "arrow", "careful", "datasets"]  # rows, in the same order


def took(start: float, matrix: np.ndarray, **more: float) -> Timed:
    """Return the figures of a way that ends now."""
    seconds = time.perf_counter() - start
    check = float(matrix[:: max(1, len(matrix) // 997)].sum(dtype=np.float64))
    return {"seconds": seconds, "open": 0.0, "check": check, "peak": peak()} | more


def wanted(root: Path):
    """Return the keys of the fold's training tiles, given to the rivals for free."""
    import pyarrow.parquet as pq

    return pq.read_table(root / "train.parquet")


@contextmanager
def store(
    root: Path, keep: bool = True, storage: str = "float32", **limits: str
) -> Iterator[tuple[Callable, StoreSpec]]:
    """Work beside the cohort's snapshots, or in an empty folder; imports are not timed."""
    import sklearn.model_selection  # noqa: F401 - the folds' first use would import it

    from featurestore import FeatureStore
    from featurestore.examples import TISSUES, uris
    from featurestore.snapshots.build import materialise

    warnings.simplefilter("ignore")  # a hundredth of the tiles has no embedding
    spec = StoreSpec(
        **{name: uri for name, uri in uris(root).items() if name != "test_tiles"},
        class_indices={name: index for index, name in enumerate(TISSUES)},
        thresholds=dict.fromkeys(TISSUES, 0.0),
        tissue_prop_min=0.0,
        storage=storage,
    )
    here, folder = Path.cwd(), root if keep else Path(tempfile.mkdtemp(dir=root.parent))
    os.chdir(folder)
    try:
        yield lambda chosen: materialise(FeatureStore(chosen, **limits)), spec
    finally:
        os.chdir(here)
        if not keep:
            shutil.rmtree(folder)


def cohort(root: Path, rows: int, dim: int) -> None:
    """Write the cohort if it is not there."""
    from featurestore.examples import SyntheticConfig, write_synthetic
    from featurestore.io.atomic import fresh_folder

    if not root.exists():
        with fresh_folder(root) as folder:
            write_synthetic(
                folder,
                SyntheticConfig(rows=rows, dim=dim, slides=200, mixed=0, empty=0, held_out=0),
            )


def prepare(root: Path, rows: int, dim: int) -> None:
    """Write the cohort and its snapshot, and the keys of the fold for the rivals."""
    import pyarrow.parquet as pq

    cohort(root, rows, dim)
    with store(root) as (materialise, spec):
        keys = materialise(spec).fit_set(FOLD).keys
    train = keys.filter(np.asarray(keys["split"]) == "train").select(KEYS)
    pq.write_table(train, root / "train.parquet")
    scan(root)


def main() -> None:
    """Take turns, print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=2560)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    root = options.folder.resolve() / f"cohort-{options.rows}x{options.dim}"
    if options.way:
        print(json.dumps(WAYS[options.way][1](root)))
        return
    prepare(root, options.rows, options.dim)
    arguments = [f"--rows={options.rows}", f"--dim={options.dim}", f"--folder={options.folder}"]
    report(take_turns("benchmarks.materialise", list(WAYS), arguments, options.repeats))


def report(middle: dict[str, dict[str, float]]) -> None:
    """Print the medians."""
    from rich.console import Console
    from rich.table import Table

    checks = [middle[way]["check"] for way in SAME]
    assert max(checks) - min(checks) < 1, "not the same rows"
    base = middle["first"]["seconds"]
    table = Table(
        "", "seconds", "of it open", "times first use", "peak GB", title="one fold, float32"
    )
    for way, (name, _) in WAYS.items():
        own = middle[way]
        table.add_row(
            name, f"{own['seconds']:.2f}", f"{own['open']:.2f}" if own["open"] else "",
            f"{own['seconds'] / base:.2f}", f"{own['peak']:.2f}",
        )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
