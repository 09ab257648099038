"""What MLflow knows of a run and its model: datasets, figures, tags, description."""

import hashlib
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import TABLES
from mlflow.exceptions import MlflowException
from refused import arguments

from featurestore.errors import ArtifactError
from featurestore.io.uris import local_path
from train import probe, replay
from train.models import checkpoint
from train.tracking import datasets, mlflow_tracker, model_folder, registered_models
from train.tracking.mlflow_tracker import MlflowTracker
from train.tracking.runs import load_run

MODEL = "tissue-probe"


def without_graph(path: Path, described: Any, _: Any, file: Path) -> None:
    """Write the folder of a model without the graph, which takes seconds."""
    (path / "extra_files").mkdir(parents=True)
    shutil.copy(file, path / "extra_files")
    described.save(str(path / "MLmodel"))


@pytest.fixture
def recorded(
    artifacts: TABLES, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> mlflow.MlflowClient:
    """Return the client of a server with a fit, and a test of its model on held-out tiles."""
    monkeypatch.setattr(model_folder, "write", without_graph)
    named = artifacts()
    held_out = tmp_path / "in" / "held_out.parquet"
    tiles = pq.read_table(named["data.tiles"]).drop_columns(["fold"])
    slides = pa.array([f"t{n // 3}" for n in range(12)])
    pq.write_table(tiles.set_column(0, "slide_id", slides), held_out)
    vectors = pq.read_table(named["data.embeddings"]).set_column(0, "slide_id", slides)
    pq.write_table(vectors, tmp_path / "in" / "test_vectors.parquet")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    argv = arguments(named, f"tracking.uri={uri}")
    assert probe.main([*argv, "fold=1", "tracking.onnx=true"]) == 0
    test = [
        f"data.test_tiles={held_out}",
        f"data.test_embeddings={tmp_path}/in/test_vectors.parquet",
    ]
    assert probe.main([*argv, *test, "mode=test", f"checkpoint=models:/{MODEL}/1"]) == 0
    mlflow.set_tracking_uri(uri)
    return mlflow.MlflowClient(uri)


@pytest.mark.slow
def test_runs_and_versions_are_found_by_what_they_are_about(
    recorded: mlflow.MlflowClient, tmp_path: Path
):
    """Their figures are few, and replay finds them all."""
    experiment = recorded.get_experiment_by_name("tissue-probe")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    tested, fit = recorded.search_runs([experiment.experiment_id])
    assert fit.info.run_name == "own stratified fold 1 adamw"
    assert tested.info.run_name == "test own tissue-probe version 1"

    # Tags, which the version has as well.
    version = recorded.get_model_version(MODEL, "1")
    tags = {name: fit.data.tags.get(name) for name in ("cohort", "strategy", "snapshot", "commit")}
    assert tags["cohort"] == "own"
    assert None not in tags.values()
    assert tags.items() <= version.tags.items()
    [run] = recorded.search_runs(
        [experiment.experiment_id], f"tags.snapshot = '{tags['snapshot']}' and tags.cohort = 'own'"
    )
    assert run.info.run_id == fit.info.run_id

    # The description has figures and command.
    accuracy = fit.data.metrics["best/validation/accuracy"]
    for text in (fit.data.tags["mlflow.note.content"], version.description):
        assert f"- Accuracy, validation: **{accuracy:.3f}**" in text
        assert fit.data.params["command"] in text
    assert "probabilities of 2 classes (Fat, Muscle)" in version.description

    # Digests are a text, and one digest of it a tag; without the text it is known that all is well.
    sums = f"sha256sums/{MODEL}-1.txt"
    text = mlflow.artifacts.load_text(f"runs:/{version.run_id}/{sums}")
    assert "extra_files/checkpoint.safetensors" in text
    assert len(version.tags["sha256sums"]) == 64
    Path(local_path(f"runs:/{version.run_id}/{sums}")).write_text("")
    assert registered_models.file_differences(f"models:/{MODEL}/1") == []

    # About thirty figures by themselves, with each class's; all of them in a table.
    assert len(fit.data.metrics) < 30
    every = load_run(fit.info.run_id).metrics
    assert fit.data.metrics.items() <= every.items()
    assert {"best/validation/auroc/Fat", "best/validation/kappa", "funnel/input"} <= set(every)
    assert replay.main([f"models:/{MODEL}/1"]) == 0

    # The model as ONNX, as it was asked for.
    graph = Path(local_path(f"runs:/{fit.info.run_id}/model.onnx"))
    assert fit.data.params["onnx_sha256"] == hashlib.sha256(graph.read_bytes()).hexdigest()
    saved = local_path(f"runs:/{fit.info.run_id}/{checkpoint.FILE}")
    trained = checkpoint.load(Path(saved))
    x = np.random.default_rng(0).normal(size=(5, trained.spec.dim)).astype(np.float32)
    [answer] = onnxruntime.InferenceSession(graph).run(None, {"embedding": x})
    np.testing.assert_allclose(answer, trained.network(torch.from_numpy(x)).numpy(), atol=1e-5)

    # Inputs load themselves.
    inputs = {each.dataset.name: each for each in fit.inputs.dataset_inputs}
    for name in ("tiles", "embeddings"):
        file = mlflow.data.get_source(inputs[name]).load()
        assert pq.read_table(file).equals(pq.read_table(tmp_path / "in" / f"{name}.parquet"))

    # The model is found by its figures on the tiles that it was tested on.
    order = {"field_name": "metrics.best/test/accuracy", "dataset_name": "test_tiles"}
    best = mlflow.search_logged_models(
        [experiment.experiment_id], "metrics.`best/test/accuracy` >= 0",
        datasets=[{"dataset_name": "test_tiles"}], order_by=[order], output_format="list",
    )[0]  # fmt: skip
    assert best.model_uri == version.source
    by_dataset = {(each.key, each.dataset_name): each.value for each in best.metrics}
    expected = tested.data.metrics["best/test/accuracy"]
    assert by_dataset["best/test/accuracy", "test_tiles"] == expected
    assert by_dataset["best/validation/accuracy", "tiles"] == accuracy


@pytest.mark.parametrize(
    ("uri", "loadable"),
    [
        ("runs:/1f/tiles.parquet", "runs:/1f/tiles.parquet"),
        ("mlflow-artifacts:/1/tiles.parquet", "mlflow-artifacts:/1/tiles.parquet"),
        ("file:///data/tiles.parquet", "file:///data/tiles.parquet"),
        ("s3://lab/part-*/x.parquet", "s3://lab"),
        ("/data/embeddings/*.parquet", "/data/embeddings"),
        ("tiles.parquet", "{here}/tiles.parquet"),
        ("*.parquet", "{here}"),
    ],
)
def test_a_source_is_one_file_or_folder(uri: str, loadable: str, tmp_path: Path):
    assert datasets.source(uri).uri == loadable.format(here=tmp_path)


def test_a_source_of_several_places_or_an_unknown_scheme_says_which():
    for uri in ("a.parquet, b.parquet", "lakefs://repository/tiles"):
        assert datasets.source(uri).to_dict()["tags"] == {"uri": uri}


def test_system_metrics_without_psutil_are_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(mlflow_tracker, "find_spec", lambda _: None)
    with pytest.raises(ArtifactError, match=r"system_metrics=true needs psutil"):
        MlflowTracker(None, "fits", None, system_metrics=True)
    assert not list(Path().iterdir())


@pytest.mark.parametrize(("refusals", "calls"), [(1, 2), (9, 3)])
def test_a_dataset_that_another_run_adds_at_the_same_time_is_asked_for_again(
    refusals: int, calls: int, monkeypatch: pytest.MonkeyPatch
):
    asked = []

    def log_input(*_: object, **__: object) -> None:
        asked.append(1)
        if len(asked) <= refusals:
            raise MlflowException("(sqlite3.IntegrityError) UNIQUE constraint failed: datasets")

    monkeypatch.setattr(mlflow, "log_input", log_input)
    one = datasets.dataset("tiles", "tiles.parquet", "0" * 32)
    with nullcontext() if refusals < calls else pytest.raises(MlflowException):
        datasets.log(one, "training", {})
    assert len(asked) == calls
