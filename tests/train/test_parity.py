"""The probe against scikit-learn on the same folds: digits, breast cancer, wine."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from sklearn import datasets
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from train import probe

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("digits_made")]


def peer(balanced: bool) -> object:
    weight = "balanced" if balanced else None
    return make_pipeline(StandardScaler(), LogisticRegression(class_weight=weight, max_iter=5000))


def write(folder: Path, x: np.ndarray, y: np.ndarray, fold: np.ndarray, slide: np.ndarray) -> None:
    """Write a classification problem as artifacts with its folds in them."""
    names = [f"c{label}" for label in np.unique(y)]
    columns = {"slide_id": [f"s{n:03d}" for n in slide], "x": np.arange(len(y)), "y": 0 * y}
    vectors = pa.table(columns).append_column("embedding", pa.array(list(x.astype(float))))
    pq.write_table(vectors, folder / "embeddings.parquet")
    shares = {f"roi_coverage_{n}": (y == i).astype(float) for i, n in enumerate(names)}
    pq.write_table(pa.table({**columns, **shares, "fold": fold}), folder / "tiles.parquet")
    config = {
        "data": {
            "name": "parity",
            "tiles": str(folder / "tiles.parquet"),
            "embeddings": str(folder / "embeddings.parquet"),
        },
        "class_indices": {name: i for i, name in enumerate(names)},
        "thresholds": dict.fromkeys(names, 0.5),
        "normalize": "zscore",
        "learning_rate": 0.02,
        "batch_size": 128,
        "max_epochs": 60,
        "patience": 8,
        "tracking": {"enabled": False},
        "output": str(folder / "out"),
    }
    (folder / "own.yaml").write_text(yaml.safe_dump(config))
    (folder / "none.yaml").write_text("{}")


def ours(folder: Path, *more: str) -> list[float]:
    """Return the accuracy of each fold, one head a fold."""
    argv = [f"data={folder / 'own.yaml'}", f"classes={folder / 'none.yaml'}", "fold=all"]
    assert probe.main([*argv, *more]) == 0
    table = pq.read_table(folder / "out" / "oof_predictions.parquet")
    hits = np.equal(table["pred"], table["target"])
    return [hits[np.asarray(table["fold"]) == fold].mean() for fold in range(5)]


@pytest.mark.parametrize("name", ["breast_cancer", "wine"])
def test_pooled_accuracy_within_a_point_of_scikit_learn(name: str, tmp_path: Path):
    """StratifiedKFold(5, shuffle, seed 0), standardised; two tiles' grace where 1 % is less."""
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    fold = np.zeros(len(y), dtype=np.int64)
    theirs = 0.0
    split = StratifiedKFold(5, shuffle=True, random_state=0).split(x, y)
    for number, (train, held) in enumerate(split):
        fold[held] = number
        theirs += (peer(False).fit(x[train], y[train]).predict(x[held]) == y[held]).sum()
    write(tmp_path, x, y, fold, np.arange(len(y)) // 10)
    sizes = np.bincount(fold)
    pooled = np.average(ours(tmp_path), weights=sizes)
    assert abs(pooled - theirs / len(y)) <= max(0.01, 2 / len(y))


@pytest.mark.parametrize("strategy", ["stratified", "stratified_group"])
def test_what_leakage_is_worth_on_the_digits(strategy: str, tmp_path: Path):
    """All 1,797 scans, writers of 130: mean accuracy within a point of the balanced peer's.

    Of folds by tile the pooled accuracy too, within a point of that of the peer without weights.
    """
    x, y = datasets.load_digits(return_X_y=True)
    writer = np.arange(len(y)) // 130
    grouped = strategy == "stratified_group"
    splitter = (StratifiedGroupKFold if grouped else StratifiedKFold)(
        5, shuffle=True, random_state=0
    )
    fold, theirs, hits = np.zeros(len(y), dtype=np.int64), [], 0
    for number, (train, held) in enumerate(splitter.split(x, y, writer if grouped else None)):
        fold[held] = number
        theirs.append(peer(True).fit(x[train], y[train]).score(x[held], y[held]))
        hits += (peer(False).fit(x[train], y[train]).predict(x[held]) == y[held]).sum()
    write(tmp_path, x, y, fold, writer)
    mine = ours(tmp_path, f"kfold_strategy={strategy}")
    assert abs(np.mean(mine) - np.mean(theirs)) <= 0.01
    if not grouped:
        assert abs(np.average(mine, weights=np.bincount(fold)) - hits / len(y)) <= 0.01


@pytest.mark.parametrize("strategy", ["stratified", "stratified_group"])
def test_embedded_default_within_a_point_of_scikit_learn(strategy: str):
    """The 1,430 training scans of the default, on the folds that the store assigns."""
    from featurestore.snapshots.build import materialise
    from train.config.load import load
    from train.config.store import open_store

    mine, theirs = [], []
    for fold in range(5):
        argv = [f"fold={fold}", f"kfold_strategy={strategy}", "tracking.enabled=false", "output=o"]
        assert probe.main(argv) == 0
        table = pq.read_table("o/predictions.parquet")
        mine.append(np.mean(table["pred"].to_numpy() == table["target"].to_numpy()))
        tiles = materialise(open_store(load(argv))).fit_set(fold)
        train = np.asarray(tiles.keys["split"]) == "train"
        x, y = tiles.matrix.read_rows(tiles.keys["row"].to_numpy()), tiles.keys["target"].to_numpy()
        (x, held), (y, truth) = ((a[train], a[~train]) for a in (x, y))
        theirs.append(peer(True).fit(x, y).score(held, truth))
    assert abs(np.mean(mine) - np.mean(theirs)) <= 0.01
