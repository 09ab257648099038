"""Which setting is the best: scores over folds, with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from train.config.schema import Config
from train.engine.trainer import FitResult
from train.evaluation.estimates import Estimate, estimates, limits_of
from train.evaluation.metrics import confusion_metrics, f1_macro, nan_mean
from train.evaluation.unit_sums import Counts
from train.fitting.divergence import check_result
from train.fitting.grid import HeadGrid


@dataclass(frozen=True)
class Score:
    """How good a setting is.

    Parameters
    ----------
    folds
        Metrics of each fold, see `train.evaluation.metrics.confusion_metrics`, and ``loss``.
    f1_macro
        The mean of its folds' macro F1, with the 95 % interval of that mean.
    """

    folds: list[dict[str, float]]
    f1_macro: Estimate

    def mean(self, metric: str) -> float:
        """Return the mean of a metric over the folds."""
        return float(np.mean([fold[metric] for fold in self.folds]))

    def spread(self, metric: str) -> float:
        """Return its standard deviation over the folds, 0 for a single one."""
        values = [fold[metric] for fold in self.folds]
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


@dataclass(frozen=True)
class Choice:
    """The best setting of a grid, and its best head.

    Parameters
    ----------
    setting
        Its number.
    head
        The head of the setting whose validation loss is the lowest.
    fold
        The fold that this head validates on.
    loss
        Its validation loss.
    median_epochs
        Epochs of the setting's heads, the median over its folds.
    scores
        Of every setting; of a single head there are none to compare.
    """

    setting: int
    head: int
    fold: int
    loss: float
    median_epochs: int
    scores: list[Score]

    @property
    def fold_index(self) -> int:
        """Which of the setting's folds it is."""
        return self.head % len(self.score.folds)

    @property
    def score(self) -> Score:
        """How good the best setting is."""
        return self.scores[self.setting]


def select_setting(grid: HeadGrid, result: FitResult, config: Config) -> Choice:
    """Return the setting with the highest mean macro F1; the lower loss decides a tie.

    Raises
    ------
    DivergedError
        No head has ever had a finite loss.
    """
    classes, folds = config.class_names, len(grid.folds)
    if grid.is_single:
        loss, _ = result.evaluate(counted=False)
        return Choice(0, 0, grid.folds[0], float(loss), int(result.best_epoch) + 1, [])
    loss, confusion = result.evaluate()
    check_result(result.best_loss, loss, config)
    by_fold = confusion.view(-1, folds, *confusion.shape[1:]).cpu().numpy()
    scores = [
        score(losses, counts, classes)
        for losses, counts in zip(loss.view(-1, folds).tolist(), by_fold, strict=True)
    ]
    order = [(-round(s.mean("f1_macro"), 12), s.mean("loss")) for s in scores]
    setting = order.index(min(order))
    heads = grid.of_setting(setting)
    head = int(heads[loss.cpu()[heads].argmin()])
    epochs = int(np.median(result.best_epoch[heads].numpy())) + 1
    fold = grid.folds[head - setting * folds]
    return Choice(setting, head, fold, float(loss[head]), epochs, scores)


def score(losses: Sequence[float], confusion: Counts, classes: list[str]) -> Score:
    """Return how good a setting is.

    Parameters
    ----------
    losses
        Validation loss of each fold.
    confusion
        Counts, shape (folds, clusters, K, K); see ``evidence.resample``.
    """
    folds = [
        confusion_metrics(fold.sum(axis=0), classes) | {"loss": float(loss)}
        for loss, fold in zip(losses, confusion, strict=True)
    ]
    return Score(folds, mean_f1_macro(confusion))


def mean_f1_macro(confusion: Counts) -> Estimate:
    """Return the mean of the folds' macro F1 and its 95 % interval, clusters left out one by one.

    Without the only cluster of a fold, the mean is that of the other folds. The heads stay as they
    were trained: how much another cohort would have changed them is not in the interval.

    Parameters
    ----------
    confusion
        Counts, shape (folds, clusters, K, K).
    """
    present = confusion[:, confusion.any(axis=(0, 2, 3))]
    total = present.sum(axis=1)
    value = f1_macro(total).mean(keepdims=True)
    left_out = nan_mean(f1_macro(total[:, None] - present).T)[None]
    names, units = ["f1_macro"], np.array([present.shape[1]], dtype=float)
    return estimates(names, value, left_out, limits_of(names), units)["f1_macro"]
