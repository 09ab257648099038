"""Bootstrap intervals of whatever follows from how often each slide, or patient, is drawn."""

import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.stats import bootstrap

Floats = npt.NDArray[np.float64]
RESAMPLES = 2000
AT_ONCE = 100  # resamples of a product


def interval(
    units: int,
    drawn: Callable[[Floats], Floats],
    seed: int,
    resamples: int = RESAMPLES,
    at_once: int = AT_ONCE,
) -> tuple[Floats, Floats]:
    """Return both ends of 95 % percentile intervals, not a number with fewer than two units.

    Parameters
    ----------
    drawn
        Given how often each unit is drawn, shape (R, units), returns figures of shape (M, R).
    at_once
        Resamples in memory.
    """

    def statistic(number: npt.NDArray[np.int64], axis: int) -> Floats:
        number = np.moveaxis(number, axis, -1).reshape(-1, units)
        place = number + units * np.arange(len(number))[:, None]
        counts = np.bincount(place.ravel(), minlength=number.size).reshape(-1, units)
        return drawn(counts.astype(float))

    if units < 2:
        none = np.full(len(drawn(np.ones((1, units)))), np.nan)
        return none, none
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of figures that are not defined, which stay so
        found = bootstrap(
            (np.arange(units),), statistic, vectorized=True, n_resamples=resamples,
            method="percentile", batch=at_once, rng=np.random.default_rng(seed),
        ).bootstrap_distribution  # fmt: skip
        low, high = np.nanpercentile(found, [2.5, 97.5], axis=-1)
    return low, high
