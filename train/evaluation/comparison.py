"""Two models on the same tiles: differences with intervals, and McNemar's test."""

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from train.evaluation.bootstrap import RESAMPLES, Floats, interval
from train.evaluation.estimates import Estimate
from train.evaluation.metrics import compute_metrics, unit_sums


def differences(
    target: npt.NDArray[np.int64],
    one: npt.NDArray[np.float32],
    other: npt.NDArray[np.float32],
    unit: npt.NDArray[np.int64],
    names: list[str],
    ordered: bool = False,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Estimate]:
    """Return by how much each figure of ``other`` is above that of ``one``, on the same tiles.

    A resample draws units for both: what makes a slide hard for both cancels.
    """
    pair = [unit_sums(target, shares, unit) for shares in (one, other)]
    units = len(pair[0].cube)

    def drawn(counts: Floats) -> Floats:
        first, second = (compute_metrics(own.total(counts), names, ordered) for own in pair)
        return np.stack([second[name] - first[name] for name in first])

    value = drawn(np.ones((1, units)))[:, 0]
    low, high = interval(units, drawn, seed, resamples)
    kinds = compute_metrics(pair[0].total(np.ones(units)), names, ordered)
    return {
        name: Estimate(float(value[place]), float(low[place]), float(high[place]))
        for place, name in enumerate(kinds)
    }


def mcnemar(
    target: npt.NDArray[np.int64], one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]
) -> tuple[int, int, float]:
    """Return tiles that only one is right on, that only the other is, and McNemar's exact p.

    It takes tiles as independent, which those of a slide are not: where it and the interval over
    slides disagree, believe the interval.
    """
    mine, theirs = one == target, other == target
    alone, others = int((mine & ~theirs).sum()), int((theirs & ~mine).sum())
    if not alone + others:
        return 0, 0, 1.0
    return alone, others, float(binomtest(alone, alone + others).pvalue)
