"""The number that a setting is chosen by, and the interval of that number."""

import tracemalloc

import numpy as np
import pytest
from scipy import special, stats

from train.evaluation.estimates import Estimate
from train.evaluation.metrics import nan_mean
from train.evaluation.unit_sums import ConfusionCells
from train.fitting import selection


def mean_f1_macro(counts: np.ndarray) -> Estimate:
    """Return the estimate of counts of shape (folds, clusters, K, K)."""
    index = np.flatnonzero(counts)
    folds, clusters, classes, _ = counts.shape
    cells = ConfusionCells(index, counts.ravel()[index], folds * clusters, classes)
    return selection.mean_f1_macro(cells, folds)


def f1_macro(counts: np.ndarray) -> np.ndarray:
    """Return the macro F1 of matrices of shape (..., K, K)."""
    hits, tiles = np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1) + counts.sum(-2)
    with np.errstate(invalid="ignore"):
        return nan_mean(2 * hits / tiles)


def confusions(folds: int, clusters: int) -> np.ndarray:
    """Return unlike confusion matrices of clusters in folds, shape (folds, clusters, 2, 2)."""
    rng = np.random.default_rng(0)
    counts = np.zeros((folds, clusters, 2, 2), dtype=np.int64)
    for cluster in range(clusters):
        counts[cluster % folds, cluster] = rng.integers(1, 20, size=(2, 2)) + 20 * np.eye(
            2, dtype=int
        )
    return counts


def test_the_interval_holds_the_mean_over_folds():
    counts = confusions(folds=3, clusters=12)
    estimate = mean_f1_macro(counts)
    assert estimate.value == pytest.approx(np.mean(f1_macro(counts.sum(axis=1))))
    assert estimate.low < estimate.value < estimate.high
    assert estimate.units == 12


def test_of_folds_with_a_cluster_each_it_is_the_t_interval_of_their_values():
    """On the logit scale, as of any mean."""
    counts = confusions(folds=8, clusters=8)
    by_fold = f1_macro(counts.sum(axis=1))
    estimate = mean_f1_macro(counts)
    excess = max(stats.kurtosis(by_fold, bias=False), 0)
    reach = stats.t.ppf(0.975, max(2 / (2 / 7 + excess / 8), 3)) * stats.sem(by_fold)
    mean = by_fold.mean()
    margin = np.array([-1, 1]) * reach / (mean * (1 - mean))
    expected = special.expit(special.logit(mean) + margin)
    assert (estimate.low, estimate.high) == pytest.approx(tuple(expected))


def test_clusters_without_a_tile_in_these_folds_are_none():
    counts = confusions(folds=2, clusters=6)
    padded = np.concatenate([counts, np.zeros((2, 5, 2, 2), dtype=np.int64)], axis=1)
    assert mean_f1_macro(padded) == mean_f1_macro(counts)


@pytest.mark.parametrize("at_once", [1, 40, 2**20])
def test_clusters_are_left_out_as_of_dense_counts(monkeypatch: pytest.MonkeyPatch, at_once: int):
    """However many clusters are in memory at a time, exactly the same numbers."""
    monkeypatch.setattr(selection, "AT_ONCE", at_once)
    counts = np.random.default_rng(0).integers(2, size=(3, 9, 4, 4))
    counts[0, :8] = 0  # all tiles of a fold are of one cluster
    seen = {}

    def estimates(names: list, value: np.ndarray, left_out: np.ndarray, *_: object) -> dict:
        seen.update(value=value, left_out=left_out)
        return dict.fromkeys(names)

    monkeypatch.setattr(selection, "estimates", estimates)
    mean_f1_macro(counts)
    total = counts.sum(axis=1)
    np.testing.assert_array_equal(seen["value"], [f1_macro(total).mean()])
    expected = nan_mean(f1_macro(total[:, None] - counts).T)
    np.testing.assert_array_equal(seen["left_out"], [expected])


def test_memory_goes_by_the_cells_and_one_unit():
    """Dense, the counts of a setting of five folds, 5,000 slides and 200 classes are 8 GB."""
    rng, folds, slides, classes = np.random.default_rng(0), 5, 5000, 200
    slide = rng.integers(slides, size=20_000)
    index = ((slide % folds) * slides + slide) * classes**2 + rng.integers(
        classes**2, size=len(slide)
    )
    cells = ConfusionCells.of(index, folds * slides, classes)
    tracemalloc.start()
    estimate = selection.mean_f1_macro(cells, folds)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert estimate.units > 4800
    assert peak < 40e6
