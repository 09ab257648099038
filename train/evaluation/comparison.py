"""Two models on the same tiles: differences with intervals, and McNemar's test."""

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from train.evaluation.bootstrap import RESAMPLES, interval
from train.evaluation.estimates import Estimate
from train.evaluation.metrics import compute_metrics, with_interval
from train.evaluation.unit_sums import Floats, unit_sums
from train.predictions.table import Predictions


def differences(
    one: Predictions,
    other: Predictions,
    ordered: bool = False,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Estimate]:
    """Return by how much each metric of ``other`` is above that of ``one``, on the same tiles.

    A resample draws clusters for both: what makes a slide hard for both cancels.
    """
    sums = [unit_sums(each.target, each.probabilities, each.cluster) for each in (one, other)]
    clusters, keys = len(sums[0]), with_interval(ordered)

    def statistic(counts: Floats) -> Floats:
        first, second = (compute_metrics(s.total(counts), one.classes, keys) for s in sums)
        return np.stack([second[name] - first[name] for name in first])

    value = statistic(np.ones((1, clusters)))[:, 0]
    low, high = interval(clusters, statistic, seed, resamples)
    names = compute_metrics(sums[0].total(np.ones(clusters)), one.classes, keys)
    return {
        name: Estimate(float(value[index]), float(low[index]), float(high[index]))
        for index, name in enumerate(names)
    }


def mcnemar(
    target: npt.NDArray[np.int64], one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]
) -> tuple[int, int, float]:
    """Return tiles that only one is right on, that only the other is, and McNemar's exact p.

    It takes tiles as independent, which those of a slide are not: where it and the interval over
    slides disagree, believe the interval.
    """
    right, other_right = one == target, other == target
    only_one = int((right & ~other_right).sum())
    only_other = int((other_right & ~right).sum())
    if not only_one + only_other:
        return 0, 0, 1.0
    p = float(binomtest(only_one, only_one + only_other).pvalue)
    return only_one, only_other, p
