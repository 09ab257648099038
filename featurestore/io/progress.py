"""The bar that a person at a terminal sees while rows are written: done, rate, time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from featurestore.printing import Console


class Rows:
    """Shows rows as they are done; silent where the output is not a terminal.

    Parameters
    ----------
    console
        Where to draw; None draws nothing.
    unit
        What is counted.
    """

    def __init__(self, console: Console | None, unit: str = "rows") -> None:
        self.console, self.unit = console, unit

    @contextmanager
    def counting(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """Yield a function that is told a number of rows when they are done."""
        visible = self.console is not None and self.console.is_terminal and not self.console.quiet
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(self.unit),
            TimeRemainingColumn(),
            console=self.console,
            disable=not visible,
        ) as progress:
            task = progress.add_task(title, total=total)
            yield lambda rows: progress.advance(task, rows)
