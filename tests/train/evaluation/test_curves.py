"""Curves of a class against the others: those of scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve, roc_curve

from train.evaluation.curves import Curve


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=30).filter(
        lambda tiles: len({of_class for of_class, _ in tiles}) == 2
    )
)
def test_points_are_scikit_learns(tiles: list[tuple[bool, int]]):
    """With ties, whatever the order; a tile of each side is there."""
    of_class = np.array([one for one, _ in tiles])
    probability = np.array([step for _, step in tiles], dtype=np.float32) / 6
    curve = Curve.of(of_class, probability)
    false, true, _ = roc_curve(of_class, probability)
    precision, recall, _ = precision_recall_curve(of_class, probability)
    assert curve.false_positive_rate == pytest.approx(false)
    assert curve.true_positive_rate == pytest.approx(true)
    assert curve.precision == pytest.approx(precision)
    assert curve.recall == pytest.approx(recall)
