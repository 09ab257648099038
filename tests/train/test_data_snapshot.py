"""`data.snapshot=NAME`: trained again on a named set, whose sources may be gone."""

import shutil
from pathlib import Path

import mlflow
import pytest
from conftest import TABLES
from refused import arguments
from snapshots import snapshot

from featurestore.console import cli
from featurestore.snapshots import collection
from train import probe, replay


def fit(named: dict[str, str], *more: str) -> int:
    return probe.main(arguments(named, "fold=1", "max_epochs=2", *more))


def losses() -> dict[str, float]:
    run = mlflow.search_runs(search_all_experiments=True, output_format="list")[0]
    return {name: value for name, value in run.data.metrics.items() if "loss" in name}


@pytest.mark.slow
def test_a_named_snapshot_trains_again_without_its_sources(
    artifacts: TABLES, capsys: pytest.CaptureFixture[str]
):
    named = artifacts()
    assert fit(named) == 0
    expected = losses()
    run = mlflow.search_runs(search_all_experiments=True, output_format="list")[0].info.run_id
    (name,) = collection.names()
    assert cli.main(["snapshots", "--tag", "march"]) == 0
    shutil.rmtree(Path(named["data.tiles"]).parent)
    for value in ("march", name, name[:6], run, f"runs:/{run}"):
        assert fit(named, f"data.snapshot={value}") == 0
        assert losses() == expected
    capsys.readouterr()
    again = mlflow.search_runs(search_all_experiments=True, output_format="list")[0].info.run_id
    assert replay.main([again]) == 0
    assert "the same" in capsys.readouterr().out
    assert fit(named, "data.snapshot=march", "thresholds.Fat=0.7") == 2
    assert "was made by other rules" in capsys.readouterr().err
    assert fit(named, "data.snapshot=april") == 2
    assert "No snapshots have a name that begins with 'april'" in capsys.readouterr().err
    assert fit(named, "data.snapshot=march", "sweep.tissue_prop_min=[0.2,0.3]") == 2
    assert "one variant of the rules" in capsys.readouterr().err


@pytest.mark.slow
def test_a_snapshot_that_was_let_pass_is_refused_to_who_allows_less(
    artifacts: TABLES, capsys: pytest.CaptureFixture[str]
):
    named = artifacts(None, {"x": [*range(10), 98, 99]})
    made = snapshot(named, class_indices={"Fat": 0, "Muscle": 1}, allow_missing=0.7)
    assert fit(named, f"data.snapshot={made.digest[:8]}", "tracking.enabled=false") == 2
    error = capsys.readouterr().err
    assert "made of tiles that hardly had embeddings: more than allow_missing=0.5 had none" in error
    assert "2 of 12 had none; of slide s3 2 of 3" in error
