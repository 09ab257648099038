"""The loss of predictions with the class weights of a checkpoint."""

import numpy as np
import pytest
from predicted import predictions

from train.evaluation.predict import weighted_loss
from train.models.checkpoint import ModelSpec


def test_a_class_that_weighs_nothing_is_passed_over():
    """And of such tiles alone there is no loss: neither zero nor NaN."""
    spec = ModelSpec("linear", 0, "none", 2, ["a", "b", "c"], [0.5, 2.0, 0.0])
    probabilities = np.array([[0.8, 0.2, 0], [0.5, 0.5, 0], [0.9, 0.1, 0]])
    target = np.array([0, 1, 2])
    loss = weighted_loss(predictions(target, probabilities, target, spec.classes), spec)
    assert loss == pytest.approx(-(0.5 * np.log(0.8) + 2 * np.log(0.5)) / 2.5, rel=1e-6)
    alone = predictions(target[2:], probabilities[2:], target[2:], spec.classes)
    assert weighted_loss(alone, spec) is None
