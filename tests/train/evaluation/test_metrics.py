"""Figures and their intervals: against scikit-learn and SciPy, units left out one by one."""

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from predicted import predictions
from scipy import special, stats
from sklearn import metrics

from train.evaluation.confusion import confusions
from train.evaluation.estimates import ALIKE, ALONE, Estimate
from train.evaluation.estimates import estimate as estimated
from train.evaluation.metrics import compute_metrics, final_metrics, spec_of
from train.evaluation.unit_sums import confusion_cells, confusion_matrix, leave_one_out

NAMES = ["Fat", "Muscle", "Nerve"]


def estimate(target, shares, slide, classes, **options) -> dict[str, Estimate]:
    """Estimate all metrics of tiles on slides of these numbers."""
    return estimated(predictions(target, shares, slide, classes), **options)


def computed(sums, classes=NAMES) -> dict[str, np.ndarray]:
    """Return all metrics of sums."""
    return compute_metrics(sums, classes, final_metrics(ordered=True))


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
    by_name = estimate(target, shares, slide, NAMES, ordered=True)
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
        assert by_name[name].value == pytest.approx(value, abs=1e-6), name
        assert by_name[name].low < by_name[name].value < by_name[name].high


def test_calibration_error_by_hand():
    """Two bins: four tiles at .75 of which two are right, two at .95 both right."""
    shares = np.array([[0.75, 0.25]] * 4 + [[0.05, 0.95]] * 2, dtype=np.float32)
    target = np.array([0, 0, 1, 1, 1, 1])
    by_name = estimate(target, shares, np.array([0, 0, 0, 1, 1, 1]), ["a", "b"])
    expected = (4 * 0.25 + 2 * 0.05) / 6
    assert by_name["calibration_error"].value == pytest.approx(expected, abs=1e-6)


def test_without_a_unit_sums_are_those_of_the_other_tiles(tiles):
    """Of each slide left out, scikit-learn is asked on the rows that stay."""
    target, shares, slide = tiles
    left_out_metrics = computed(leave_one_out(target, shares, slide).left_out)
    for number in range(12):
        rows = slide != number
        true, guess = target[rows], shares[rows].argmax(axis=1)
        expected = {
            "f1_macro": metrics.f1_score(true, guess, average="macro"),
            "kappa": metrics.cohen_kappa_score(true, guess),
            "kappa_quadratic": metrics.cohen_kappa_score(true, guess, weights="quadratic"),
            "brier": ((shares[rows] - np.eye(3)[true]) ** 2).sum(axis=1).mean(),
        }
        for name, value in expected.items():
            assert left_out_metrics[name][number] == pytest.approx(value, abs=1e-6), name
        for index, name in enumerate(NAMES):
            area = metrics.roc_auc_score(true == index, shares[rows, index])
            average = metrics.average_precision_score(true == index, shares[rows, index])
            assert left_out_metrics[f"auroc/{name}"][number] == pytest.approx(area, abs=5e-4)
            assert left_out_metrics[f"average_precision/{name}"][number] == pytest.approx(
                average, abs=5e-3
            )


def test_a_rare_class_is_left_out_as_exactly():
    """Of five hundred tiles one is of the class: quantiles of all would put it into one step."""
    rng = np.random.default_rng(0)
    rare = (np.arange(10_000) % 500 == 0).astype(int)
    logit = rng.normal(size=10_000) + 2 * rare
    share = 1 / (1 + np.exp(-logit))
    shares = np.stack([1 - share, share], axis=1).astype(np.float32)
    slide = np.arange(10_000) // 1_000
    left_out_metrics = computed(leave_one_out(rare, shares, slide).left_out, ["many", "rare"])
    exact = [
        metrics.average_precision_score(rare[slide != number], shares[slide != number, 1])
        for number in range(10)
    ]
    error = np.std(left_out_metrics["average_precision/rare"] - exact)
    assert error < 0.05 * np.std(exact)


def test_slides_that_differ_make_wider_intervals_than_tiles_do(tiles):
    target, shares, slide = tiles
    by_slide = estimate(target, shares, slide, NAMES)["accuracy"]
    by_tile = estimate(target, shares, np.arange(600), NAMES)["accuracy"]
    assert by_slide.high - by_slide.low > 1.2 * (by_tile.high - by_tile.low)


def test_a_class_that_is_not_there_is_left_out(tiles):
    target, shares, slide = tiles
    four = np.pad(shares, ((0, 0), (0, 1)))
    by_name = estimate(np.minimum(target, 1), four, slide, [*NAMES, "Blood"])
    assert np.isnan(by_name["auroc/Blood"].value)
    assert np.isnan(by_name["f1/Blood"].value)
    assert np.isnan(by_name["recall/Nerve"].value)  # predicted, never true
    assert by_name["f1/Nerve"].value == 0
    guess = shares.argmax(axis=1)
    assert by_name["f1_macro"].value == pytest.approx(
        metrics.f1_score(np.minimum(target, 1), guess, average="macro", labels=[0, 1, 2])
    )


def test_one_slide_has_no_interval(tiles):
    target, shares, _ = tiles
    by_name = estimate(target, shares, np.zeros(600, dtype=int), NAMES)
    assert np.isfinite(by_name["accuracy"].value)
    assert np.isnan(by_name["accuracy"].low)


def test_an_interval_of_a_mean_is_that_of_a_t_test(tiles):
    """Slides of equally many tiles: on the logit scale, the t interval of their accuracies."""
    rng = np.random.default_rng(3)
    right = np.arange(50) < rng.normal(35, 4, size=24).round()[:, None]
    target, slide = np.zeros(24 * 50, int), np.repeat(np.arange(24), 50)
    shares = np.where(right.reshape(-1, 1), [[0.9, 0.1]], [[0.1, 0.9]])
    accuracy = estimate(target, shares, slide, ["a", "b"])["accuracy"]
    by_slide = right.mean(axis=1)
    mean, error = by_slide.mean(), stats.sem(by_slide)
    excess = max(stats.kurtosis(by_slide, bias=False), 0)
    degrees = 2 / (2 / 23 + excess / 24)
    margin = stats.t.ppf(0.975, degrees) * error / (mean * (1 - mean))
    expected = special.expit(special.logit(mean) + np.array([-margin, margin]))
    assert (accuracy.low, accuracy.high) == pytest.approx(tuple(expected))


def test_intervals_stay_within_what_a_figure_can_be(tiles):
    target, shares, slide = tiles
    for name, figure in estimate(target, shares, slide % 3, NAMES, ordered=True).items():
        low, high = spec_of(name).limits
        if figure.has_interval:
            assert low <= figure.low <= figure.value <= figure.high <= high


def test_all_right_on_every_slide_is_not_beyond_doubt():
    """If fewer than .025^(1/8) of the slides were all right, eight of them would hardly be."""
    target, slide = np.tile([0, 1], 8), np.repeat(np.arange(8), 2)
    by_name = estimate(target, np.eye(2)[target], slide, ["a", "b"])
    for name in ("accuracy", "f1_macro", "recall/a", "kappa", "auroc_macro"):
        width = 2 if name == "kappa" else 1
        assert by_name[name].high == by_name[name].value == 1
        assert by_name[name].low == pytest.approx(1 - width * (1 - 0.025 ** (1 / 8)))
    assert by_name["brier"].ends == (0, 0, pytest.approx(2 * (1 - 0.025 ** (1 / 8))))


def test_there_is_no_interval_without_a_reason(tiles):
    target, shares, slide = tiles
    target = np.where((target == 2) & (slide > 0), 0, target)
    by_name = estimate(target, shares, slide, NAMES)
    assert (by_name["recall/Nerve"].units, by_name["recall/Nerve"].no_interval) == (1, ALONE)
    assert by_name["recall/Fat"].units == 12
    assert "too large" in by_name["calibration_error"].no_interval
    one_each = np.tile([0, 1], 6)
    alike = estimate(one_each, np.eye(2)[np.zeros(12, int)], np.repeat(range(6), 2), ["a", "b"])
    assert (alike["accuracy"].value, alike["accuracy"].no_interval) == (0.5, ALIKE)
    for each in [*by_name.values(), *alike.values()]:
        assert each.has_interval != bool(each.no_interval) or np.isnan(each.value)


@given(st.integers(2, 9), st.integers(1, 3), st.integers(0, 10**6))
def test_no_interval_leaves_its_estimate_out(units: int, classes: int, seed: int):
    rng = np.random.default_rng(seed)
    slide = rng.integers(units, size=40)
    target = rng.integers(classes, size=40)
    shares = rng.dirichlet(np.full(classes, 0.3), size=40)
    names = NAMES[:classes]
    for name, each in estimate(target, shares, slide, names, ordered=True).items():
        if each.has_interval:
            assert each.low <= each.value <= each.high, name


def test_patients_make_wider_intervals_than_their_slides(tiles):
    target, shares, slide = tiles
    order = np.argsort([(shares.argmax(axis=1) == target)[slide == s].mean() for s in range(12)])
    patient = np.empty(12, dtype=int)
    patient[order] = np.arange(12) // 3  # slides of a patient are alike
    by_slide, by_patient = (
        estimate(target, shares, unit, NAMES)["accuracy"] for unit in (slide, patient[slide])
    )
    assert by_patient.value == by_slide.value
    assert by_patient.high - by_patient.low > 1.2 * (by_slide.high - by_slide.low)


def test_numbers_that_no_tile_bears_are_no_slides(tiles):
    """Slides of the training tiles alone are none of the validation's."""
    target, shares, slide = tiles
    ours, expected = (
        {name: astuple(each) for name, each in estimate(target, shares, of, NAMES).items()}
        for of in (5 * slide + 40, slide)
    )
    np.testing.assert_equal(ours, expected)  # NaN is no equal of itself in a dataclass


def test_a_unit_that_has_a_class_alone_takes_it_along(tiles):
    """Nerve is on one slide: without it, means are over the other classes."""
    target, shares, slide = tiles
    target = np.where((target == 2) & (slide > 0), 0, target)
    left_out_metrics = computed(leave_one_out(target, shares, slide).left_out)
    rows = slide > 0
    expected = [metrics.roc_auc_score(target[rows] == k, shares[rows, k]) for k in (0, 1)]
    assert np.isnan(left_out_metrics["auroc/Nerve"][0])
    assert left_out_metrics["auroc_macro"][0] == pytest.approx(np.mean(expected), abs=2e-3)


def test_a_single_class_has_no_kappa_and_no_areas():
    shares = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]], dtype=np.float32)
    by_name = estimate(np.zeros(3, int), shares, np.arange(3), ["a", "b"], ordered=True)
    for name in ("kappa", "kappa_quadratic", "auroc_macro", "average_precision_macro"):
        assert np.isnan([by_name[name].value, by_name[name].low]).all(), name
    assert (by_name["accuracy"].value, by_name["balanced_accuracy"].high) == (1, 1)


def test_probabilities_that_are_all_alike_order_nothing():
    target = np.array([0, 1, 0, 1, 1])
    by_name = estimate(target, np.full((5, 2), 0.5, np.float32), target, ["a", "b"])
    assert by_name["auroc/b"].value == 0.5
    assert by_name["average_precision/b"].value == pytest.approx(0.6)


def test_confusions_come_worst_first():
    """The second slide alone has Fat that is all right; Muscle and Nerve are on the first alone."""
    true, predicted = (
        np.repeat([0, 0, 1, 1, 2, 0], [5, 3, 1, 8, 4, 2]),
        np.repeat([0, 1, 0, 1, 0, 0], [5, 3, 1, 8, 4, 2]),
    )
    slide = np.repeat([0, 1], [21, 2])
    rows = confusions(predictions(true, np.eye(3)[predicted], slide, NAMES),
                       confusion_matrix(true, predicted, 3))  # fmt: skip
    low, high = np.array(rows.pop("low")), np.array(rows.pop("high"))
    assert rows == {
        "true": ["Nerve", "Fat", "Muscle"],
        "predicted": ["Fat", "Muscle", "Fat"],
        "tiles": [4, 3, 1],
        "share_of_true": [1.0, 3 / 10, 1 / 9],
        "units": [1, 1, 1],
    }
    assert np.isnan(low).tolist() == [True, False, True]
    assert 0 <= low[1] < 3 / 10 < high[1] <= 1


def test_nothing_is_confused_by_who_is_right():
    true = np.repeat([0, 1, 2], [3, 4, 5])
    rows = confusions(predictions(true, np.eye(3)[true], true, NAMES), np.diag([3, 4, 5]))
    assert all(values == [] for values in rows.values())


def test_tiles_are_counted_by_unit_truth_and_prediction():
    unit, target, predicted = np.array([0, 0, 1]), np.array([1, 1, 0]), np.array([0, 0, 0])
    cells = confusion_cells(unit, 2, predicted, target, 2)
    assert cells.select(0, 1).matrix().tolist() == [[0, 0], [2, 0]]
    assert cells.select(1, 2).matrix().tolist() == [[1, 0], [0, 0]]
