"""Which setting is the best: scores over folds, with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from train.evaluation import bootstrap
from train.evaluation.bootstrap import Floats
from train.evaluation.metrics import confusion_metrics, f1_macro
from train.evaluation.unit_sums import Counts

RESAMPLES = 1000


@dataclass(frozen=True)
class Score:
    """How good a setting is.

    Parameters
    ----------
    folds
        Metrics of each fold, see `train.evaluation.metrics.confusion_metrics`, and ``loss``.
    low, high
        95 % interval of the macro F1 over all its folds' predictions, units resampled.
    """

    folds: list[dict[str, float]]
    low: float
    high: float

    def mean(self, metric: str) -> float:
        """Return the mean of a metric over the folds."""
        return float(np.mean([fold[metric] for fold in self.folds]))

    def spread(self, metric: str) -> float:
        """Return its standard deviation over the folds, 0 for a single one."""
        values = [fold[metric] for fold in self.folds]
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def score(losses: Sequence[float], cube: Counts, classes: list[str], seed: int) -> Score:
    """Return how good a setting is.

    Parameters
    ----------
    losses
        Validation loss of each fold.
    cube
        Counts, shape (folds, units, K, K); see `evidence.resample`.
    """
    folds = [
        confusion_metrics(own.sum(axis=0), classes) | {"loss": float(loss)}
        for loss, own in zip(losses, cube, strict=True)
    ]
    return Score(folds, *interval(cube.sum(axis=0), seed))


def interval(cube: Counts, seed: int) -> tuple[float, float]:
    """Return a 95 % percentile interval of the macro F1, the units resampled.

    Tiles of a slide are not independent: an interval over tiles would be far too narrow.

    Parameters
    ----------
    cube
        Counts, shape (units, K, K).
    """
    there = cube[cube.sum(axis=(1, 2)) > 0].astype(float)

    def drawn(counts: Floats) -> Floats:
        return f1_macro(np.tensordot(counts, there, axes=1))[None]

    low, high = bootstrap.interval(len(there), drawn, seed, RESAMPLES)
    return float(low[0]), float(high[0])


def best(scores: Sequence[Score]) -> int:
    """Return the setting with the highest mean macro F1; the lower loss decides a tie."""
    order = [(-round(s.mean("f1_macro"), 12), s.mean("loss")) for s in scores]
    return order.index(min(order))
