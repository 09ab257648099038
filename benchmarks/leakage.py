"""What leakage is worth, and what it costs to look for equal embeddings across the split.

    python -m benchmarks.leakage
    python -m benchmarks.leakage --rows 50000 100000 200000 --dim 64

The first takes the digits, folds over scans against folds over writers. Five folds each; the mean
validation accuracy of the probe beside scikit-learn's class-balanced logistic regression on the
very same folds. The second times the cells of embeddings, and the comparison of those that share
one: where all differ, where half are copies in other floats, and where all are one embedding.
"""

import argparse
import contextlib
import io
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featurestore.backend import engine
from featurestore.embeddings import near
from featurestore.embeddings.batches import as_vectors
from featurestore.embeddings.conversion import Conversion
from featurestore.embeddings.convert import Target
from featurestore.embeddings.folder import lease
from featurestore.io import parquet
from featurestore.io.progress import Rows
from featurestore.snapshots.build import materialise
from featurestore.snapshots.duplicates import duplicates
from train import probe
from train.config.load import load
from train.config.store import open_store

FOLDS = range(5)


def accuracies(strategy: str, fold: int) -> tuple[float, float]:
    """Return validation accuracy of the probe and of its peer on one fold."""
    argv = [f"fold={fold}", f"kfold_strategy={strategy}", "tracking.enabled=false", "output=out"]
    with contextlib.redirect_stdout(io.StringIO()):
        assert probe.main(argv) == 0
    table = pq.read_table("out/predictions.parquet")
    tiles = materialise(open_store(load(argv))).fit_set(fold)
    train = np.asarray(tiles.keys["split"]) == "train"
    x, y = tiles.matrix.read_rows(tiles.keys["row"].to_numpy()), tiles.keys["target"].to_numpy()
    peer = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=5000)
    ).fit(x[train], y[train])
    return (
        float(np.mean(table["pred"].to_numpy() == table["target"].to_numpy())),
        peer.score(x[~train], y[~train]),
    )


def cohort(rows: int, dim: int) -> dict[str, np.ndarray]:
    """Return embeddings by how many of them are alike."""
    distinct = np.random.default_rng(0).normal(size=(rows, dim)).astype(np.float32)
    copied = distinct.copy()
    copied[rows // 2 :] = copied[: rows // 2] * np.float32(1 + 2e-7)
    return {"distinct": distinct, "half copied": copied, "constant": np.ones_like(distinct)}


def search(embeddings: np.ndarray) -> tuple[float, float, int]:
    """Return the seconds for cells and for the comparison, and the tiles that were found."""
    rows, dim = embeddings.shape
    numbers = np.arange(rows)
    keys = pa.table({"slide_id": [f"s{n // 1000}" for n in numbers], "x": numbers, "y": numbers})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fates = keys.append_column("row", pa.array(numbers))
        fates = fates.append_column("fold", pa.array(numbers * 5 // rows))
        fates = fates.append_column("dropped_by", pa.nulls(rows, pa.string()))
        pq.write_table(fates, folder / "fates.parquet")
        table = keys.append_column("embedding", as_vectors(embeddings))
        pq.write_table(table, folder / "embeddings.parquet")
        dataset = parquet.dataset(str(folder / "embeddings.parquet"))
        conversion = Conversion(dataset, Target(dim, "float32"), {})
        with lease():
            conversion.run(Rows(None))
        start = time.perf_counter()
        for block in np.array_split(embeddings, max(1, embeddings.nbytes // 2**21)):
            near.cells(block, near.directions(dim))
        between = time.perf_counter()
        fates = engine.read_parquet(engine.connect(), [folder / "fates.parquet"])
        pairs = duplicates({"": fates}, {"": conversion.matrix})
        return between - start, time.perf_counter() - between, len(pairs)


def searched(sizes: list[int], dim: int) -> Table:
    """Return a row for each size and kind of cohort."""
    table = Table("rows", "embeddings", "cells", "comparison", "us a row", "found")
    for rows in sizes:
        for kind, embeddings in cohort(rows, dim).items():
            cells, compared, found = search(embeddings)
            table.add_row(
                f"{rows:,}", kind, f"{cells:.2f} s", f"{compared:.2f} s",
                f"{1e6 * (cells + compared) / rows:.1f}", f"{found:,}",
            )  # fmt: skip
    return table


def worth() -> Table:
    """Return one row per strategy."""
    table = Table("folds over", "probe", "scikit-learn", title="mean validation accuracy")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for strategy, over in (("stratified", "scans"), ("stratified_group", "writers")):
            mine, theirs = np.mean([accuracies(strategy, fold) for fold in FOLDS], axis=0)
            table.add_row(f"{over} ({strategy})", f"{mine:.1%}", f"{theirs:.1%}")
        os.chdir("/")
    return table


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", help="time the search of so many tiles")
    parser.add_argument("--dim", type=int, default=64)
    options = parser.parse_args()
    if options.rows:
        search(cohort(100, options.dim)["distinct"])  # imports
    Console().print(searched(options.rows, options.dim) if options.rows else worth())


if __name__ == "__main__":
    main()
