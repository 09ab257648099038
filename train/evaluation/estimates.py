"""Metrics with 95 % intervals: the jackknife over slides or patients."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from train.evaluation.jackknife import Floats, jackknife_interval
from train.evaluation.metrics import compute_metrics, final_metrics, is_per_class, spec_of
from train.evaluation.unit_sums import LeaveOneOut, leave_one_out
from train.predictions.table import Predictions

FEW_UNITS = 10  # below which it is said beside a figure of how many it is
ALONE = "fewer than two units have it"
ALIKE = "every unit gives the same"
UNDEFINED = "without one of the units it is not defined"


@dataclass(frozen=True)
class Estimate:
    """A metric and its 95 % interval; not a number where it is not defined.

    Parameters
    ----------
    value, low, high
        The metric and both ends.
    units
        How many slides, or patients, it rests on: of a class, those that have a tile of it.
    no_interval
        Why there is none.
    """

    value: float
    low: float
    high: float
    units: int = 0
    no_interval: str = ""

    @property
    def ends(self) -> tuple[float, float, float]:
        """Value, lower and upper end."""
        return self.value, self.low, self.high

    @property
    def has_interval(self) -> bool:
        """Whether there is an interval."""
        return bool(np.isfinite(self.low))

    @property
    def is_of_few(self) -> bool:
        """Whether it rests on fewer units than an interval can be trusted with."""
        return 0 < self.units < FEW_UNITS

    def text(self, digits: int = 3, sign: str = "") -> str:
        """Return the interval for people, of how many units it is if they are few; or why not.

        Examples
        --------
        >>> Estimate(0.5, 0.25, 0.75, units=4).text(2)
        '0.25 – 0.75 (of 4)'
        """
        if not self.has_interval:
            return f"({self.no_interval})" if self.no_interval else ""
        few = f" (of {self.units})" if self.is_of_few else ""
        return f"{self.low:{sign}.{digits}f} – {self.high:{sign}.{digits}f}{few}"


def estimate(predictions: Predictions, ordered: bool = False) -> dict[str, Estimate]:
    """Return every metric of `compute_metrics` with its interval, clusters left out one by one.

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
    >>> round(accuracy.value, 3), accuracy.units, accuracy.text()
    (0.667, 2, '0.000 – 1.000 (of 2)')
    """
    sums = leave_one_out(predictions.target, predictions.probabilities, predictions.cluster)
    return with_intervals(sums, predictions.classes, final_metrics(ordered))


def with_intervals(
    sums: LeaveOneOut, classes: list[str], keys: Sequence[str]
) -> dict[str, Estimate]:
    """Return metrics with their intervals; parameters as in `compute_metrics`."""
    names, value, left_out = jackknifed(sums, classes, keys)
    return estimates(names, value, left_out, limits_of(names), units_of(sums, classes, names))


def estimates(
    names: Sequence[str], value: Floats, left_out: Floats, limits: Floats, units: Floats
) -> dict[str, Estimate]:
    """Return metrics, or their differences, with intervals, or why they have none.

    Parameters
    ----------
    names
        Of M metrics, by which `train.evaluation.metrics.METRICS` knows them.
    value, left_out, limits, units
        As `train.evaluation.jackknife.jackknife_interval`.
    """
    low, high = jackknife_interval(value, left_out, limits, units)
    by_name = {}
    for index, name in enumerate(names):
        ends = float(value[index]), float(low[index]), float(high[index])
        spec, number = spec_of(name), int(units[index])
        reason = spec.no_interval if spec else ""
        if not reason and np.isfinite(ends[0]):
            reason = reason_for_none(number, *ends)
        alone = without_interval(ends[0], number, reason)
        by_name[name] = alone if reason else Estimate(*ends, number)
    return by_name


def reason_for_none(units: int, value: float, low: float, high: float) -> str:
    """Return why an interval cannot be given; nothing if it can."""
    if units < 2:
        return ALONE
    if not np.isfinite(low):
        return UNDEFINED
    return ALIKE if low == high and value else ""  # that nothing differs may be: it is no chance


def jackknifed(
    sums: LeaveOneOut, classes: list[str], keys: Sequence[str]
) -> tuple[list[str], Floats, Floats]:
    """Return the names of M metrics, their values, shape (M,), and without each of n units, (M, n).

    Parameters as in `compute_metrics`.
    """
    values = compute_metrics(sums.total, classes, keys)
    left_out = compute_metrics(sums.left_out, classes, keys)
    return list(values), np.stack(list(values.values())), np.stack(list(left_out.values()))


def units_of(sums: LeaveOneOut, classes: list[str], names: Sequence[str]) -> Floats:
    """Return on how many units each metric rests: all, or those with a tile of its class."""
    of_class = dict(zip(classes, sums.units_of_class.tolist(), strict=True))
    return np.array([
        of_class[name.partition("/")[2]] if is_per_class(name) else len(sums) for name in names
    ], dtype=float)  # fmt: skip


def limits_of(names: Sequence[str]) -> Floats:
    """Return the least and the largest value of each metric, shape (M, 2)."""
    specs = [spec_of(name) for name in names]
    return np.array([spec.limits if spec else (0.0, 1.0) for spec in specs])


def without_interval(value: float, units: int = 0, reason: str = "") -> Estimate:
    """Return a metric alone."""
    return Estimate(float(value), np.nan, np.nan, units, reason)
