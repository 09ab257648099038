"""A metric is added by one entry: it is recorded, shown, compared, and may be asked for."""

import json
import re
from pathlib import Path

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, TABLES
from refused import arguments
from sklearn.metrics import matthews_corrcoef, precision_score

from train import compare, probe
from train.config.load import filed
from train.evaluation.estimates import Estimate
from train.evaluation.metrics import METRICS, MetricSpec
from train.evaluation.unit_sums import Floats, UnitSums
from train.promotion import checks, gate
from train.promotion.requirements import Gate
from train.tracking.mlflow_tracker import MlflowTracker
from train.tracking.runs import load_run


def matthews(sums: UnitSums) -> Floats:
    """Return Matthews' correlation of truth and prediction."""
    true, predicted, tiles = sums.true, sums.predicted, sums.tiles
    covariance = sums.hits.sum(axis=-1) * tiles - (true * predicted).sum(axis=-1)
    variances = [tiles**2 - (counts**2).sum(axis=-1) for counts in (true, predicted)]
    with np.errstate(invalid="ignore", divide="ignore"):
        return covariance / np.sqrt(variances[0] * variances[1])


def precision(sums: UnitSums) -> Floats:
    """Return the precision of each class."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums.hits / sums.predicted


@pytest.fixture(autouse=True)
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MlflowTracker, "model", lambda *_: None)  # a model takes long to log
    monkeypatch.setitem(METRICS, "mcc", MetricSpec("Matthews correlation", matthews))
    monkeypatch.setitem(METRICS, "precision/<class>", MetricSpec("precision", precision))


@pytest.mark.slow
def test_it_stands_wherever_metrics_stand(
    artifacts: TABLES, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    named = artifacts(tiles={"organ": ["lung"] * 6 + ["skin", "liver"] * 3})
    argv = arguments(
        named, "fold=1", "normalize=zscore", "learning_rate=0.1", "max_epochs=30", "patience=30",
        "evidence.groups=[organ]", f"tracking.uri={uri}", "output=out",
        "tracking.register=false",
    )  # fmt: skip
    assert probe.main(argv) == 0
    table = pq.read_table("out/predictions.parquet")
    expected = matthews_corrcoef(table["target"], table["pred"])
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("tissue-probe")
    [run] = client.search_runs([experiment.experiment_id])
    recorded = load_run(run.info.run_id).metrics
    assert {"best/validation/mcc", "best/validation/precision/Fat"} <= set(run.data.metrics)
    assert recorded["best/validation/mcc"] == pytest.approx(expected)
    assert recorded["best/validation/mcc_low"] <= recorded["best/validation/mcc_high"]
    [fat, _] = precision_score(table["target"], table["pred"], average=None, zero_division=0)
    assert recorded["best/validation/precision/Fat"] == pytest.approx(fat)
    page = re.sub("<[^>]+>", " ", Path("out/report.html").read_text())
    assert "Matthews correlation" in page
    assert "precision" in page
    assert re.search(r"mcc\s+│\s+-?[\d.]+", capsys.readouterr().out)
    columns = json.loads(Path("out/groups.json").read_text())["columns"]
    assert {"mcc", "mcc_low", "mcc_high"} <= set(columns)


def test_runs_are_compared_by_it(capsys: pytest.CaptureFixture[str]):
    rng = np.random.default_rng(0)
    for name in ("one.parquet", "other.parquet"):
        fat = rng.random(40).astype(np.float32)
        table = pa.table({
            "slide_id": [f"s{n // 4}" for n in range(40)], "x": np.arange(40), "y": [0] * 40,
            "target": np.arange(40) % 2, "prob_Fat": fat, "prob_Muscle": 1 - fat,
        })  # fmt: skip
        pq.write_table(table, name)
    assert compare.main(["one.parquet", "other.parquet"]) == 0
    assert re.search(r"mcc\s+│\s+[+-]", capsys.readouterr().out)
    assert "mcc" in pq.read_table("comparison/comparison.parquet")["metric"].to_pylist()


def test_a_gate_asks_for_it(tmp_path: Path):
    (tmp_path / "gate.yaml").write_text(
        "floor: {figure: precision, overall: {mcc: 0.8, brier: 0.2}}"
    )
    asked = filed(Gate, tmp_path / "gate.yaml")
    gate.check(asked)
    values = {"mcc": 0.7, "brier": 0.1, "f1_macro": 0.9, "calibration_error": 0.01,
              "precision/Fat": 0.9, "precision/Muscle": 0.4}  # fmt: skip
    evidence = checks.Evidence(
        classes=["Fat", "Muscle"], tiles=[3, 3], champion=None, differences=None,
        candidate={name: Estimate(value, value, value) for name, value in values.items()},
        shared={"slides": 0, "patients": 0}, read={}, recorded={},
    )  # fmt: skip
    lines = {line.name: line for line in checks.run_checks(asked, evidence)}
    assert [lines[f"floor: {name}"].passed for name in ("Fat", "Muscle")] == [True, False]
    mcc, brier_score = lines["overall: mcc"], lines["overall: brier"]
    assert (mcc.passed, mcc.required) == (False, "at least 0.8")
    assert (brier_score.passed, brier_score.required) == (True, "at most 0.2")


def test_the_gate_of_the_checkout_knows_the_metrics_there_are():
    gate.check(filed(Gate, ROOT / "configs" / "gate.yaml"))
