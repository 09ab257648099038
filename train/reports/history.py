"""What is recorded of the epochs of a fit, and saved with its state."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from train.engine.trainer import Epoch, FitResult
from train.evaluation.evaluate import encode_metrics
from train.evaluation.metrics import confusion_metrics
from train.fitting.grid import HeadGrid
from train.plots.evaluation import confusion_png
from train.runtime.fit_state import SavedHistory
from train.runtime.run import Run

Losses = list[tuple[int, int, float, float]]
"""Epoch, setting, training loss and validation loss."""


class History(SavedHistory, Protocol):
    """What a fit records of its epochs."""

    def epoch(self, epoch: Epoch) -> None:
        """Record an epoch."""

    def close(self, result: FitResult) -> None:
        """Record what is recorded of all epochs together, when they have ended."""


class HeadHistory:
    """The epochs of one head: losses and metrics of each at once, confusion matrices at the end.

    Parameters
    ----------
    run
        Where they are recorded.
    """

    name = "head"

    def __init__(self, run: Run) -> None:
        self.run, self.classes = run, run.config.class_names
        self.rows: list[tuple[int, str, str, int]] = []  # epoch, true, predicted, tiles

    def epoch(self, epoch: Epoch) -> None:
        """Record numbers, and keep the confusion matrix."""
        tracker = self.run.tracker
        if not self.run.is_main or not tracker.records:
            return
        assert epoch.confusion is not None
        confusion = epoch.confusion.cpu().numpy()
        losses = {
            "train/loss": float(epoch.train_loss),
            "validation/loss": float(epoch.validation_loss),
            "learning_rate": self.run.config.learning_rate,
        }
        metrics = encode_metrics(confusion_metrics(confusion, self.classes), "validation")
        tracker.metrics({**losses, **metrics}, step=epoch.number)
        for true, predicted in np.argwhere(confusion):
            tiles = int(confusion[true, predicted])
            self.rows.append((epoch.number, self.classes[true], self.classes[predicted], tiles))

    def close(self, result: FitResult) -> None:
        """Record all confusion matrices in one table, and draw those that people look at.

        The table has a row per epoch and cell that is not 0. The best epoch and the last are drawn,
        and every so many as ``confusion_every`` asks for: a picture takes longer than an epoch.
        """
        columns = list(zip(*self.rows, strict=True)) if self.rows else [()] * 4
        names = ("epoch", "true", "predicted", "tiles")
        table = {name: list(values) for name, values in zip(names, columns, strict=True)}
        self.run.tracker.table(table, "confusion.json")
        if not self.rows:
            return
        last, every = self.rows[-1][0], self.run.config.confusion_every
        asked = range(0, last, every) if every else ()
        for number in sorted({int(result.best_epoch[0]), last, *asked}):
            file = self.run.folder / "confusion" / f"epoch_{number:04d}.png"
            title = f"validation, epoch {number}"
            confusion_png(file, self._confusion(number), self.classes, title)
            self.run.tracker.file(file, "confusion")

    def _confusion(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return the confusion matrix of an epoch, shape (K, K)."""
        index = {name: number for number, name in enumerate(self.classes)}
        confusion = np.zeros((len(index), len(index)), dtype=np.int64)
        for number, true, predicted, tiles in self.rows:
            if number == epoch:
                confusion[index[true], index[predicted]] = tiles
        return confusion

    def state_dict(self) -> list[Any]:
        """Return the rows."""
        return self.rows

    def load_state_dict(self, state: list[Any]) -> None:
        """Go on from rows."""
        self.rows[:] = state


class GridHistory:
    """The losses of every epoch by setting, recorded with the settings when all are trained.

    Parameters
    ----------
    grid
        Its heads; None where nothing is recorded.
    """

    def __init__(self, grid: HeadGrid | None) -> None:
        self.name = "heads" if grid else "final"
        self.folds = len(grid.folds) if grid else 0
        self.losses: Losses = []

    def epoch(self, epoch: Epoch) -> None:
        """Keep the means over the folds of each setting that took part."""
        if not self.folds:
            return
        setting = epoch.active // self.folds
        for number in setting.unique().tolist():
            heads = setting == number
            means = (epoch.train_loss[heads].mean(), epoch.validation_loss[heads].mean())
            self.losses.append((epoch.number, number, *map(float, means)))

    def close(self, result: FitResult) -> None:
        """Leave it to `train.reports.logger.RunLogger.settings`."""

    def state_dict(self) -> Losses:
        """Return the losses."""
        return self.losses

    def load_state_dict(self, state: Losses) -> None:
        """Go on from losses."""
        self.losses[:] = state
