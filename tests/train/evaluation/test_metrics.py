"""Figures and their intervals: against scikit-learn, and resamples drawn one after another."""

import numpy as np
import pytest
from predicted import predictions
from sklearn import metrics

from train.evaluation import unit_sums as sums_module
from train.evaluation.confusion import confusions
from train.evaluation.estimates import Estimate
from train.evaluation.estimates import estimate as estimated
from train.evaluation.metrics import compute_metrics, exact_areas, with_interval
from train.evaluation.unit_sums import areas, confusion_counts, unit_sums

NAMES = ["Fat", "Muscle", "Nerve"]


def estimate(target, shares, slide, classes, **options) -> dict[str, Estimate]:
    """Estimate all metrics of tiles on slides of these numbers."""
    return estimated(predictions(target, shares, slide, classes), **options)


def computed(sums) -> dict[str, np.ndarray]:
    """Return all metrics of sums."""
    return compute_metrics(sums, NAMES, with_interval())


@pytest.fixture(scope="module")
def tiles() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """600 tiles of 12 unlike slides, three classes, probabilities that are right often."""
    rng = np.random.default_rng(0)
    slide = np.sort(rng.integers(12, size=600))
    target = rng.choice(3, size=600, p=[0.5, 0.35, 0.15])
    logits = rng.normal(size=(600, 3)) + rng.normal(size=(12, 3))[slide]
    logits[np.arange(600), target] += 1.2
    shares = np.exp(logits)
    return target, (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32), slide


def test_figures_are_scikit_learns(tiles):
    target, shares, slide = tiles
    found = estimate(target, shares, slide, NAMES, ordered=True, resamples=20)
    guess = shares.argmax(axis=1)
    one_hot = np.eye(3)[target]
    expected = {
        "accuracy": metrics.accuracy_score(target, guess),
        "balanced_accuracy": metrics.balanced_accuracy_score(target, guess),
        "f1_macro": metrics.f1_score(target, guess, average="macro"),
        "kappa": metrics.cohen_kappa_score(target, guess),
        "kappa_quadratic": metrics.cohen_kappa_score(target, guess, weights="quadratic"),
        "auroc_macro": metrics.roc_auc_score(one_hot, shares, average="macro"),
        "average_precision_macro": metrics.average_precision_score(one_hot, shares),
        "brier": ((shares - one_hot) ** 2).sum(axis=1).mean(),
    }
    for index, name in enumerate(NAMES):
        expected[f"recall/{name}"] = metrics.recall_score(target, guess, average=None)[index]
        expected[f"f1/{name}"] = metrics.f1_score(target, guess, average=None)[index]
        expected[f"auroc/{name}"] = metrics.roc_auc_score(one_hot[:, index], shares[:, index])
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, abs=1e-6), name
        assert found[name].low <= found[name].value <= found[name].high


def test_calibration_error_by_hand():
    """Two bins: four tiles at .75 of which two are right, two at .95 both right."""
    shares = np.array([[0.75, 0.25]] * 4 + [[0.05, 0.95]] * 2, dtype=np.float32)
    target = np.array([0, 0, 1, 1, 1, 1])
    found = estimate(target, shares, np.array([0, 0, 0, 1, 1, 1]), ["a", "b"])
    expected = (4 * 0.25 + 2 * 0.05) / 6
    assert found["calibration_error"].value == pytest.approx(expected, abs=1e-6)


def test_areas_from_steps_are_near_the_exact_ones(tiles):
    target, shares, slide = tiles
    sums = unit_sums(target, shares, slide).total(np.ones(12))
    area, average = areas(sums.steps)
    exact = exact_areas(predictions(target, shares, target, NAMES))
    for index, name in enumerate(NAMES):
        assert area[index] == pytest.approx(exact[f"auroc/{name}"], abs=2e-3)
        assert average[index] == pytest.approx(exact[f"average_precision/{name}"], abs=2e-2)


def test_a_resample_is_the_tiles_of_the_slides_drawn(tiles):
    """A slide drawn twice counts twice; one that is not drawn, not at all."""
    target, shares, slide = tiles
    counts = np.array([2, 0, 1, 1, 0, 3, 1, 0, 1, 1, 0, 2.0])
    rows = np.repeat(np.arange(600), counts[slide].astype(int))
    found = computed(unit_sums(target, shares, slide).total(counts))
    guess = shares[rows].argmax(axis=1)
    assert found["f1_macro"] == pytest.approx(
        metrics.f1_score(target[rows], guess, average="macro")
    )
    assert found["kappa"] == pytest.approx(metrics.cohen_kappa_score(target[rows], guess))
    assert found["brier"] == pytest.approx(
        ((shares[rows] - np.eye(3)[target[rows]]) ** 2).sum(axis=1).mean(), abs=1e-6
    )


def test_slides_that_differ_make_wider_intervals_than_tiles_do(tiles):
    target, shares, slide = tiles
    by_slide = estimate(target, shares, slide, NAMES, resamples=300)["accuracy"]
    by_tile = estimate(target, shares, np.arange(600), NAMES, resamples=300)["accuracy"]
    assert by_slide.high - by_slide.low > 1.2 * (by_tile.high - by_tile.low)


def test_a_class_that_is_not_there_is_left_out(tiles):
    target, shares, slide = tiles
    four = np.pad(shares, ((0, 0), (0, 1)))
    found = estimate(np.minimum(target, 1), four, slide, [*NAMES, "Blood"], resamples=20)
    assert np.isnan(found["auroc/Blood"].value)
    assert np.isnan(found["f1/Blood"].value)
    assert np.isnan(found["recall/Nerve"].value)  # predicted, never true
    assert found["f1/Nerve"].value == 0
    guess = shares.argmax(axis=1)
    assert found["f1_macro"].value == pytest.approx(
        metrics.f1_score(np.minimum(target, 1), guess, average="macro", labels=[0, 1, 2])
    )


def test_one_slide_has_no_interval(tiles):
    target, shares, _ = tiles
    found = estimate(target, shares, np.zeros(600, dtype=int), NAMES)
    assert np.isfinite(found["accuracy"].value)
    assert np.isnan(found["accuracy"].low)


@pytest.mark.slow
def test_intervals_are_those_of_tiles_gathered_by_hand(tiles):
    """Slides drawn with numpy, their rows gathered, scikit-learn asked: 200 times."""
    target, shares, slide = tiles
    found = estimate(target, shares, slide, NAMES, ordered=True)
    rng, seen = np.random.default_rng(7), []
    for _ in range(200):
        drawn = rng.integers(12, size=12)
        rows = np.concatenate([np.flatnonzero(slide == own) for own in drawn])
        own, guess = target[rows], shares[rows].argmax(axis=1)
        seen.append(
            (
                metrics.f1_score(own, guess, average="macro"),
                metrics.cohen_kappa_score(own, guess, weights="quadratic"),
                metrics.roc_auc_score(own, shares[rows], multi_class="ovr"),
            )
        )
    for name, values in zip(
        ("f1_macro", "kappa_quadratic", "auroc_macro"), np.transpose(seen), strict=True
    ):
        low, high = np.percentile(values, [2.5, 97.5])
        width = high - low
        assert found[name].low == pytest.approx(low, abs=0.15 * width), name
        assert found[name].high == pytest.approx(high, abs=0.15 * width), name


def test_patients_make_wider_intervals_than_their_slides(tiles):
    target, shares, slide = tiles
    order = np.argsort([(shares.argmax(axis=1) == target)[slide == s].mean() for s in range(12)])
    patient = np.empty(12, dtype=int)
    patient[order] = np.arange(12) // 3  # slides of a patient are alike
    by_slide, by_patient = (
        estimate(target, shares, unit, NAMES, resamples=300)["accuracy"]
        for unit in (slide, patient[slide])
    )
    assert by_patient.value == by_slide.value
    assert by_patient.high - by_patient.low > 1.2 * (by_slide.high - by_slide.low)


def test_numbers_that_no_tile_bears_are_no_slides(tiles):
    """Slides of the training tiles alone are none of the validation's."""
    target, shares, slide = tiles
    assert estimate(target, shares, 5 * slide + 40, NAMES, resamples=50) == (
        estimate(target, shares, slide, NAMES, resamples=50)
    )


def test_a_resample_without_a_class_leaves_it_out(tiles):
    """Nerve is on one slide: where that is not drawn, means are over the other classes."""
    target, shares, slide = tiles
    target = np.where((target == 2) & (slide > 0), 0, target)
    counts = np.ones(12)
    counts[0] = 0
    found = computed(unit_sums(target, shares, slide).total(counts))
    rows = slide > 0
    expected = [metrics.roc_auc_score(target[rows] == k, shares[rows, k]) for k in (0, 1)]
    assert np.isnan(found["auroc/Nerve"])
    assert found["auroc_macro"] == pytest.approx(np.mean(expected), abs=2e-3)
    whole = estimate(target, shares, slide, NAMES, resamples=100)
    assert np.isfinite([whole["auroc_macro"].low, whole["auroc/Nerve"].high]).all()


def test_a_single_class_has_no_kappa_and_no_areas():
    shares = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]], dtype=np.float32)
    found = estimate(np.zeros(3, int), shares, np.arange(3), ["a", "b"], ordered=True)
    for name in ("kappa", "kappa_quadratic", "auroc_macro", "average_precision_macro"):
        assert np.isnan([found[name].value, found[name].low]).all(), name
    assert (found["accuracy"].value, found["balanced_accuracy"].low) == (1, 1)


def test_probabilities_that_are_all_alike_order_nothing():
    target = np.array([0, 1, 0, 1, 1])
    found = estimate(target, np.full((5, 2), 0.5, np.float32), target, ["a", "b"])
    assert found["auroc/b"].value == 0.5
    assert found["average_precision/b"].value == pytest.approx(0.6)


def test_very_many_units_take_fewer_steps(monkeypatch: pytest.MonkeyPatch, tiles):
    target, shares, _ = tiles
    monkeypatch.setattr(sums_module, "MEMORY", 600 * 3 * 2 * 8 * 40)
    found = unit_sums(target, shares, np.arange(600))
    assert found.steps.shape == (600, 3, 2, 40)
    area, _ = areas(found.total(np.ones(600)).steps)
    exact = exact_areas(predictions(target, shares, target, NAMES))
    assert area[0] == pytest.approx(exact["auroc/Fat"], abs=0.01)


def test_confusions_come_worst_first():
    cube = np.array([[[5, 3, 0], [1, 8, 0], [4, 0, 0]], [[2, 0, 0], [0, 0, 0], [0, 0, 0]]])
    found = confusions(cube, NAMES)
    assert found | {"low": [], "high": []} == {
        "true": ["Nerve", "Fat", "Muscle"],
        "predicted": ["Fat", "Muscle", "Fat"],
        "tiles": [4, 3, 1],
        "share_of_true": [1.0, 3 / 10, 1 / 9],
        "low": [],
        "high": [],
        "units": [1, 1, 1],
    }
    assert found["low"] == [1.0, 0.0, 1 / 9]  # of Fat, the second slide drawn twice
    assert found["high"] == [1.0, 3 / 8, 1 / 9]


def test_nothing_is_confused_by_who_is_right():
    found = confusions(np.array([np.diag([3, 4, 5])]), NAMES)
    assert all(values == [] for values in found.values())


def test_tiles_are_counted_by_unit_truth_and_prediction():
    unit, target, predicted = np.array([0, 0, 1]), np.array([1, 1, 0]), np.array([0, 0, 0])
    found = confusion_counts(unit, target, predicted, 2)
    assert found.tolist() == [[[0, 0], [2, 0]], [[1, 0], [0, 0]]]
