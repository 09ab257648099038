"""Runs compared on the same tiles."""

import math
import re
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from predicted import predictions
from sklearn.metrics import cohen_kappa_score, f1_score
from versions import GOOD, MODEL, register, write_data

from featurestore.io import mlflow_artifacts
from train import compare
from train.evaluation.comparison import permutation_test
from train.evaluation.estimates import estimate
from train.tracking import compared
from train.tracking.runs import RunRecord


def written(name: str, skill: float, rows: slice = slice(None), **changes) -> str:
    """Write the predictions of a run that is as good as said; return the file's name."""
    rng = np.random.default_rng(0)
    slide, target = np.arange(400) // 40, rng.integers(3, size=400)
    hard = rng.normal(size=10)[slide]
    logits = rng.normal(size=(400, 3))
    logits[np.arange(400), target] += skill + hard
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    columns = {"slide_id": [f"s{n}" for n in slide], "x": np.arange(400), "y": np.zeros(400, int),
               "target": target, "pred": shares.argmax(axis=1)}  # fmt: skip
    columns |= {f"prob_{n}": shares[:, i].astype(np.float32) for i, n in enumerate("abc")}
    pq.write_table(pa.table(columns | changes).slice(0, 400)[rows], name)
    return name


def read(folder: str = "comparison") -> dict[str, dict[str, float]]:
    rows = pq.read_table(f"{folder}/comparison.parquet").to_pylist()
    return {row["metric"]: row for row in rows}


def test_the_better_run_is_told_from_the_worse(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """In 80 columns, in which names and figures stand whole."""
    one, other = written("one-of-a-long-name.parquet", 0.5), written(f"{'o' * 40}.parquet", 1.5)
    monkeypatch.setenv("COLUMNS", "80")
    assert compare.main([one, other]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert all(any(name in line for line in lines) for name in (one, other, "f1_macro"))
    assert f"{read()['f1_macro']['difference']:+.4f}" in " ".join(lines)
    row = read()["f1_macro"]
    tables = [pq.read_table(name) for name in (one, other)]
    scores = [f1_score(t["target"], t["pred"], average="macro") for t in tables]
    assert row["difference"] == pytest.approx(scores[1] - scores[0])
    assert 0 < row["low"] < row["difference"] < row["high"]
    right = [t["target"].to_numpy() == t["pred"].to_numpy() for t in tables]
    assert row["only_first_right"] == (right[0] & ~right[1]).sum()
    assert row["only_this_right"] == (right[1] & ~right[0]).sum()
    assert row["p_permutation"] == 2 / 2**10  # all ten slides agree
    assert Path("comparison/comparison.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_does_not_differ_from_itself():
    one = written("one.parquet", 1.0)
    assert compare.main([one, one, "output=same"]) == 0
    for name, row in read("same").items():
        end = pytest.approx(math.nan if name == "calibration_error" else 0, nan_ok=True)
        assert (row["difference"], row["low"], row["high"]) == (0, end, end)
        assert row["p_permutation"] == 1


def test_pairing_makes_intervals_narrow():
    """What makes a slide hard for both does not count against their difference."""
    names = [written("one.parquet", 1.0), written("other.parquet", 1.1)]
    assert compare.main(names) == 0
    paired = read()["accuracy"]
    pair = compare.paired(*(pq.read_table(name) for name in names))
    alone = estimate(pair.one)["accuracy"]
    assert paired["high"] - paired["low"] < 0.5 * (alone.high - alone.low)


def test_tiles_without_a_counterpart_are_left_out():
    """In whatever order they lie."""
    order = np.random.default_rng(1).permutation(400)
    one = written("one.parquet", 1.0)
    table = pq.read_table(one)
    pq.write_table(table.take(pa.array(order[:300])), "some.parquet")
    pair = compare.paired(table, pq.read_table("some.parquet"))
    assert (len(pair.one), pair.left_out) == (300, 100)
    np.testing.assert_array_equal(pair.one.probabilities, pair.other.probabilities)


@pytest.mark.parametrize(("slide", "p"), [(np.arange(20), 22 / 1024), (np.arange(20) // 10, 1)])
def test_slides_are_exchanged_whole(slide: np.ndarray, p: float):
    """Nine tiles against one: of twenty slides 2 * (1 + 10) / 2^10, as McNemar; of two 1."""
    target, one, other = np.zeros((3, 20), dtype=int)
    one[0], other[1:10] = 1, 1
    pair = [predictions(target, np.eye(2)[each], slide, ["a", "b"]) for each in (one, other)]
    test = permutation_test(*pair)
    assert (test.only_one, test.only_other, test.p) == (9, 1, pytest.approx(p, abs=0.02))


def test_one_slide_tells_no_models_apart(capsys: pytest.CaptureFixture[str]):
    alone = slice(0, 40)
    names = [written("one.parquet", 0.5, alone), written("other.parquet", 1.5, alone)]
    assert compare.main(names) == 0
    row = read()["accuracy"]
    assert (row["p_permutation"], row["units"], math.isnan(row["low"])) == (1, 1, True)


def test_patients_are_resampled_and_ordered_classes_compared():
    patient = {"patient_id": [f"p{n // 100}" for n in range(400)]}
    names = [written("one.parquet", 0.5, **patient), written("other.parquet", 1.5, **patient)]
    assert compare.main([*names, "evidence.ordered=true", "output=slides"]) == 0
    assert compare.main([*names, "evidence.resample=patient_id", "output=patients"]) == 0
    by_slide, by_patient = read("slides"), read("patients")
    assert by_slide["accuracy"]["difference"] == by_patient["accuracy"]["difference"]
    assert by_slide["accuracy"]["low"] != by_patient["accuracy"]["low"]
    tables = [pq.read_table(name) for name in names]
    kappa = [cohen_kappa_score(t["target"], t["pred"], weights="quadratic") for t in tables]
    assert by_slide["kappa_quadratic"]["difference"] == pytest.approx(kappa[1] - kappa[0])
    assert "kappa_quadratic" not in by_patient


@pytest.mark.slow
def test_clusters_are_those_of_the_first_run():
    """The second may number patients otherwise, or not know them: the tiles are the same."""
    patient = {"patient_id": [f"p{n // 100}" for n in range(400)]}
    one = written("one.parquet", 0.5, **patient)
    keys, rows = ("difference", "low", "high", "units", "p_permutation"), []
    for columns in (patient, {"patient_id": ["q"] * 400}, {}):
        other = written("other.parquet", 1.5, **columns)
        assert compare.main([one, other, "evidence.resample=patient_id"]) == 0
        rows.append([read()["accuracy"][key] for key in keys])
    assert rows[0] == rows[1] == rows[2]


def test_a_column_that_the_predictions_lack_is_refused(capsys: pytest.CaptureFixture[str]):
    one = written("one.parquet", 1.0)
    assert compare.main([one, one, "evidence.resample=patient_id"]) == 2
    error = capsys.readouterr().err
    assert "no column 'patient_id'" in error
    assert "slide_id, x, y, target, pred" in error


@pytest.mark.slow
def test_runs_by_id_and_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Their titles are those of people; what is not there is refused."""
    uri = mlflow_artifacts.use_tracking(f"sqlite:///{tmp_path / 'mlflow.db'}")
    write_data()
    client, runs = mlflow.MlflowClient(), []
    for number, skill in (("1", 0.5), ("2", 1.5)):
        assert register(GOOD) == number
        runs.append(client.get_model_version(MODEL, number).run_id)
        client.log_artifact(runs[-1], written("predictions.parquet", skill))
        client.log_param(runs[-1], "fold", "4")
        client.update_run(runs[-1], name=f"fit {number}")
    assert compare.main(["models:/tissue-probe/1", runs[1], f"tracking.uri={uri}"]) == 0
    assert read()["accuracy"]["title"] == f"fit 2 ({runs[1][:8]})"
    out = " ".join(capsys.readouterr().out.split())
    assert f"fit 2 ({runs[1][:8]}) above tissue-probe 1, fit 1, 400 tiles" in out
    # What the first has held out the second has predicted out of fold.
    client.log_artifact(runs[1], written("oof_predictions.parquet", 1.5))
    client.log_artifact(runs[1], written("predictions.parquet", 1.5, x=np.arange(400) + 1000))
    assert compare.main([*runs, f"tracking.uri={uri}"]) == 0
    assert "400 tiles" in capsys.readouterr().out
    assert compare.main(["models:/tissue-probe/9", runs[1], f"tracking.uri={uri}"]) == 2
    assert "The registry has no models:/tissue-probe/9" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x": np.arange(400) + 1000}, ["no labelled tile in common"]),
        ({"target": np.zeros(400, int)}, ["disagree about labels", "of 400 tiles"]),
        ({"prob_d": np.zeros(400, np.float32)}, ["other classes", "a, b, c, d"]),
    ],
)
def test_refusals(changes: dict, words: list[str], capsys: pytest.CaptureFixture[str]):
    one, other = written("one.parquet", 1.0), written("other.parquet", 1.0, **changes)
    assert compare.main([one, other]) == 2
    error = capsys.readouterr().err
    for word in words:
        assert word in error
    assert not Path("comparison").exists()


def test_what_is_left_out_is_told_with_its_reason(capsys: pytest.CaptureFixture[str]):
    """Slides that one lacks, tiles of others; too few in common are refused unless asked for."""
    one = written("one.parquet", 1.0)
    few = written("few.parquet", 1.5, slice(30, 120))  # a part of s0, all of s1 and s2
    assert compare.main([one, few]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "predicted few tiles in common" in error
    assert "90 tiles, 22.5% and 100.0% of theirs" in error
    assert "280 tiles of one.parquet, of 7 slides that few.parquet has none of: s3, s4, s5" in error
    assert "30 tiles of one.parquet, of slides that few.parquet has in part" in error
    assert "least_overlap=0.22 " in error
    assert not Path("comparison").exists()
    assert compare.main([one, few, "least_overlap=0.22"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "left out: 280 tiles of one.parquet" in out
    assert "few.parquet above one.parquet, 90 tiles" in out


def test_tiles_without_a_label_are_left_out():
    label = pa.array([0] * 390 + [None] * 10, pa.int64())
    one = pq.read_table(written("one.parquet", 1.0, target=label))
    pair = compare.paired(one, one)
    assert pair.reasons("one", "other") == ["10 tiles without a label"]
    assert (len(pair.one), pair.left_out, pair.of_one.share) == (390, 20, 0.975)


def test_other_folds_are_refused_unless_told_to_compare(capsys: pytest.CaptureFixture[str]):
    one = written("one.parquet", 0.5, fold=np.arange(400) % 5)
    other = written("other.parquet", 1.5, fold=np.arange(400) // 80)
    assert compare.main([one, other]) == 2
    error = capsys.readouterr().err
    assert "were trained on other folds" in error
    assert "320 of 400 tiles are in another fold" in error
    assert compare.main([one, other, "other_folds=true"]) == 0


def test_the_better_direction_of_a_metric_is_marked(capsys: pytest.CaptureFixture[str]):
    assert compare.main([written("one.parquet", 0.5), written("other.parquet", 1.5)]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = {row[1]: row for line in lines if len(row := re.split(r"\s*│\s*", line)) > 5}
    assert cells["f1_macro"][4:6] == ["higher", "better"]
    assert cells["brier"][4:6] == ["lower", "better"]
    rows = read()
    assert (rows["brier"]["verdict"], rows["brier"]["higher_is_better"]) == ("better", False)
    assert rows["brier"]["difference"] < 0


def test_folds_that_were_extended_are_the_same(tmp_path: Path):
    """A slide that both assignments have must be in one fold; what joined does not matter."""
    for name, folds in (("a", [0, 1]), ("b", [0, 1, 1]), ("c", [1, 1])):
        slides = [f"s{n}" for n in range(len(folds))]
        pq.write_table(pa.table({"slide_id": slides, "fold": folds}), f"{name}.parquet")
    assert compared.moved_rows("a.parquet", "b.parquet") == (0, 2)
    assert compared.moved_rows("a.parquet", "c.parquet") == (1, 2)
    assert compared.moved_rows("a.parquet", None) == (0, 0)
    judged = RunRecord("a", None, "", {"test/f1_macro": 0.5}, {}, {"fold": "1"})
    other = replace(judged, params={"fold": "2"})
    assert compared.fold_differences(judged, other) == []
    one, two = (replace(each, metrics={}) for each in (judged, other))
    assert compared.fold_differences(one, two) == [
        "one validated on fold 1, the other on fold 2"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["one.parquet"], "at least two"),
        (["one.parquet", "two.parquet", "resample=slide_id"], "did you mean 'evidence.resample'"),
        (["one.parquet", "two.parquet", "uri=sqlite:///m.db"], "did you mean 'tracking.uri'"),
    ],
)
def test_what_is_not_understood_is_refused(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
):
    assert compare.main(argv) == 2
    assert words in capsys.readouterr().err
