"""Registered models as commands load them: by the version that a name means, and as registered."""

from pathlib import Path

import mlflow
import pytest
from conftest import Server
from versions import BETTER, DATA, MODEL, WORSE, register, stored, write_data

from featurestore.errors import ArtifactError, FeatureStoreWarning
from featurestore.io import mlflow_artifacts
from train import export, probe, replay
from train.models import checkpoint
from train.predictions import partitions
from train.tracking import registered_models, version_files
from train.tracking.mlflow_tracker import MlflowTracker


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """Return a registry without a model; data lie in the working folder."""
    write_data()
    return mlflow_artifacts.use_tracking(f"sqlite:///{tmp_path / 'mlflow.db'}")


def harm(number: str) -> None:
    """Change a weight in the files of a version, as nobody should."""
    file = stored(number) / "extra_files" / checkpoint.FILE
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def applied(mode: str, model: str, uri: str, *more: str) -> int:
    """Apply a model to the data of `register`, whose configuration lies in the working folder."""
    named = [f"data.{name}={Path(name).resolve()}.parquet" for name in DATA]
    return probe.main(["data=own.yaml", "classes=none.yaml", f"tracking.uri={uri}", *named,
                       f"mode={mode}", f"checkpoint={model}", *more])  # fmt: skip


def last(uri: str) -> mlflow.entities.Run:
    """Return the run of the last command."""
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("tissue-probe")
    assert experiment
    order = ["attributes.start_time DESC"]
    return client.search_runs([experiment.experiment_id], order_by=order, max_results=1)[0]


@pytest.mark.slow
def test_a_run_records_the_version_that_an_alias_meant(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """In its parameters, configuration, page and predictions; a rollback is seen at once."""
    good, bad = register(BETTER), register(WORSE)
    client, champion = mlflow.MlflowClient(), f"models:/{MODEL}@champion"
    accuracy = {}
    for number in (good, bad, good):
        client.set_registered_model_alias(MODEL, "champion", number)
        assert applied("test", champion, uri) == 0
        run, version = last(uri), f"models:/{MODEL}/{number}"
        assert run.data.params["checkpoint"] == version
        assert f"checkpoint: {version}\n" in mlflow.artifacts.load_text(
            f"runs:/{run.info.run_id}/config.yaml"
        )
        assert version in mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/report.html")
        accuracy.setdefault(number, run.data.metrics["best/test/accuracy"])
        assert accuracy[number] == run.data.metrics["best/test/accuracy"]
    assert accuracy[good] > accuracy[bad]
    client.set_registered_model_alias(MODEL, "champion", bad)
    assert replay.main([run.info.run_id, f"tracking.uri={uri}"]) == 0  # of the version it used
    capsys.readouterr()
    assert applied("predict", champion, uri, "output=out", "data.predict_tiles=tiles.parquet") == 0
    recorded = partitions.recorded(tmp_path / "out" / partitions.FOLDER)
    assert recorded and recorded["model"] == f"models:/{MODEL}/{bad}"
    assert last(uri).data.params["checkpoint"] == f"models:/{MODEL}/{bad}"


@pytest.mark.slow
def test_files_that_are_not_as_registered_are_refused_by_every_command(
    uri: str, capsys: pytest.CaptureFixture[str]
):
    """Also after they were loaded when they still were; nothing is left behind."""
    number = register(BETTER)
    model = f"models:/{MODEL}/{number}"
    assert applied("test", model, uri) == 0
    before = last(uri).info.run_id
    harm(number)
    capsys.readouterr()
    for command in (
        lambda: applied("test", model, uri),
        lambda: applied("validate", model, uri, "fold=0"),
        lambda: applied("predict", model, uri, "output=out", "data.predict_tiles=tiles.parquet"),
        lambda: replay.main([model, f"tracking.uri={uri}"]),
        lambda: export.main([model, f"tracking.uri={uri}"]),
    ):
        assert command() == 2
        error = capsys.readouterr().err
        assert f"error: The files of {model} are not those that were recorded" in error
        assert f"extra_files/{checkpoint.FILE} changed" in error
    assert last(uri).info.run_id == before
    assert not Path("out").exists()
    assert not Path("exported").exists()


def test_a_version_without_digests_is_loaded_with_a_warning(uri: str):
    number = register(BETTER)
    mlflow.MlflowClient().delete_model_version_tag(MODEL, number, version_files.DIGESTS_TAG)
    with pytest.warns(FeatureStoreWarning, match=f"digests of models:/{MODEL}/{number}"):
        registered_models.load(f"models:/{MODEL}/{number}")


@pytest.mark.slow
def test_a_copy_on_this_machine_that_was_harmed_is_fetched_again(
    server: Server,
):
    """What the server sends is compared as well."""
    write_data()
    mlflow_artifacts.use_tracking(server.uri)
    number = register(BETTER)
    model = f"models:/{MODEL}/{number}"
    file = registered_models.checked(model) / "extra_files" / checkpoint.FILE
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    assert (
        registered_models.checked(model) / "extra_files" / checkpoint.FILE
    ).read_bytes() == content
    run = mlflow.MlflowClient().get_model_version(MODEL, number).run_id
    file.write_bytes(content[:-1])
    mlflow.MlflowClient().log_artifact(run, str(file), "model/extra_files")
    with pytest.raises(ArtifactError, match="not those that were recorded"):
        registered_models.checked(model)
    mlflow.MlflowClient().delete_registered_model(MODEL)  # others begin at version 1 there


def test_the_checkpoint_of_a_run_is_compared(uri: str):
    register(BETTER)
    file = Path("made") / checkpoint.FILE
    with MlflowTracker(uri, "fits", None) as tracker:
        tracker.checkpoint(file)
        run = tracker.run
    name = f"runs:/{run}/{checkpoint.FILE}"
    assert registered_models.checked(name).read_bytes() == file.read_bytes()
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    mlflow.MlflowClient().log_artifact(run, str(file))
    with pytest.raises(ArtifactError, match="not those that were recorded"):
        registered_models.checked(name)
