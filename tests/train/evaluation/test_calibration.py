"""Temperature scaling against logits that are known, and the risk-coverage curve by force."""

import numpy as np
import pytest
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import log_loss

from train.evaluation import calibration
from train.evaluation.metrics import calibration_error


def drawn(scale: float, tiles: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Return logits that are too sure by a factor, and classes drawn from the true ones."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(tiles, 4))
    target = (softmax(logits, axis=1).cumsum(axis=1) < rng.random((tiles, 1))).sum(axis=1)
    return (scale * logits).astype(np.float32), target


@pytest.mark.parametrize("scale", [0.001, 0.5, 1.0, 3.0, 2000.0])
def test_the_temperature_is_found(scale: float):
    """Where float32 probabilities are all 0 and 1, too."""
    logits, target = drawn(scale)
    temperature = calibration.temperature(logits, target)
    assert temperature == pytest.approx(scale, rel=0.03)
    after = calibration.scaled(logits, temperature)
    np.testing.assert_array_equal(after.argmax(axis=1), logits.argmax(axis=1))
    losses = [
        log_loss(target, calibration.scaled(logits, temperature * step)) for step in (0.98, 1.02)
    ]
    assert log_loss(target, after) <= min(losses)


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_cross_entropy_is_scikit_learns(kind: str):
    logits, target = drawn(1.0)
    weights, shares = np.array([1.0, 2.0, 0.5, 3.0]), softmax(logits, axis=1)
    expected = log_loss(target, shares, sample_weight=weights[target])
    values = logits if kind == "logits" else np.log(shares)
    assert calibration.cross_entropy(values, target, weights) == pytest.approx(expected, rel=1e-5)


def test_a_class_without_a_logit_is_possible_at_no_temperature():
    """It has no training tile, so a closed form gives it none, and its weight is zero."""
    logits, target = drawn(3.0)
    logits[:, 3] = -np.inf
    known = target < 3
    temperature = calibration.temperature(logits, target)
    assert temperature == calibration.temperature(logits[known][:, :3], target[known])
    assert np.isfinite(calibration.cross_entropy(logits, target, np.array([1.0, 1.0, 1.0, 0.0])))
    assert calibration.temperature(logits, np.full(len(logits), 3)) == 1


@pytest.mark.parametrize(
    ("logits", "target", "end", "words"),
    [
        ([[5, 0], [0, 7]], [0, 1], 0, "infinitely sure"),
        ([[5, 0], [0, 7]], [1, 0], 1, "no class from another"),
        ([[5, 0], [0, 7], [0, 7]], [0, 1, 0], None, ""),
        ([[0, 0], [0, 0]], [0, 1], None, ""),  # as good as any
    ],
)
def test_an_end_of_the_range_is_said(logits: list, target: list, end: int | None, words: str):
    calibrated = calibration.calibrate(np.float32(logits), np.array(target), np.array(target))
    ends = np.exp(calibration.RANGE)
    assert [calibrated.temperature == pytest.approx(each) for each in ends] == [
        end == number for number in range(2)
    ]
    assert words in calibrated.doubt
    assert bool(words) == bool(calibrated.doubt)


def test_the_error_that_is_reported_is_of_tiles_that_did_not_fit():
    """By hand: three slides, each with the temperature of the two others."""
    logits, target = drawn(2.0, 300)
    cluster = np.repeat([4, 0, 7], 100)
    logits[cluster == 7] *= 5  # a slide unlike the others
    shares = np.empty_like(logits)
    for slide in (0, 4, 7):
        others = cluster != slide
        best = calibration.temperature(logits[others], target[others])
        shares[~others] = calibration.scaled(logits[~others], best)
    calibrated = calibration.calibrate(logits, target, cluster)
    assert calibrated.parts == 3
    assert calibrated.error_cross_fitted == pytest.approx(calibration_error(shares, target))
    assert calibrated.error_before == pytest.approx(
        calibration_error(softmax(logits, axis=1), target)
    )
    assert calibrated.error_after != calibrated.error_cross_fitted
    order = np.random.default_rng(0).permutation(300)
    again = calibration.calibrate(logits[order], target[order], cluster[order])
    assert again.metrics == pytest.approx(calibrated.metrics)


def test_one_slide_leaves_no_tile_to_tell_by():
    logits, target = drawn(2.0, 300)
    calibrated = calibration.calibrate(logits, target, np.full(300, 3))
    assert calibrated.parts == 1
    assert np.isnan(calibrated.error_cross_fitted)
    assert set(calibrated.metrics) == {"temperature", "error_before", "error_after"}


@st.composite
def tied(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities of which some are equally sure, and classes."""
    sure = draw(st.lists(st.sampled_from([0.5, 0.625, 0.75, 1.0]), min_size=1, max_size=30))
    first = np.array(draw(st.lists(st.booleans(), min_size=len(sure), max_size=len(sure))))
    target = draw(st.lists(st.integers(0, 1), min_size=len(sure), max_size=len(sure)))
    of_first = np.where(first, sure, 1 - np.array(sure))
    return np.stack([of_first, 1 - of_first], axis=1).astype(np.float32), np.array(target)


@settings(max_examples=examples(100), deadline=None)
@given(tied(), st.randoms(use_true_random=False))
def test_risk_and_coverage_are_those_of_every_threshold(
    tiles: tuple[np.ndarray, np.ndarray], random
):
    """A threshold gives the tiles that are as sure as it or surer, in whatever order they are."""
    shares, target = tiles
    confidence, wrong = shares.max(axis=1), shares.argmax(axis=1) != target
    thresholds = sorted(set(confidence.tolist()), reverse=True)
    given = [confidence >= threshold for threshold in thresholds]
    curve = calibration.risk_coverage(shares, target)
    assert curve["confidence"] == thresholds
    assert curve["coverage"] == pytest.approx([mask.mean() for mask in given])
    assert curve["risk"] == pytest.approx([wrong[mask].mean() for mask in given])
    order = random.sample(range(len(target)), len(target))
    assert calibration.risk_coverage(shares[order], target[order]) == curve


def test_points_of_a_long_curve_are_points_of_the_whole():
    rng = np.random.default_rng(0)
    shares, target = rng.dirichlet(np.ones(3), 5000).astype(np.float32), rng.integers(3, size=5000)
    curve = calibration.risk_coverage(shares, target)
    assert 150 < len(curve["risk"]) <= calibration.POINTS
    assert np.diff(curve["coverage"]).max() < 0.01
    assert curve["coverage"][-1] == 1
    confidence, wrong = shares.max(axis=1), shares.argmax(axis=1) != target
    for coverage, risk, least in zip(*(curve[key] for key in curve), strict=True):
        assert coverage == (confidence >= least).mean()
        assert risk == pytest.approx(wrong[confidence >= least].mean())


def test_a_class_that_was_not_learned_fits_no_temperature():
    """Of its tiles the head is wrong for certain: no temperature makes that good."""
    rng = np.random.default_rng(0)
    target, cluster = rng.integers(2, size=200), np.arange(200) // 20
    logits = np.float32(rng.normal(size=(200, 3)) + 2 * np.eye(3)[target])
    logits[:, 2] = -1e4
    expected = calibration.calibrate(logits, target, cluster)
    others = np.append(target, [2, 2, 2]), np.append(cluster, [0, 5, 9])
    learned = np.append(np.ones(200, dtype=bool), np.zeros(3, dtype=bool))
    beside = calibration.calibrate(np.vstack([logits, logits[:3]]), *others, learned)
    assert beside.temperature == pytest.approx(expected.temperature)
    assert beside.error_after > expected.error_after
    assert beside.error_cross_fitted == pytest.approx(expected.error_cross_fitted, abs=0.02)
