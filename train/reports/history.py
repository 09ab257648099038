"""What is recorded of the epochs of a fit, and saved with its state."""

from typing import Any, Protocol

import numpy as np

from train.engine.trainer import Epoch
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

    def close(self) -> None:
        """Record what is recorded of all epochs together."""


class HeadHistory:
    """The epochs of one head: losses, metrics and a confusion matrix each, at once.

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
        """Record numbers, and the confusion matrix as a picture."""
        tracker = self.run.tracker
        if not self.run.is_main or not tracker.records:
            return
        assert epoch.confusion is not None
        confusion = epoch.confusion.sum(dim=0).cpu().numpy()
        losses = {
            "train/loss": float(epoch.train_loss),
            "validation/loss": float(epoch.validation_loss),
            "learning_rate": self.run.config.learning_rate,
        }
        metrics = encode_metrics(confusion_metrics(confusion, self.classes), "validation")
        tracker.metrics({**losses, **metrics}, step=epoch.number)
        file = self.run.folder / "confusion" / f"epoch_{epoch.number:04d}.png"
        title = f"validation, epoch {epoch.number}"
        tracker.file(confusion_png(file, confusion, self.classes, title), "confusion")
        for true, predicted in np.argwhere(confusion):
            tiles = int(confusion[true, predicted])
            self.rows.append((epoch.number, self.classes[true], self.classes[predicted], tiles))

    def close(self) -> None:
        """Record the confusion matrices in one table: a row per epoch and cell that is not 0."""
        columns = list(zip(*self.rows, strict=True)) if self.rows else [()] * 4
        names = ("epoch", "true", "predicted", "tiles")
        table = {name: list(values) for name, values in zip(names, columns, strict=True)}
        self.run.tracker.table(table, "confusion.json")

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

    def close(self) -> None:
        """Leave it to `train.reports.logger.RunLogger.settings`."""

    def state_dict(self) -> Losses:
        """Return the losses."""
        return self.losses

    def load_state_dict(self, state: Losses) -> None:
        """Go on from losses."""
        self.losses[:] = state
