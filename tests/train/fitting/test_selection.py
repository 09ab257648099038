"""The number that a setting is chosen by, and the interval of that number."""

import numpy as np
import pytest
from scipy import special, stats

from train.evaluation.metrics import f1_macro
from train.fitting.selection import mean_f1_macro


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
