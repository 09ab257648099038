"""Every epoch of a fit: losses, metrics and confusion matrices."""

import numpy as np

from train.evaluation import confusion as evaluation_confusion
from train.evaluation.confusion import Counts
from train.plots.evaluation import confusion_png
from train.reports.recorder import encode_metrics
from train.runtime.run import Run


class History:
    """Records each epoch: numbers at once, the confusion matrices as PNG and as one table."""

    def __init__(self, session: Run, classes: list[str]) -> None:
        self.session, self.classes = session, classes
        self.rows: list[tuple[int, str, str, int]] = []  # epoch, true, predicted, tiles

    def epoch(self, number: int, losses: dict[str, float], confusion: Counts) -> None:
        """Record one epoch (on the first process)."""
        if not self.session.tracker.records:
            return
        tracker, folder = self.session.tracker, self.session.folder
        scores = evaluation_confusion.confusion_metrics(confusion, self.classes)
        tracker.metrics({**losses, **encode_metrics(scores, "validation")}, step=number)
        picture = folder / "confusion" / f"epoch_{number:04d}.png"
        tracker.file(
            confusion_png(picture, confusion, self.classes, f"validation, epoch {number}"),
            "confusion",
        )
        for true, predicted in np.argwhere(confusion):
            tiles = int(confusion[true, predicted])
            self.rows.append((number, self.classes[true], self.classes[predicted], tiles))

    def close(self) -> None:
        """Record the table: one row per epoch and cell that is not zero."""
        names = ("epoch", "true", "predicted", "tiles")
        columns = zip(*self.rows, strict=True) if self.rows else ((), (), (), ())
        table = {name: list(values) for name, values in zip(names, columns, strict=True)}
        self.session.tracker.table(table, "confusion.json")
