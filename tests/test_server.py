"""A real tracking server on loopback, with its artifact proxy, and hostile class names."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import ROOT, launch, mlflow_server

from featurestore import partitions

pytestmark = pytest.mark.slow
HOSTILE = ["Connective-Tissue", 'O\'Brien; drop "x" --', "Öl & Fett", "50 %"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URI of a server that ends with the tests."""
    home = tmp_path_factory.mktemp("server")
    with mlflow_server(home, "--artifacts-destination", str(home / "artifacts")) as uri:
        yield uri


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a configuration of 240 tiles, 12 slides, 6 patients; the last class is rare."""
    folder = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(0)
    number = np.arange(240)
    kind = np.where(number < 2, 3, number % 3)
    slide = number // 20
    tiles = {"slide_id": [f"s {n}" for n in slide], "x": number, "y": number * 0,
             "patient_id": [f"p{n % 6}" for n in slide]}  # fmt: skip
    for index, name in enumerate(HOSTILE):
        tiles[f"roi_coverage_{name}"] = np.where(kind == index, 0.9, 0.0)
    embedding = rng.normal(size=(240, 8)) + 3 * np.eye(4, 8)[kind]
    vectors = {key: tiles[key] for key in ("slide_id", "x", "y")}
    (folder / "embeddings").mkdir()
    pq.write_table(
        pa.table({**vectors, "embedding": list(embedding)}).slice(0, 230),
        folder / "embeddings" / "a.parquet",
    )
    pq.write_table(pa.table(tiles), folder / "kfold_tiles.parquet")
    unlabelled = pa.table({key: tiles[key] for key in ("slide_id", "x", "y")})
    pq.write_table(unlabelled, folder / "bare.parquet")
    (folder / "classes.yaml").write_text(
        yaml.safe_dump(
            {
                "class_indices": {name: i for i, name in enumerate(HOSTILE)},
                "thresholds": dict.fromkeys(HOSTILE, 0.5),
            }
        )
    )
    return folder


def test_fit_on_a_server_reading_its_artifacts(server: str, cohort: Path, tmp_path: Path):
    """Artifacts logged by run id, read back over HTTP, grouped by patient, a rare class dropped."""
    mlflow.set_tracking_uri(server)
    mlflow.set_experiment("cohort")
    with mlflow.start_run() as logged:
        mlflow.log_artifact(str(cohort / "kfold_tiles.parquet"))
        mlflow.log_artifacts(str(cohort / "embeddings"), "embeddings")
        root = mlflow.get_artifact_uri()
    assert root.startswith("mlflow-artifacts:/")
    common = [f"classes={cohort / 'classes.yaml'}", "data.name=hostile", "data.slides=null",
              "data=prov-gigapath", f"data.embeddings={root}/embeddings"]  # fmt: skip
    done = launch(
        ["accelerate", "launch", str(ROOT / "train" / "probe.py"), *common, "fold=1", "k=3",
         f"data.tiles=runs:/{logged.info.run_id}/kfold_tiles.parquet", "data.test_tiles=null",
         "kfold_strategy=stratified_group", "kfold_group=patient_id", "learning_rate=0.05",
         "max_epochs=20", "patience=5"],
        tmp_path, MLFLOW_TRACKING_URI=server,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "warning: Class '50 %' is in 1 of the 3 groups" in " ".join(done.stdout.split())
    assert not (tmp_path / "mlflow.db").exists()

    client = mlflow.MlflowClient(server)
    run = client.get_run(client.get_model_version("tissue-probe", "1").run_id)
    assert run.info.status == "FINISHED"
    scores = run.data.metrics
    assert (scores["funnel/input"], scores["funnel/rare_class"], scores["funnel/no_embedding"],
            scores["funnel/kept"]) == (240, 2, 10, 228)  # fmt: skip
    assert scores["leakage/shared_slides"] == scores["leakage/shared_patients"] == 0
    assert scores["class_weight/O.27Brien.3B.20drop.20.22x.22.20--"] > 0
    assert scores["best/validation/f1_macro"] > 0.9
    assert "best/validation/f1/50.20.25" not in scores  # absent: left out of the macro mean
    table = pq.read_table(client.download_artifacts(run.info.run_id, "predictions.parquet"))
    assert [f"prob_{name}" for name in HOSTILE] == table.column_names[5:]

    done = launch(
        [sys.executable, str(ROOT / "train" / "probe.py"), *common, "mode=predict",
         "checkpoint=models:/tissue-probe/1", f"data.predict_tiles={cohort / 'bare.parquet'}",
         "data.tiles=null", "data.test_tiles=null", "output=out"],
        tmp_path, MLFLOW_TRACKING_URI=server,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    bare = partitions.read(tmp_path / "out" / "predictions")
    assert len(bare) == 230  # every tile with an embedding, whatever the rules would say
    assert bare["target"].null_count == 230
    kind = np.where(np.arange(240) < 2, 3, np.arange(240) % 3)[bare["x"].to_numpy()]
    assert np.mean(bare["pred"].to_numpy() == kind) > 0.9
    experiment = client.get_experiment_by_name("tissue-probe").experiment_id
    (predicted,) = client.search_runs([experiment], "params.mode = 'predict'")
    logged = client.download_artifacts(predicted.info.run_id, "predictions")
    assert partitions.read(Path(logged)).equals(bare)

    asked = launch(
        [str(Path(sys.executable).parent / "featurestore"), "--tracking-uri", server, "--config",
         f"runs:/{run.info.run_id}/config.yaml", "sql", "--format", "json",
         "select count(*) as n from fates where dropped_by = 'rare_class'"],
        tmp_path,
    )  # fmt: skip
    assert json.loads(asked.stdout) == [{"n": 2}], asked.stderr
