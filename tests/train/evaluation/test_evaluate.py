"""An evaluation is values alone: nothing is printed, written or drawn."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from predicted import predictions

from train.config.sections import Evidence
from train.engine.confusion import confusion_index
from train.evaluation.evaluate import Evaluation, evaluate, evaluation_metrics
from train.predictions.table import Predictions

CLASSES = ["Fat", "Muscle/a"]


@pytest.fixture
def tiles() -> Predictions:
    """Six tiles of three slides, two of them wrong."""
    fat = np.array([0.9, 0.8, 0.4, 0.3, 0.2, 0.6])
    probabilities = np.stack([fat, 1 - fat], axis=1)
    target, slide = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 2, 2])
    return predictions(target, probabilities, slide, CLASSES)


@pytest.fixture
def evaluation(tiles: Predictions) -> Evaluation:
    organ = ["lung", "lung", "skin", "skin", "lung", "lung"]
    return evaluate(tiles.with_column("organ", organ), Evidence(groups=["organ"]), loss=0.5)


def test_it_has_no_effect(evaluation: Evaluation, capsys: pytest.CaptureFixture[str]):
    assert capsys.readouterr() == ("", "")
    assert not list(Path.cwd().iterdir())


def test_it_is_made_of_the_same_tiles(evaluation: Evaluation):
    assert evaluation.confusion.tolist() == [[2, 1], [1, 2]]
    assert evaluation.slide_confusion.matrix().tolist() == evaluation.confusion.tolist()
    assert evaluation.bins[:, 0].sum() == 6
    assert evaluation.risk_coverage["risk"][-1] == pytest.approx(2 / 6)
    assert set(evaluation.curves) == set(CLASSES)
    assert evaluation.slides["organ"] == ["skin", "lung", "lung"]
    assert (evaluation.lone_slides, evaluation.absent_classes) == (0, [])
    assert {group.value: group.tiles for group in evaluation.groups} == {"lung": 4, "skin": 2}


def test_its_metrics_have_the_names_of_mlflow(evaluation: Evaluation):
    metrics = evaluation_metrics(evaluation, "test")
    assert metrics["best/test/loss"] == 0.5
    assert metrics["best/test/accuracy"] == pytest.approx(4 / 6)
    assert metrics["best/test/accuracy_low"] <= metrics["best/test/accuracy_high"]
    assert metrics["best/test/accuracy/Muscle.2Fa"] == metrics["best/test/recall/Muscle.2Fa"]
    assert metrics["best/test/slide_accuracy/min"] == 0.5
    assert metrics["best/test/group/organ/skin/accuracy"] == 0.5
    assert "best/test/group/organ/skin/f1_macro_low" not in metrics  # one slide: no interval


def test_predictions_come_back_as_they_were_written(tiles: Predictions):
    table = tiles.with_column("fold", [0, 0, 0, 1, 1, 1]).table()
    again = Predictions.from_table(table, CLASSES)
    assert again.table().equals(table)
    assert table.column_names[-1] == "fold"
    some = again.select(again.keys["fold"].to_numpy() == 1)
    assert (len(some), some.slides, some.clusters) == (3, ["s1", "s2"], 2)


def test_a_tile_without_a_label_is_told(tiles: Predictions):
    table = tiles.table()
    target = pa.array([0, None, 0, 1, 1, 1], pa.int64())
    table = table.set_column(table.column_names.index("target"), "target", target)
    again = Predictions.from_table(table, CLASSES)
    assert (again.target.tolist(), again.labelled) == ([0, -1, 0, 1, 1, 1], False)
    assert again.table()["target"].to_pylist() == target.to_pylist()


def test_cells_are_the_same_in_numpy_and_in_torch():
    columns = np.random.default_rng(0).integers(3, size=(3, 20))
    cells = confusion_index(*columns, 3)
    np.testing.assert_array_equal(cells, confusion_index(*torch.from_numpy(columns), 3))
    np.testing.assert_array_equal(np.stack(np.unravel_index(cells, (3, 3, 3))), columns)
