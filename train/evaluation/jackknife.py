"""Jackknife intervals of figures that slides, or patients, make."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
TAIL = 0.025  # at either end of a 95 % interval
METHOD = "jackknife"  # by which a run says how its intervals were made
LEAST_DEGREES = 3  # of freedom: with fewer, intervals of 10 units are wider and hold no more
ROUNDING = 1e-12  # of the range of a figure: deviations below it are those of floating point


def jackknife_interval(
    value: Floats, left_out: Floats, limits: Floats, units: npt.ArrayLike | None = None
) -> tuple[Floats, Floats]:
    """Return both ends of 95 % intervals, not a number where there can be none.

    Each figure is computed again without each unit (the delete-one jackknife). The standard error
    of that is taken to the logit scale of the figure's range, whose ends no interval crosses (R. G.
    Miller, 1974, "The jackknife - a review"), and multiplied by a quantile of Student's t. Its
    degrees of freedom are those of a variance of as heavy-tailed values as the deviations are: few
    if few units make most of it (B. O'Neill, 2014, "Some useful moment results in sampling
    problems": 2 n / (kurtosis - (n - 3) / (n - 1))), but not below `LEAST_DEGREES`.

    A figure at the end of its range does not vary. If m units all reach it, a lower share than
    0.025^(1/m) of such units would do so with a probability below 2.5 %: there the interval ends.

    Parameters
    ----------
    value
        The figures of all units, shape (M,).
    left_out
        Those without each unit, shape (M, n).
    limits
        The least and the largest value that each can have, shape (M, 2).
    units
        On how many of the n units each figure rests, shape (M,); by default on all.

    Examples
    --------
    >>> left_out = np.array([[0.78, 0.80, 0.82, 0.79, 0.81]])
    >>> low, high = jackknife_interval(np.array([0.8]), left_out, np.array([[0.0, 1.0]]))
    >>> low.round(2), high.round(2)
    (array([0.71]), array([0.87]))
    """
    clusters = left_out.shape[-1]
    counts = np.broadcast_to(clusters if units is None else units, value.shape).astype(float)
    low_end, high_end = limits.T
    extent = high_end - low_end
    deviation = left_out - value[:, None]
    deviation[np.abs(deviation) < ROUNDING * extent[:, None]] = 0
    share = (value - low_end) / extent
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        error = np.sqrt((clusters - 1) / clusters * (deviation**2).sum(axis=-1))
        logit, slope = np.log(share / (1 - share)), 1 / (extent * share * (1 - share))
        reach = student_quantile(degrees_of_freedom(deviation, counts)) * slope * error
        ends = [low_end + extent / (1 + np.exp(-(logit + sign * reach))) for sign in (-1, 1)]
        margin = (1 - TAIL ** (1 / counts)) * extent
    low, high = (np.where(error == 0, value, end) for end in ends)
    low = np.where(share >= 1, high_end - margin, low)
    high = np.where(share <= 0, low_end + margin, high)
    none = (counts < 2) | ~np.isfinite(value) | ~np.isfinite(error)
    return np.where(none, np.nan, low), np.where(none, np.nan, high)


def degrees_of_freedom(deviation: Floats, units: Floats) -> Floats:
    """Return the degrees of freedom of a variance, fewer the heavier the tails of what it is of.

    Parameters
    ----------
    deviation
        Shape (M, n).
    units
        How many of the n units there are to vary, shape (M,).
    """
    n = deviation.shape[-1]
    most = np.maximum(units - 1, 1)
    if n < 4:  # which cannot tell a kurtosis
        return most
    with np.errstate(divide="ignore", invalid="ignore"):
        raw = n * (deviation**4).sum(axis=-1) / (deviation**2).sum(axis=-1) ** 2 - 3
        excess = (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * raw + 6)  # without bias if normal
        degrees = 2 / (2 / (n - 1) + np.maximum(excess, 0) / n)
    return np.minimum(np.maximum(degrees, LEAST_DEGREES), most)


def student_quantile(degrees: Floats) -> Floats:
    """Return the quantile of Student's t that a 95 % interval ends at."""
    from scipy.special import stdtrit  # a tenth of a second, which a refused gate need not wait for

    quantile: Floats = stdtrit(degrees, 1 - TAIL)
    return quantile
