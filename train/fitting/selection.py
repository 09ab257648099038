"""Which setting is the best: scores over folds, with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from train.config.schema import Config
from train.engine.trainer import FitResult
from train.evaluation import bootstrap
from train.evaluation.bootstrap import Floats
from train.evaluation.metrics import confusion_metrics, f1_macro
from train.evaluation.unit_sums import Counts
from train.fitting.divergence import check_result
from train.fitting.grid import HeadGrid

RESAMPLES = 1000


@dataclass(frozen=True)
class Score:
    """How good a setting is.

    Parameters
    ----------
    folds
        Metrics of each fold, see `train.evaluation.metrics.confusion_metrics`, and ``loss``.
    low, high
        95 % interval of the macro F1 over all its folds' predictions, clusters resampled.
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
    classes, seed, folds = config.class_names, config.seed, len(grid.folds)
    if grid.is_single:
        loss, _ = result.evaluate(counted=False)
        return Choice(0, 0, grid.folds[0], float(loss), int(result.best_epoch) + 1, [])
    loss, confusion = result.evaluate()
    check_result(result.best_loss, loss, config)
    by_fold = confusion.view(-1, folds, *confusion.shape[1:]).cpu().numpy()
    scores = [
        score(losses, counts, classes, seed)
        for losses, counts in zip(loss.view(-1, folds).tolist(), by_fold, strict=True)
    ]
    order = [(-round(s.mean("f1_macro"), 12), s.mean("loss")) for s in scores]
    setting = order.index(min(order))
    heads = grid.of_setting(setting)
    head = int(heads[loss.cpu()[heads].argmin()])
    epochs = int(np.median(result.best_epoch[heads].numpy())) + 1
    fold = grid.folds[head - setting * folds]
    return Choice(setting, head, fold, float(loss[head]), epochs, scores)


def score(losses: Sequence[float], confusion: Counts, classes: list[str], seed: int) -> Score:
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
    return Score(folds, *interval(confusion.sum(axis=0), seed))


def interval(confusion: Counts, seed: int) -> tuple[float, float]:
    """Return a 95 % percentile interval of the macro F1, the clusters resampled.

    Tiles of a slide are not independent: an interval over tiles would be far too narrow.

    Parameters
    ----------
    confusion
        Counts, shape (clusters, K, K).
    """
    present = confusion[confusion.sum(axis=(1, 2)) > 0].astype(float)

    def statistic(counts: Floats) -> Floats:
        return f1_macro(np.tensordot(counts, present, axes=1))[None]

    low, high = bootstrap.interval(len(present), statistic, seed, RESAMPLES)
    return float(low[0]), float(high[0])
