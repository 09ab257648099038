"""Metrics against scikit-learn, and the one definition for absent classes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as peer

from train.engine.losses import class_weights, cross_entropy_sum
from train.evaluation.confusion import absent_classes, slide_accuracy, slide_summary
from train.evaluation.metrics import confusion_metrics
from train.evaluation.unit_sums import (
    ConfusionCells,
    UnitSums,
    confusion_cells,
    confusion_matrix,
)
from train.tracking.names import decode_name, encode_name

TRUE = np.array([0, 0, 1, 1, 1, 2, 2, 0, 1, 2])
PRED = np.array([0, 1, 1, 1, 2, 2, 0, 0, 1, 2])
SLIDE = np.array([0, 0, 0, 1, 1, 1, 1, 3, 3, 3])


CELLS = confusion_cells(SLIDE, 4, PRED, TRUE, 3)


def cells_of(cube: np.ndarray) -> ConfusionCells:
    """Return the cells of counts of shape (units, K, K)."""
    index = np.flatnonzero(cube)
    return ConfusionCells(index, cube.ravel()[index], *cube.shape[:2])


def dense(cells: ConfusionCells) -> np.ndarray:
    """Return counts of shape (units, K, K)."""
    return np.stack([cells.select(unit, unit + 1).matrix() for unit in range(cells.units)])


def test_cells_are_scikit_learns_matrices_of_each_slide():
    assert CELLS.count.sum() == len(TRUE)
    assert (CELLS.count > 0).all()
    by_slide = [
        peer.confusion_matrix(TRUE[slide == SLIDE], PRED[slide == SLIDE], labels=range(3))
        if (slide == SLIDE).any() else np.zeros((3, 3))
        for slide in range(4)
    ]  # fmt: skip
    np.testing.assert_array_equal(dense(CELLS), by_slide)
    np.testing.assert_array_equal(CELLS.matrix(), peer.confusion_matrix(TRUE, PRED))
    np.testing.assert_array_equal(confusion_matrix(TRUE, PRED, 3), CELLS.matrix())


@given(tiles=st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=30), cut=st.integers(0, 5))
def test_sums_of_cells_are_those_of_matrices(tiles: list[tuple[int, int, int]], cut: int):
    unit, true, predicted = np.array(tiles, dtype=np.int64).reshape(-1, 3).T
    counts = np.zeros((5, 5, 5), dtype=np.int64)
    np.add.at(counts, (unit, true, predicted), 1)
    cells = confusion_cells(unit, 5, predicted, true, 5)
    np.testing.assert_array_equal(dense(cells), counts)
    np.testing.assert_array_equal(cells.select(0, cut).matrix(), counts[:cut].sum(axis=0))
    sums, expected = UnitSums.of_cells(cells), UnitSums.of_confusion(counts)
    for name in ("hits", "true", "predicted", "distance"):
        np.testing.assert_array_equal(getattr(sums, name), getattr(expected, name))


def test_of_equally_good_slides_the_name_decides():
    """Not the number, which is that of the first tile."""
    half, good = np.array([[1, 1], [0, 0]]), np.array([[1, 0], [0, 1]])
    table = slide_accuracy(cells_of(np.stack([good, 2 * half, half])), ["a", "c", "b"])
    assert table["slide_id"] == ["b", "c", "a"]


def test_scores_agree_with_scikit_learn():
    scores = confusion_metrics(CELLS.matrix(), ["a", "b", "c"])
    assert scores["accuracy"] == pytest.approx(peer.accuracy_score(TRUE, PRED))
    assert scores["balanced_accuracy"] == pytest.approx(peer.balanced_accuracy_score(TRUE, PRED))
    assert scores["f1_macro"] == pytest.approx(peer.f1_score(TRUE, PRED, average="macro"))
    recall = peer.recall_score(TRUE, PRED, average=None)
    f1 = peer.f1_score(TRUE, PRED, average=None)
    assert [scores[f"accuracy/{n}"] for n in "abc"] == pytest.approx(list(recall))
    assert [scores[f"f1/{n}"] for n in "abc"] == pytest.approx(list(f1))


def test_class_absent_from_truth_and_prediction_is_left_out():
    confusion = np.array([[3, 1, 0, 0], [0, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    scores = confusion_metrics(confusion, list("abcd"))
    assert absent_classes(confusion, list("abcd")) == ["c", "d"]
    assert scores["accuracy_macro"] == pytest.approx((0.75 + 1) / 2)
    assert "f1/c" not in scores


def test_class_only_predicted_counts_as_zero_in_macro_f1():
    """It is in the prediction, so it is not absent; scikit-learn says the same."""
    confusion = np.array([[2, 1], [0, 0]])
    scores = confusion_metrics(confusion, ["a", "b"])
    assert scores["f1_macro"] == pytest.approx(peer.f1_score([0, 0, 0], [0, 0, 1], average="macro"))
    assert scores["balanced_accuracy"] == pytest.approx(2 / 3)


def test_slides_are_listed_worst_first_and_empty_ones_not_at_all():
    table = slide_accuracy(CELLS, ["s0", "s1", "s2", "s3"])
    assert table["slide_id"] == ["s1", "s0", "s3"]
    assert table["tiles"] == [4, 3, 3]
    assert table["accuracy"] == pytest.approx([0.5, 2 / 3, 1.0])
    assert slide_summary(table["accuracy"]) == {
        "slide_accuracy/mean": pytest.approx((0.5 + 2 / 3 + 1) / 3),
        "slide_accuracy/median": pytest.approx(2 / 3),
        "slide_accuracy/min": 0.5,
    }


def test_class_weights_are_scikit_learns_balanced_ones():
    from sklearn.utils.class_weight import compute_class_weight

    weights = class_weights(torch.bincount(torch.from_numpy(TRUE)))
    np.testing.assert_allclose(
        weights, compute_class_weight("balanced", classes=np.arange(3), y=TRUE), rtol=1e-6
    )


def test_an_absent_class_weighs_nothing():
    assert class_weights(torch.tensor([3, 0, 1])).tolist() == pytest.approx([4 / 9, 0, 4 / 3])


def test_loss_sums_add_up_to_torchs_weighted_mean():
    logits, target = torch.randn(9, 3), torch.arange(9) % 3
    weights = torch.tensor([1.0, 2.0, 0.5])
    parts = sum(cross_entropy_sum(logits[s], target[s], weights) for s in (slice(4), slice(4, 9)))
    expected_loss = torch.nn.functional.cross_entropy(logits, target, weight=weights)
    torch.testing.assert_close(parts / weights[target].sum(), expected_loss)


@pytest.mark.parametrize(
    "name", ["Fat", "Connective-Tissue", "a b", 'O\'Brien; "x"', "Öl/Fett", "1.5%~", "a.2Eb", ""]
)
def test_class_names_are_spelled_reversibly_for_mlflow(name: str):
    assert decode_name(encode_name(name)) == name
    assert set(encode_name(name)) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-."
    )
