"""Figures by group, and intervals over units: against pandas, and from the command line."""

import json
from datetime import date
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TABLES
from sklearn import metrics

from featurestore.errors import SchemaError
from train import probe
from train.evaluation import estimates, groups
from train.evaluation.estimates import ALONE
from train.predictions import table as predictions_table
from train.predictions.table import Predictions, count_values
from train.tracking.names import encode_name
from train.tracking.runs import load_run

NAMES = ["Fat", "Muscle"]


@pytest.mark.parametrize(
    ("values", "number", "names"),
    [
        (["b", None, "a", ""], [2, 3, 1, 0], ["''", "a", "b", "none"]),
        (["z", None, "none"], [1, 2, 0], ["none", "z", "(none)"]),
        ([10, 9, None, 10], [1, 0, 2, 1], ["9", "10", "none"]),
        ([True, False, None], [1, 0, 2], ["False", "True", "none"]),
        ([0.5, -1.0], [1, 0], ["-1.0", "0.5"]),
        ([date(2026, 1, 2), date(2025, 1, 2)], [1, 0], ["2025-01-02", "2026-01-02"]),
        (pa.array(["b", "a"]).dictionary_encode(), [1, 0], ["a", "b"]),
        (pa.nulls(2), [0, 0], ["none"]),
    ],
)
def test_values_of_any_type_are_numbered_in_their_order(values, number, names):
    codes, called = predictions_table.encode_column(pa.chunked_array([values]))
    assert (codes.tolist(), called) == (number, names)


def test_slides_without_a_patient_stand_for_themselves():
    keys = pa.table({"slide_id": ["a", "b", "c", "d", "d"], "patient_id": [7, 7, None, None, None]})
    number, units = predictions_table.encode_clusters(keys, "patient_id")
    assert (number.tolist(), units) == ([0, 0, 1, 2, 2], 3)
    assert predictions_table.lone_slides(keys, "patient_id") == 2
    assert predictions_table.encode_clusters(keys, "slide_id")[1] == 4


TABLE = pd.DataFrame(
    {
        "slide_id": ["a", "a", "b", "b", "c", "c", "c", "d"],
        "organ": ["lung", "lung", "skin", "skin", "lung", "lung", "lung", None],
        "scanner": [1, 1, 2, 2, 2, 2, 2, 1],
        "target": [0, 1, 0, 1, 0, 0, 1, 1],
        "prob_Muscle": np.float32([0.1, 0.8, 0.6, 0.7, 0.3, 0.9, 0.4, 0.2]),
    }
)


def by_group(*columns: str, **changes) -> dict[tuple[str, str], groups.Group]:
    """Return the groups of the literal table, by column and value."""
    rows = TABLE.assign(**changes)
    table = pa.Table.from_pandas(rows.assign(x=range(8), y=0, prob_Fat=1 - rows.prob_Muscle))
    predictions = Predictions.from_table(table, NAMES)
    result = groups.by_group(predictions, columns)
    return {(group.column, group.value): group for group in result}


def test_groups_are_those_of_pandas_judged_by_scikit_learn():
    result = by_group("organ", "scanner")
    assert list(result) == [
        ("organ", "lung"), ("organ", "skin"), ("organ", "none"), ("scanner", "1"), ("scanner", "2"),
    ]  # fmt: skip
    rows = TABLE.assign(organ=TABLE.organ.fillna("none"), pred=(TABLE.prob_Muscle > 0.5) * 1)
    for (column, value), group in result.items():
        of_value = rows[rows[column].astype(str) == value]
        truth, guess = of_value.target, of_value.pred
        seen = {name: figure.value for name, figure in group.metrics.items()}
        assert (group.tiles, group.slides) == (len(of_value), of_value.slide_id.nunique())
        assert seen["accuracy"] == pytest.approx(metrics.accuracy_score(truth, guess))
        recall = metrics.recall_score(truth, guess, labels=truth.unique(), average="macro")
        assert seen["balanced_accuracy"] == pytest.approx(recall)
        f1 = metrics.f1_score(truth, guess, labels=np.union1d(truth, guess), average="macro")
        assert seen["f1_macro"] == pytest.approx(f1)
        if len(np.union1d(truth, guess)) > 1:
            assert seen["kappa"] == pytest.approx(metrics.cohen_kappa_score(truth, guess))
    assert result["organ", "lung"].most_confused == ("Fat", "Muscle", 1)
    assert result["organ", "none"].most_confused == ("Muscle", "Fat", 1)
    assert result["organ", "none"].metrics["calibration_error"].value == pytest.approx(0.8)


def test_a_group_of_one_slide_has_no_interval():
    result = by_group("organ")
    skin = result["organ", "skin"].metrics["accuracy"]
    assert (skin.text(), skin.units) == (f"({ALONE})", 1)
    lung = result["organ", "lung"].metrics["accuracy"]
    assert 0 <= lung.low < lung.value < lung.high <= 1
    assert lung.text(2).endswith("(of 2)")


def test_of_many_values_the_largest_are_shown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(groups, "SHOWN", 2)
    result = by_group("slide_id")
    assert [group.is_shown for group in result.values()] == [True, False, True, False]
    assert all(np.isfinite(group.metrics["f1_macro"].value) for group in result.values())
    assert len(groups.as_table(list(result.values()))["value"]) == 4


def test_values_without_end_are_no_groups(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(groups, "MOST", 7)
    groups.check_group_values({"organ": 7}, 20)
    with pytest.raises(SchemaError, match=r"'stain' has too many .*\n.* 8 values among 20 tiles"):
        groups.check_group_values({"organ": 7, "stain": 8}, 20)


@pytest.mark.parametrize(
    ("values", "number"), [(["a", "b", "a"], 2), (["a", None, None], 2), ([], 0)]
)
def test_a_null_is_a_value_of_a_group(values: list[str | None], number: int):
    assert count_values(pa.chunked_array([pa.array(values, pa.string())])) == number


def test_slides_say_what_groups_they_are_of():
    columns = groups.by_slide(pa.Table.from_pandas(TABLE), ["scanner", "target"], ["c", "a"])
    assert columns == {"scanner": ["2", "1"], "target": ["0, 1", "0, 1"]}


def test_metrics_are_named_by_values_that_are_data():
    value = 'Über "x" /'
    [group] = by_group("organ", organ=value).values()
    metrics = groups.as_metrics([group], "best/test/group")
    start = f"best/test/group/organ/{encode_name(value)}"
    assert set(metrics) == {f"{start}/{n}" for n in (
        "f1_macro", "f1_macro_low", "f1_macro_high", "accuracy"
    )}  # fmt: skip
    [long] = by_group("organ", organ="Ü" * 100).values()
    assert groups.as_metrics([long], "best/test/group") == {}  # MLflow takes 250 characters


# -- from the command line ------------------------------------------------------------------------

COLUMNS = {
    "organ": ["lung"] * 6 + ["Über", None] * 3,
    "patient_id": [1] * 6 + [2] * 3 + [3] * 3,
}
GROUPS = ["evidence.groups=[organ,stain]", "evidence.resample=patient_id"]


def arguments(artifacts: TABLES, **changes) -> list[str]:
    """Write artifacts with columns of tiles and of slides; return the arguments of a fit."""
    named = artifacts(tiles=COLUMNS | changes)
    slides = Path(named["data.tiles"]).with_name("slides.parquet")
    pq.write_table(pa.table({"id": ["s0", "s1", "s2", "s3"], "stain": ["HE", None] * 2}), slides)
    Path("two.yaml").write_text(
        "class_indices: {Fat: 0, Muscle: 1}\nthresholds: {Fat: 0.5, Muscle: 0.5}\nnormalize: none\n"
    )
    Path("own.yaml").write_text("data: {name: own}\n")
    places = [f"{key}={value}" for key, value in named.items()]
    return [*places, "classes=two.yaml", "data=own.yaml", f"data.slides={slides}", "max_epochs=2",
            "tracking.register=false"]  # fmt: skip


def rows(file: Path) -> list[dict]:
    """Return the rows of a table as MLflow writes it."""
    table = json.loads(file.read_text())
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


@pytest.mark.slow
def test_a_fit_tells_figures_by_group(artifacts: TABLES, capsys: pytest.CaptureFixture[str]):
    argv = [*arguments(artifacts), *GROUPS, "tracking.enabled=false", "output=out", "fold=1"]
    assert probe.main(argv) == 0
    output = capsys.readouterr().out
    assert "95 % over patients" in output
    assert "validation by organ" in output
    table = pq.read_table("out/predictions.parquet")
    assert table["organ"].to_pylist() == ["Über", None] * 3
    assert table["patient_id"].to_pylist() == [2] * 3 + [3] * 3
    assert table["stain"].to_pylist() == ["HE"] * 3 + [None] * 3
    recorded_rows = rows(Path("out/groups.json"))
    assert [(row["column"], row["value"], row["tiles"], row["units"]) for row in recorded_rows] == [
        ("organ", "Über", 3, 2), ("organ", "none", 3, 2),
        ("stain", "HE", 3, 1), ("stain", "none", 3, 1),
    ]  # fmt: skip
    assert recorded_rows[2]["accuracy_low"] is None
    assert Path("out/groups_organ.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_predictions_out_of_fold_get_the_whole_evidence(artifacts: TABLES, tmp_path: Path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    argv = [*arguments(artifacts), *GROUPS, f"tracking.uri={uri}", "output=out", "fold=all",
            "probe=ridge", "calibrate=true", "abstain_below=0.9",
            "evidence.ordered=true"]  # fmt: skip
    assert probe.main(argv) == 0
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("tissue-probe").experiment_id
    [run] = client.search_runs([experiment], "params.mode = 'fit'")
    recorded = load_run(run.info.run_id).metrics
    table = pq.read_table("out/oof_predictions.parquet")
    assert len(table) == 12
    predictions = Predictions.from_table(table, NAMES, "patient_id")
    expected = estimates.estimate(predictions, ordered=True)
    assert predictions.clusters == 3
    for name in ("f1_macro", "kappa_quadratic"):
        expected_value = expected[name]
        assert recorded[f"best/oof/{name}"] == expected_value.value
        assert recorded[f"best/oof/{name}_low"] == expected_value.low
    assert recorded[f"best/oof/group/organ/{encode_name('Über')}/f1_macro"] >= 0
    assert {"calibration/error_before", "calibration/error_after"} <= set(recorded)
    names = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {f"oof_{name}" for name in (
        "evidence.json", "slides.json", "confusions.json", "groups.json", "review.parquet",
        "predictions.parquet", "confusion.png",
    )} <= names  # fmt: skip
    pictures = {Path(file.path).name for file in client.list_artifacts(run.info.run_id, "evidence")}
    assert {"oof_reliability.png", "oof_slides.png", "oof_groups_stain.png"} <= pictures
    slides = rows(Path(client.download_artifacts(run.info.run_id, "oof_slides.json")))
    assert {row["slide_id"]: row["stain"] for row in slides} == {
        "s0": "HE", "s1": "none", "s2": "HE", "s3": "none"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["evidence.resample=patient"],
         ["no", "'patient'", "organ, patient_id", "slides: id, stain", "mean 'patient_id'"]),
        (["evidence.groups=[organ,fold]"], ["'fold'", "organ, patient_id"]),
        (["evidence.groups=[marks]"], ["'marks'", "array<int64>"]),
    ],
)  # fmt: skip
def test_refused_before_anything_is_written(
    argv: list[str], words: list[str], artifacts: TABLES, capsys: pytest.CaptureFixture[str]
):
    named = arguments(artifacts, marks=[[1]] * 12 if "marks" in argv[0] else None)
    assert probe.main([*named, *argv, "tracking.enabled=false", "fold=1"]) == 2
    error = capsys.readouterr().err
    for word in words:
        assert word in error
    assert not Path(".featurestore").exists()
