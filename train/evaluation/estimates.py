"""Metrics with 95 % intervals: cluster bootstrap over slides or patients."""

from dataclasses import dataclass

import numpy as np

from train.evaluation.bootstrap import AT_ONCE, RESAMPLES, interval
from train.evaluation.metrics import compute_metrics, exact_areas, with_interval
from train.evaluation.unit_sums import Floats, UnitSums, unit_sums
from train.predictions.table import Predictions


@dataclass(frozen=True)
class Estimate:
    """A metric and its 95 % interval; not a number where it is not defined."""

    value: float
    low: float
    high: float

    @property
    def ends(self) -> tuple[float, float, float]:
        """Value, lower and upper end."""
        return self.value, self.low, self.high

    @property
    def has_interval(self) -> bool:
        """Whether there was more than one cluster to resample."""
        return bool(np.isfinite(self.low))


@dataclass(frozen=True)
class Resampling:
    """How intervals are made.

    Parameters
    ----------
    seed
        Of the resamples.
    number
        Of resamples.
    at_once
        Resamples in memory.
    """

    seed: int = 0
    number: int = RESAMPLES
    at_once: int = AT_ONCE


def estimate(
    predictions: Predictions, ordered: bool = False, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Estimate]:
    """Return every metric of `compute_metrics` with its interval, the clusters resampled.

    Areas under curves are exact; their intervals come from `train.evaluation.unit_sums.STEPS` steps
    of the probability. A resample repeats clusters, and so looks less well calibrated than all of
    them: the calibration error may lie at the lower end of its interval, or below. A resample
    without a tile of some class leaves that class out.

    Parameters
    ----------
    predictions
        Every tile with its label.
    ordered
        Whether the order of the classes means something.

    Examples
    --------
    >>> import pyarrow as pa
    >>> table = pa.table({
    ...     "slide_id": ["a", "a", "b"], "x": [0, 1, 0], "y": [0, 0, 0], "target": [0, 1, 1],
    ...     "prob_Fat": [0.9, 0.6, 0.2], "prob_Muscle": [0.1, 0.4, 0.8],
    ... })
    >>> accuracy = estimate(Predictions.from_table(table, ["Fat", "Muscle"]))["accuracy"]
    >>> round(accuracy.value, 3), accuracy.low, accuracy.high
    (0.667, 0.5, 1.0)
    """
    sums = unit_sums(predictions.target, predictions.probabilities, predictions.cluster)
    keys, classes = with_interval(ordered), predictions.classes
    values = compute_metrics(sums.total(np.ones(len(sums))), classes, keys)
    values |= exact_areas(predictions)
    return with_intervals(sums, values, classes, keys, Resampling(seed, resamples))


def with_intervals(
    sums: UnitSums,
    values: dict[str, Floats],
    classes: list[str],
    keys: list[str],
    resampling: Resampling,
) -> dict[str, Estimate]:
    """Give the values of metrics their intervals; parameters as in `compute_metrics`."""

    def statistic(counts: Floats) -> Floats:
        return np.stack(list(compute_metrics(sums.total(counts), classes, keys).values()))

    how = resampling
    low, high = interval(len(sums), statistic, how.seed, how.number, how.at_once)
    return {
        name: Estimate(float(value), float(low[index]), float(high[index]))
        for index, (name, value) in enumerate(values.items())
    }
