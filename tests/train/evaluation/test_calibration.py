"""Temperature scaling against logits that are known, and the risk-coverage curve by hand."""

import numpy as np
import pytest
from sklearn.metrics import log_loss

from train.evaluation import calibration


def drawn(temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities that are too sure by a temperature, and classes drawn from the true."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(20_000, 4))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    target = (true.cumsum(axis=1) < rng.random((20_000, 1))).sum(axis=1)
    return calibration.scaled(true.astype(np.float32), 1 / temperature), target


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_found(temperature: float):
    shares, target = drawn(temperature)
    found = calibration.temperature(shares, target)
    assert found == pytest.approx(temperature, rel=0.03)
    after = calibration.scaled(shares, found)
    np.testing.assert_array_equal(after.argmax(axis=1), shares.argmax(axis=1))
    assert log_loss(target, after) <= log_loss(target, shares) + 1e-6


def test_cross_entropy_is_scikit_learns():
    shares, target = drawn(1.0)
    weights = np.array([1.0, 2.0, 0.5, 3.0])
    expected = log_loss(target, shares, sample_weight=weights[target])
    assert calibration.cross_entropy(shares, target, weights) == pytest.approx(expected, rel=1e-5)


def test_shares_of_zero_and_one_stay_finite():
    shares = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    after = calibration.scaled(shares, calibration.temperature(shares, np.array([0, 0])))
    assert np.isfinite(after).all()
    np.testing.assert_allclose(after.sum(axis=1), 1, rtol=1e-6)


def test_risk_and_coverage_by_hand():
    shares = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.45, 0.55]], dtype=np.float32)
    curve = calibration.risk_coverage(shares, np.array([0, 1, 1, 1]))  # the second is wrong
    assert curve["coverage"] == [0.25, 0.5, 0.75, 1.0]
    assert curve["risk"] == [0, 0, pytest.approx(1 / 3), 0.25]
    assert curve["confidence"] == pytest.approx([0.9, 0.8, 0.6, 0.55])
