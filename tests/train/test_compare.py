"""Runs compared on the same tiles."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from predicted import predictions
from sklearn.metrics import cohen_kappa_score, f1_score

from train import compare, probe
from train.evaluation.comparison import permutation_test
from train.evaluation.estimates import estimate


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


def test_the_better_run_is_told_from_the_worse():
    one, other = written("one.parquet", 0.5), written("other.parquet", 1.5)
    assert compare.main([one, other]) == 0
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
    assert compare.main([one, one, "--output", "same"]) == 0
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
    assert compare.main([*names, "--ordered", "--output", "slides"]) == 0
    assert compare.main([*names, "--resample", "patient_id", "--output", "patients"]) == 0
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
        assert compare.main([one, other, "--resample", "patient_id"]) == 0
        rows.append([read()["accuracy"][key] for key in keys])
    assert rows[0] == rows[1] == rows[2]


def test_a_column_that_the_predictions_lack_is_refused(capsys: pytest.CaptureFixture[str]):
    one = written("one.parquet", 1.0)
    assert compare.main([one, one, "--resample", "patient_id"]) == 2
    said = capsys.readouterr().err
    assert "no column 'patient_id'" in said
    assert "slide_id, x, y, target, pred" in said


@pytest.mark.slow
def test_runs_by_id_and_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for rate in ("0.002", "0.02"):
        argv = ["fold=4", f"learning_rate={rate}", "max_epochs=3", f"tracking.uri={uri}"]
        assert probe.main(argv) == 0
    said = capsys.readouterr().out.replace("\n", " ")
    last = said.split("run: ")[-1].split()[0]
    assert compare.main(["models:/tissue-probe/1", last, "--uri", uri]) == 0
    assert read()["accuracy"]["tiles"] == 286
    assert compare.main(["models:/tissue-probe/9", last, "--uri", uri]) == 2
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
    said = capsys.readouterr().err
    for word in words:
        assert word in said
    assert not Path("comparison").exists()


def test_one_run_is_refused(capsys: pytest.CaptureFixture[str]):
    assert compare.main(["one.parquet"]) == 2
    assert "at least two" in capsys.readouterr().err
