"""Runs replayed: the same figures, or what differs."""

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import ROOT
from refused import arguments, imported

from featurestore.io import digest_cache
from featurestore.snapshots import fingerprints
from train import probe, replay
from train.evaluation.reproduction import compared
from train.models import checkpoint
from train.tracking import version_files
from train.tracking.mlflow_tracker import MlflowTracker


def database() -> str:
    """Return the URI of the store in this folder: whole, since MLflow keeps stores by name."""
    return f"sqlite:///{Path.cwd() / 'mlflow.db'}"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a working folder with tiny tiles and an MLflow store; models are not exported to it.

    Twelve tiles of four slides, two classes, folds 0 and 1.
    """
    folder, number = tmp_path_factory.mktemp("replay"), np.arange(12)
    keys = {"slide_id": [f"s{n // 3}" for n in number], "x": number, "y": np.zeros(12, int)}
    tiles = {"roi_coverage_Fat": np.where(number % 2, 0.9, 0.0), "fold": number // 6,
             "roi_coverage_Muscle": np.where(number % 2, 0.0, 0.8)}  # fmt: skip
    vectors = [[float(n % 2), 1.0, float(n)] for n in number]
    (folder / "in").mkdir()
    pq.write_table(pa.table(keys | tiles), folder / "in" / "tiles.parquet")
    pq.write_table(pa.table(keys | {"embedding": vectors}), folder / "in" / "embeddings.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowTracker, "model", lambda *_: None)
        yield folder


@pytest.fixture(autouse=True)
def _there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def fitted(*more: str) -> str:
    """Run the script on the tiny tiles; return the run's id."""
    named = {f"data.{name}": f"in/{name}.parquet" for name in ("tiles", "embeddings")}
    assert probe.main([*arguments(named, *more), f"tracking.uri={database()}"]) == 0
    client = mlflow.MlflowClient(database())
    experiment = client.get_experiment_by_name("tissue-probe")
    assert experiment
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])
    return next(run.info.run_id for run in runs if "mlflow.parentRunId" not in run.data.tags)


@pytest.fixture(scope="module")
def run(home: Path) -> str:
    """Return the id of a fit."""
    with contextlib.chdir(home):
        return fitted("fold=1")


def again(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    """Replay; return the exit status and all that was said, on one line."""
    capsys.readouterr()
    status = replay.main([*argv, f"tracking.uri={database()}"])
    out = capsys.readouterr()
    return status, re.sub(r"\s+", " ", out.out + out.err)


@pytest.mark.slow
def test_the_same_again(run: str, home: Path, capsys: pytest.CaptureFixture[str]):
    """Nothing is left beside what a run leaves.

    Digests are remembered of files that have not changed for two seconds: by the fit or by its
    replay, as quick as the machine is.
    """

    def files() -> set[Path]:
        return {file for file in home.rglob("*") if not file.name.startswith(digest_cache.FILE)}

    before = files()
    status, output = again(capsys, run)
    assert status == 0, output
    assert re.match(r"the same: \d\d figures and all the data", output)  # said before all else
    assert files() == before


@pytest.mark.slow
def test_moved_artifacts_are_named_anew(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree("in", tmp_path / "moved")
    places = [f"data.{name}={tmp_path}/moved/{name}.parquet" for name in ("tiles", "embeddings")]
    status, output = again(capsys, run, *places)
    assert status == 0, output
    assert f"changed: {places[0]}" in output
    status, output = again(capsys, run, "data.tiles=nowhere.parquet")
    assert status == 2
    assert "There is no Parquet file at nowhere.parquet" in output


def test_a_tampered_artifact(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """It says which one, and which figures differ."""
    table = pq.read_table("in/tiles.parquet")
    fat, muscle = table["roi_coverage_Fat"].to_numpy(), table["roi_coverage_Muscle"].to_numpy()
    other = np.arange(12) == 11
    for name, covered, its in (("Fat", fat, muscle), ("Muscle", muscle, fat)):
        place = table.column_names.index(f"roi_coverage_{name}")
        values = pa.array(np.where(other, its, covered))
        table = table.set_column(place, f"roi_coverage_{name}", values)
    pq.write_table(table, tmp_path / "tiles.parquet")
    status, output = again(capsys, run, f"data.tiles={tmp_path}/tiles.parquet")
    assert status == 3
    assert re.search(r"│ tiles │ \w{12} │ \w{12} │ NO │", output)
    assert re.search(r"│ embeddings │ \w{12} │ \w{12} │ yes │", output)
    assert re.search(r"│ best/validation/accuracy │ \S+ │ \S+ │ NO │", output)
    assert "and the data: tiles, snapshot" in output


@pytest.mark.slow
def test_another_threshold(run: str, capsys: pytest.CaptureFixture[str]):
    """The artifacts are the same, the rows are not."""
    status, output = again(capsys, run, "thresholds.Fat=0.95", "allow_empty_class=true")
    assert status == 3
    assert "the artifacts are the same: the rules or the code of the views have changed" in output
    assert re.search(r"NOT the same: \d+ of \d+ figures differ, and the data: snapshot", output)


@pytest.mark.slow
@pytest.mark.parametrize("other", ["a rule", "code"])
def test_what_makes_the_same_rows_is_the_same(
    other: str, run: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    if other == "code":
        monkeypatch.setattr(fingerprints, "of_code", lambda *_: "other")
    status, output = again(capsys, run, *(["thresholds.Fat=0.6"] if other == "a rule" else []))
    assert status == 0, output
    assert "the rows are the same: other rules, or another code of the views, make them" in output
    assert re.search(r"the same: \d\d figures and all the data", output)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_tampered_model(run: str, recorded: bool, capsys: pytest.CaptureFixture[str]):
    """Weights that are not those of the figures are found out, if only by the figures."""
    folder = Path(mlflow.MlflowClient(database()).get_run(run).info.artifact_uri)
    file = folder / checkpoint.FILE
    kept = file.read_bytes()
    trained = checkpoint.load(file)
    network = trained.network
    network.get_submodule("head").bias += 100 * torch.arange(2)
    checkpoint.save(file, trained)
    client = mlflow.MlflowClient(database())
    sums = client.get_run(run).data.tags[version_files.DIGESTS_TAG]
    if not recorded:  # as of a run before there were digests
        client.delete_tag(run, version_files.DIGESTS_TAG)
    status, output = again(capsys, run)
    client.set_tag(run, version_files.DIGESTS_TAG, sums)
    file.write_bytes(kept)
    if recorded:
        assert (status, f"found: {checkpoint.FILE} changed" in output) == (2, True)
    else:
        assert status == 3
        assert re.match(r"NOT the same: \d+ of \d+ figures differ changed: ", output)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["fold=all", "calibrate=true", "sweep.thresholds.Fat=[0.5,0.95]", "precision=bf16"],
         ["registered_fold/validation/loss ", "best/validation/f1_macro_sd ", "within 0.002"]),
        (["fold=all", "final=true", "sweep.thresholds.Fat=[0.5,0.95]", "leakage=warn",
          "data.test_tiles=in/tiles.parquet"],  # tested under the rules that were chosen
         ["best/validation/f1_macro_high ", "best/test/loss "]),
        (["fold=all", "probe=knn", "neighbours=3"], ["best/validation/accuracy_sd "]),
        (["fold=1", "head=mlp"], ["best/validation/loss "]),
    ],
)  # fmt: skip
def test_every_kind_of_fit(argv: list[str], words: list[str], capsys: pytest.CaptureFixture[str]):
    status, output = again(capsys, fitted(*argv))
    assert status == 0, output
    for word in words:
        assert word in output


@pytest.mark.slow
def test_a_validation_is_replayed_as_well(run: str, capsys: pytest.CaptureFixture[str]):
    status, output = again(
        capsys, fitted("fold=1", "mode=validate", f"checkpoint=runs:/{run}/{checkpoint.FILE}")
    )
    assert status == 0, output


@pytest.mark.slow
def test_a_registered_model(digits_home: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """The digits', with nothing but its name and where MLflow is."""
    monkeypatch.chdir(digits_home)
    status, output = again(capsys, "models:/tissue-probe/1")
    assert status == 0, output
    assert "the same: 157 figures and all the data" in output
    status, output = again(capsys, "models:/tissue-probe/9")
    assert status == 2
    assert "The registry has no models:/tissue-probe/9" in output


def test_figures_are_compared_each_within_its_tolerance():
    metrics = {"best/test/accuracy": 0.5, "best/test/brier_low/a": 0.5, "other": 1.0}
    figures = {
        "best/test/accuracy": 0.5 + 2e-6, "best/test/brier_low/a": 0.5 + 2e-6,
        "best/test/unknown": 1.0,
    }  # fmt: skip
    rows = compared(metrics, figures, 1e-6, 1e-4)
    assert [(row["figure"], row["same"]) for row in rows] == [
        ("best/test/accuracy", False), ("best/test/brier_low/a", True)
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("argv", [[], ["fold=4"], ["models:/tissue-probe/1", "flod=4"]])
def test_refused_arguments_cost_no_heavy_import(argv: list[str], tmp_path: Path):
    script = str(ROOT / "train" / "replay.py")
    command = [sys.executable, "-X", "importtime", script, *argv]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert lines[0].startswith("error: ")
    assert not {"torch", "mlflow", "sklearn"} & imported(done.stderr)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_prediction_has_nothing_to_replay(run: str, capsys: pytest.CaptureFixture[str]):
    given = (f"checkpoint=runs:/{run}/{checkpoint.FILE}", "data.predict_tiles=in/tiles.parquet")
    status, output = again(capsys, fitted("mode=predict", *given))
    assert status == 2
    assert "A prediction has no figures to compare" in output
