"""The bar that a person at a terminal sees: epoch, losses, rows a second, time left."""

import time
from types import TracebackType

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from featurestore.printing import Console
from train.engine.trainer import Epoch


class EpochBar:
    """A progress bar over epochs; silent where the output is not a terminal.

    Parameters
    ----------
    console
        Where to draw.
    epochs
        Most epochs there can be; early stopping may end sooner.
    rows
        Tiles in an epoch, over all processes.
    """

    def __init__(self, console: Console, epochs: int, rows: int) -> None:
        self.rows, self.started = rows, time.perf_counter()
        self.progress = Progress(
            TextColumn("epoch {task.completed}/{task.total}"),
            BarColumn(),
            TextColumn("{task.fields[losses]}"),
            TimeRemainingColumn(),
            console=console,
            disable=console.quiet or not console.is_terminal,
        )
        self.task = self.progress.add_task("fit", total=epochs, losses="")

    def update(self, epoch: Epoch) -> None:
        """Show an epoch that is done; rows a second since the last one."""
        now = time.perf_counter()
        speed, self.started = self.rows / (now - self.started), now
        train, validation = (float(x.mean()) for x in (epoch.train_loss, epoch.validation_loss))
        losses = f"loss {train:.4f}, validation {validation:.4f}, {speed:,.0f} rows/s"
        self.progress.update(self.task, completed=epoch.number + 1, losses=losses)

    def __enter__(self) -> "EpochBar":
        self.progress.start()
        self.started = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()
