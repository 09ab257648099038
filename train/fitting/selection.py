"""Which setting is the best: scores over folds, with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from train.config.schema import Config
from train.engine.trainer import FitResult
from train.evaluation.estimates import Estimate, estimates, limits_of
from train.evaluation.jackknife import Floats
from train.evaluation.metrics import METRICS, confusion_metrics, nan_mean
from train.evaluation.unit_sums import ConfusionCells, UnitSums
from train.fitting.divergence import check_result
from train.fitting.grid import HeadGrid

AT_ONCE = 2**17  # sums of clusters, folds and classes in memory


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
    curve
        Where slides are drawn: of the draws of each few-shot setting together, in its order.
    """

    setting: int
    head: int
    fold: int
    loss: float
    median_epochs: int
    scores: list[Score]
    curve: list[Score] = field(default_factory=list)

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
    loss, cells = result.evaluate_by_cluster()
    check_result(result.best_loss, loss, config)
    size = cells.units // len(loss) * folds
    scores = [
        score(losses, cells.select(number * size, (number + 1) * size), classes)
        for number, losses in enumerate(loss.view(-1, folds).tolist())
    ]
    order = [(-round(s.mean("f1_macro"), 12), s.mean("loss")) for s in scores]
    setting = order.index(min(order))
    heads = grid.of_setting(setting)
    head = int(heads[loss.cpu()[heads].argmin()])
    epochs = int(np.median(result.best_epoch[heads].numpy())) + 1
    fold = grid.folds[head - setting * folds]
    curve = few_shot_curve(grid, scores, cells) if grid.settings[0].shots else []
    return Choice(setting, head, fold, float(loss[head]), epochs, scores, curve)


def few_shot_curve(grid: HeadGrid, scores: Sequence[Score], cells: ConfusionCells) -> list[Score]:
    """Return how good the draws of each few-shot setting are together.

    Parameters
    ----------
    scores, cells
        Of all settings: those that differ by their draw alone follow each other.
    """
    folds, draws = len(grid.folds), grid.draws
    size = cells.units // len(scores)
    return [
        Score(
            [fold for one in scores[first : first + draws] for fold in one.folds],
            mean_f1_macro(cells.select(first * size, (first + draws) * size), folds * draws, draws),
        )
        for first in range(0, len(scores), draws)
    ]


def score(losses: Sequence[float], cells: ConfusionCells, classes: list[str]) -> Score:
    """Return how good a setting is.

    Parameters
    ----------
    losses
        Validation loss of each fold.
    cells
        Counts of units fold * clusters + cluster; see ``evidence.resample``.
    """
    clusters = cells.units // len(losses)
    folds = [
        confusion_metrics(
            cells.select(fold * clusters, (fold + 1) * clusters).matrix(), classes
        ) | {"loss": float(loss)}
        for fold, loss in enumerate(losses)
    ]  # fmt: skip
    return Score(folds, mean_f1_macro(cells, len(losses)))


def mean_f1_macro(cells: ConfusionCells, folds: int, draws: int = 1) -> Estimate:
    """Return the mean of the folds' macro F1 and its 95 % interval, clusters left out one by one.

    Without the only cluster of a fold, the mean is that of the other folds. The heads stay as they
    were trained: how much another cohort would have changed them is not in the interval.

    Parameters
    ----------
    cells
        Counts of units fold * clusters + cluster.
    folds
        Their number.
    draws
        How many draws of slides they are of, one after another: these are left out one by one too,
        and the variances of both add up.
    """
    fold, cluster = np.divmod(cells.unit, cells.units // folds)
    present, cluster = np.unique(cluster, return_inverse=True)
    number, classes = len(present), cells.classes
    cell = cells.index % classes**2
    total = UnitSums.of_cells(ConfusionCells(fold * classes**2 + cell, cells.count, folds, classes))
    unit = cluster * folds + fold  # so that some clusters at a time are a range of units
    order = np.argsort(unit, kind="stable")
    by_cluster = ConfusionCells(
        (unit * classes**2 + cell)[order], cells.count[order], number * folds, classes
    )
    left_out = np.empty((folds, number))
    step = max(1, AT_ONCE // (folds * classes))
    for start in range(0, number, step):
        stop = min(start + step, number)
        clusters = UnitSums.of_cells(by_cluster.select(start * folds, stop * folds))
        without = total.without(clusters.reshape(stop - start, folds))
        left_out[:, start:stop] = METRICS["f1_macro"].compute(without).T
    of_folds = METRICS["f1_macro"].compute(total)
    value = of_folds.mean(keepdims=True)
    without_one = nan_mean(left_out.T)
    if draws > 1:
        without_one = combined_jackknife(without_one, of_folds.reshape(draws, -1).mean(axis=1))
    names, units = ["f1_macro"], np.array([number], dtype=float)
    interval = estimates(names, value, without_one[None], limits_of(names), units)
    return interval["f1_macro"]


def combined_jackknife(without_cluster: Floats, by_draw: Floats) -> Floats:
    """Return jackknife values whose variance is that over clusters plus that over draws.

    Parameters
    ----------
    without_cluster
        The mean without each cluster, shape (n,).
    by_draw
        The mean of each draw, shape (D,).
    """
    value, draws = by_draw.mean(), len(by_draw)
    without_draw = (by_draw.sum() - by_draw) / (draws - 1)
    together = len(without_cluster) + draws
    parts = [
        value + (values - value) * np.sqrt((1 - 1 / len(values)) / (1 - 1 / together))
        for values in (without_cluster, without_draw)
    ]
    return np.concatenate(parts)
