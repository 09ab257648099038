"""Metrics with 95 % intervals: cluster bootstrap over slides or patients."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from train.evaluation.bootstrap import AT_ONCE, RESAMPLES, Floats, interval
from train.evaluation.metrics import UnitSums, compute_metrics, exact_areas, unit_sums


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval; not a number where it is not defined."""

    value: float
    low: float
    high: float


def estimate(
    target: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float32],
    unit: npt.NDArray[np.int64],
    names: list[str],
    ordered: bool = False,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Estimate]:
    """Return every figure of `compute_metrics` with its interval, the units resampled.

    Areas under curves are exact; their intervals come from `STEPS` steps of the probability. A
    resample repeats units, and so looks less well calibrated than the whole: the calibration error
    may lie at the lower end of its interval, or below. A resample without a tile of some class
    leaves that class out. Parameters as in `unit_sums` and `compute_metrics`.
    """
    found = unit_sums(target, probabilities, unit)
    value = compute_metrics(found.total(np.ones(len(found.cube))), names, ordered)
    value |= exact_areas(target, probabilities, names)
    return resampled(found, value, names, ordered, seed, resamples)


def resampled(
    found: UnitSums,
    value: dict[str, Floats],
    names: list[str],
    ordered: bool = False,
    seed: int = 0,
    resamples: int = RESAMPLES,
    at_once: int = AT_ONCE,
) -> dict[str, Estimate]:
    """Give metrics their intervals; parameters as in `compute_metrics` and `interval`."""

    def drawn(counts: Floats) -> Floats:
        return np.stack(list(compute_metrics(found.total(counts), names, ordered).values()))

    low, high = interval(len(found.cube), drawn, seed, resamples, at_once)
    return {
        name: Estimate(float(value[name]), float(low[place]), float(high[place]))
        for place, name in enumerate(value)
    }
