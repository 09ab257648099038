"""What a person sees of a fit: epoch, losses, rows a second, time left."""

import time
from types import TracebackType

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from featurestore.io.progress import Pace
from featurestore.printing import Console, is_quiet
from train.engine.trainer import Epoch


class EpochBar:
    """A progress bar over epochs; where the output is not a terminal, a line every ten seconds.

    Epochs that take longer have a line each.

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
        self.console, self.rows = console, rows
        self.pace, self.started = Pace(epochs), time.perf_counter()
        visible = not console.quiet and not is_quiet()
        self.prints = visible and not console.draws
        self.progress = Progress(
            TextColumn("epoch {task.completed}/{task.total}"),
            BarColumn(),
            TextColumn("{task.fields[losses]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not (visible and console.draws),
        )
        self.task = self.progress.add_task("fit", total=epochs, losses="")

    def update(self, epoch: Epoch) -> None:
        """Show an epoch that is done; rows a second since the last one."""
        now = time.perf_counter()
        speed, self.started = self.rows / (now - self.started), now
        train, validation = (float(x.mean()) for x in (epoch.train_loss, epoch.validation_loss))
        losses = f"loss {train:.4f}, validation {validation:.4f}"
        done = epoch.number + 1
        self.progress.update(self.task, completed=done, losses=f"{losses}, {speed:,.0f} rows/s")
        pace = self.pace
        rate = pace.advance(done - pace.done)
        if self.prints and rate is not None:
            self.console.print(
                f"epoch {done}/{pace.total}, {losses}, {rate * self.rows:,.0f} rows/s, "
                f"at most {pace.left} left",
                soft_wrap=True,
            )

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
