"""What is recorded of the epochs of a fit, and saved with its state."""

import math
import time
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from featurestore.io.atomic import write_bytes
from train.engine.trainer import Epoch, FitResult
from train.evaluation.evaluate import encode_metrics
from train.evaluation.metrics import confusion_metrics
from train.fitting.grid import HeadGrid
from train.fitting.trainers import train_plan
from train.plots.evaluation import MANY, confusion_png
from train.predictions.files import write_parquet
from train.runtime.fit_state import SavedHistory
from train.runtime.run import Run
from train.tracking.tracker import Step

EVERY = 1.0  # seconds between requests: epochs of a small cohort end more often
Losses = list[tuple[int, int, float, float]]
"""Epoch, setting, training loss and validation loss."""


class History(SavedHistory, Protocol):
    """What a fit records of its epochs."""

    def epoch(self, epoch: Epoch) -> None:
        """Record an epoch."""

    def close(self, result: FitResult) -> None:
        """Record what is recorded of all epochs together, when they have ended."""


class HeadHistory:
    """The epochs of one head: losses and metrics while it trains, confusion matrices at the end.

    Parameters
    ----------
    run
        Where they are recorded.
    """

    name = "head"

    def __init__(self, run: Run) -> None:
        self.run, self.classes = run, run.config.class_names
        self.schedule = train_plan(run.config).schedule
        self.cells: dict[int, npt.NDArray[np.int64]] = {}
        """By epoch: true and predicted class and tiles of each cell that is not 0, shape (n, 3)."""
        self.unsent: list[Step] = []
        self.sent = -math.inf

    def epoch(self, epoch: Epoch) -> None:
        """Record numbers, those of several epochs in a request; keep the confusion matrix."""
        tracker = self.run.tracker
        if not self.run.is_main or not tracker.records:
            return
        assert epoch.confusion is not None
        confusion = epoch.confusion.cpu().numpy()
        losses = {
            "train/loss": float(epoch.train_loss),
            "validation/loss": float(epoch.validation_loss),
            "learning_rate": self.run.config.learning_rate * self.schedule.share(epoch.number),
        }
        metrics = encode_metrics(confusion_metrics(confusion, self.classes), "validation")
        # What is not logged is not saved with the state either: of many classes it is most of it.
        logged = {name: value for name, value in metrics.items() if tracker.is_logged(name)}
        self.unsent.append(Step(epoch.number, time.time(), {**losses, **logged}))
        if time.monotonic() - self.sent >= EVERY:
            self._send()
        true, predicted = np.nonzero(confusion)
        cells = np.stack([true, predicted, confusion[true, predicted]], axis=1)
        self.cells[epoch.number] = cells
        content = BytesIO()
        np.save(content, cells)
        write_bytes(self._file(epoch.number), content.getvalue())

    def close(self, result: FitResult) -> None:
        """Record all confusion matrices in one table, and draw those that people look at.

        The table has a row per epoch and cell that is not 0; above `MANY` classes it is Parquet.
        The best epoch and the last are drawn, and every so many as ``confusion_every`` asks for: a
        picture takes longer than an epoch.
        """
        self._send()
        table = self._table()
        if len(self.classes) > MANY:  # as text it has millions of lines
            file = write_parquet(self.run.folder / "confusion.parquet", table)
            self.run.tracker.file(file)
        else:
            self.run.tracker.table(table.to_pydict(), "confusion.json")
        if not self.cells:
            return
        last, every = max(self.cells), self.run.config.confusion_every
        asked = range(0, last, every) if every else ()
        for number in sorted({int(result.best_epoch[0]), last, *asked}):
            file = self.run.folder / "confusion" / f"epoch_{number:04d}.png"
            title = f"validation, epoch {number}"
            confusion_png(file, self._confusion(number), self.classes, title)
            self.run.tracker.file(file, "confusion")

    def _send(self) -> None:
        """Record the epochs that have ended since the last time, in one request."""
        if self.unsent:
            self.run.tracker.steps(self.unsent)
        self.unsent, self.sent = [], time.monotonic()

    def _table(self) -> pa.Table:
        none = np.zeros((0, 3), dtype=np.int64)
        true, predicted, tiles = np.concatenate([none, *self.cells.values()]).T
        sizes = list(map(len, self.cells.values()))
        return pa.table({
            "epoch": np.repeat(np.array(list(self.cells), dtype=np.int64), sizes),
            "true": pa.DictionaryArray.from_arrays(true.astype(np.int32), self.classes),
            "predicted": pa.DictionaryArray.from_arrays(predicted.astype(np.int32), self.classes),
            "tiles": tiles,
        })  # fmt: skip

    def _confusion(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return the confusion matrix of an epoch, shape (K, K)."""
        confusion = np.zeros((len(self.classes), len(self.classes)), dtype=np.int64)
        true, predicted, tiles = self.cells.get(epoch, np.zeros((0, 3), dtype=np.int64)).T
        confusion[true, predicted] = tiles
        return confusion

    def _file(self, epoch: int) -> Path:
        """Return where the cells of an epoch lie: beside the state, which would grow with them."""
        return self.run.states / "confusion" / f"epoch_{epoch:04d}.npy"

    def state_dict(self) -> dict[str, Any]:
        """Return which epochs there were, and what is not recorded yet."""
        return {"epochs": list(self.cells), "unsent": [tuple(step) for step in self.unsent]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from epochs; what a killed run had not recorded is recorded with the next one."""
        if self.run.is_main:
            self.cells = {number: np.load(self._file(number)) for number in state["epochs"]}
        self.unsent = [Step(*step) for step in state["unsent"]]


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
