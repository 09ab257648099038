"""Bootstrap intervals of whatever follows from how often each slide, or patient, is drawn."""

import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
RESAMPLES = 2000
AT_ONCE = 100  # resamples of a product


def interval(
    clusters: int,
    statistic: Callable[[Floats], Floats],
    seed: int,
    resamples: int = RESAMPLES,
    at_once: int = AT_ONCE,
) -> tuple[Floats, Floats]:
    """Return both ends of 95 % percentile intervals, not a number with fewer than two clusters.

    Parameters
    ----------
    statistic
        Given how often each cluster is drawn, shape (R, clusters), returns values of shape (M, R).
    at_once
        Resamples in memory.
    """
    from scipy.stats import bootstrap  # a second, which a refused gate need not wait for

    def of_numbers(number: npt.NDArray[np.int64], axis: int) -> Floats:
        number = np.moveaxis(number, axis, -1).reshape(-1, clusters)
        place = number + clusters * np.arange(len(number))[:, None]
        counts = np.bincount(place.ravel(), minlength=number.size).reshape(-1, clusters)
        return statistic(counts.astype(float))

    if clusters < 2:
        none = np.full(len(statistic(np.ones((1, clusters)))), np.nan)
        return none, none
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that are not defined, which stay so
        distribution = bootstrap(
            (np.arange(clusters),), of_numbers, vectorized=True, n_resamples=resamples,
            method="percentile", batch=at_once, rng=np.random.default_rng(seed),
        ).bootstrap_distribution  # fmt: skip
        low, high = np.nanpercentile(distribution, [2.5, 97.5], axis=-1)
    return low, high
