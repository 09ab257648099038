"""Artifacts as the runs of a pipeline lay them out, a folder a split, named by run ids alone."""

import sys
from itertools import product
from pathlib import Path

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, launch, runs

NAMES = ["Nerve", "Blood", "Connective-Tissue", "Fat", "Epithelium", "Muscle", "Other"]
PROBE = str(ROOT / "train" / "probe.py")


def tiles(slides: list[str]) -> pa.Table:
    """Return seven tiles a slide, one of each class."""
    keys = list(product(slides, range(7)))
    number = np.array([n for _, n in keys])
    columns = {f"roi_coverage_{name}": (number == n) * 0.9 for n, name in enumerate(NAMES)}
    return pa.table({
        "slide_id": [slide for slide, _ in keys], "x": number * 224, "y": [0] * len(keys), **columns
    })  # fmt: skip


def logged(folder: str) -> str:
    """Log a folder as the artifacts of a run of its own; return the run's id."""
    with mlflow.start_run() as run:
        mlflow.log_artifacts(folder)
    return str(run.info.run_id)


@pytest.fixture
def pipeline(tmp_path: Path) -> list[str]:
    """Return run ids as arguments: of folds, of filtered tiles, and of embeddings with slides."""
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")  # MLflow keeps stores by name
    mlflow.set_experiment("pipeline")
    train, test = tiles(["a", "b", "c", "d"]), tiles(["e", "f"])
    for place in ("folds/kfold_split", "filtered/filter_tiles"):
        Path(place).mkdir(parents=True)
    folds = pa.array([n // 14 for n in range(28)])
    pq.write_table(train.append_column("fold", folds), "folds/kfold_split/kfold_tiles.parquet")
    pq.write_table(test, "filtered/filter_tiles/test_tiles.parquet")
    for split, table in (("train", train), ("test", test)):
        Path(f"embedded/{split}/tiles").mkdir(parents=True)
        vectors = np.eye(7)[table["x"].to_numpy() // 224].astype(np.float32)
        keys = table.select(["slide_id", "x", "y"])
        pq.write_table(
            keys.append_column("embedding", pa.array(vectors.tolist())),
            f"embedded/{split}/tiles/part-0.parquet",
        )
        ids = sorted(set(table["slide_id"].to_pylist()))
        extents = {f"tile_extent_{axis}": [224] * len(ids) for axis in "xy"}
        pq.write_table(pa.table({"id": ids, **extents}), f"embedded/{split}/slides.parquet")
    names = {"embeddings": "embedded", "folds": "folds", "tiles": "filtered"}
    return [f"data.runs.{name}={logged(folder)}" for name, folder in names.items()]


@pytest.mark.slow
def test_run_ids_alone_train_and_test(pipeline: list[str], tmp_path: Path):
    """Asked to be quiet, MLflow is so too: what came of the run is all that is printed."""
    argv = ["data=virchow2", "fold=all", "final=true", "max_epochs=1", "--quiet"]
    sampled = {"MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.1",
               "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "1"}  # fmt: skip
    done = launch(
        [sys.executable, PROBE, *argv, "tracking.system_metrics=true", *pipeline],
        tmp_path, **sampled,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    [run] = runs(tmp_path)
    printed = done.stdout.splitlines()
    assert [line for line in printed if line[0] not in "┏┃┡│└"] == [
        "oof", "settings", "test", "model: models:/tissue-probe/1",
        f"run: {run.info.run_id} (mlflow ui --backend-store-uri sqlite:///mlflow.db)",
    ]  # fmt: skip
    assert run.data.metrics["system/cpu_utilization_percentage"] >= 0
    assert run.data.metrics["system/system_memory_usage_megabytes"] > 0
    named = {i.dataset.name: {t.key: t.value for t in i.tags} for i in run.inputs.dataset_inputs}
    embeddings = pipeline[0].partition("=")[2]
    assert named["slides"]["uri"] == (
        f"runs:/{embeddings}/train/slides.parquet, runs:/{embeddings}/test/slides.parquet"
    )
    assert run.data.metrics["funnel/kept"] == 28
    assert {"best/oof/accuracy", "best/test/accuracy"} <= run.data.metrics.keys()
    tested = pq.read_table(mlflow.artifacts.download_artifacts(
        f"runs:/{run.info.run_id}/predictions.parquet"
    ))  # fmt: skip
    assert sorted(set(tested["slide_id"].to_pylist())) == ["e", "f"]
