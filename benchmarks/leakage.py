"""What leakage is worth: the digits, folds over scans against folds over writers.

    python -m benchmarks.leakage

Five folds each; the mean validation accuracy of the probe beside scikit-learn's class-balanced
logistic regression on the very same folds.
"""

import contextlib
import io
import os
import tempfile

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featurestore.snapshots.build import materialise
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


def main() -> None:
    """Print one row per strategy."""
    table = Table("folds over", "probe", "scikit-learn", title="mean validation accuracy")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for strategy, over in (("stratified", "scans"), ("stratified_group", "writers")):
            mine, theirs = np.mean([accuracies(strategy, fold) for fold in FOLDS], axis=0)
            table.add_row(f"{over} ({strategy})", f"{mine:.1%}", f"{theirs:.1%}")
        os.chdir("/")
    Console().print(table)


if __name__ == "__main__":
    main()
