"""The bar that a person at a terminal sees: epoch, losses, rows a second, time left."""

from types import TracebackType

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from featurestore.printing import Console


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
        self.rows = rows
        self.progress = Progress(
            TextColumn("epoch {task.completed}/{task.total}"),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            disable=console.quiet or not console.is_terminal,
        )
        self.task = self.progress.add_task("fit", total=epochs, figures="")

    def epoch(self, number: int, seconds: float, train_loss: float, validation_loss: float) -> None:
        """Show an epoch, counted from 0, that trained for some seconds."""
        speed = self.rows / seconds
        figures = f"loss {train_loss:.4f}, validation {validation_loss:.4f}, {speed:,.0f} rows/s"
        self.progress.update(self.task, completed=number + 1, figures=figures)

    def __enter__(self) -> "EpochBar":
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()
