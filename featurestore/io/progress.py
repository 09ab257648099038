"""What a person sees while rows are written: a bar at a terminal, elsewhere now and then a line."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from featurestore.printing import Console, is_quiet

SECONDS = 10.0  # between two lines


class Pace:
    """How fast something gets done, looked at every `SECONDS`.

    Parameters
    ----------
    total
        How much there is to do.
    """

    def __init__(self, total: int) -> None:
        self.total, self.done, self.counted = total, 0, 0
        self.started = self.shown = time.monotonic()

    def advance(self, done: int) -> float | None:
        """Count what is done; return its rate a second since the last look, if it is time for one.

        Parameters
        ----------
        done
            Since the last call.
        """
        self.done += done
        now = time.monotonic()
        if now - self.shown < SECONDS:
            return None
        rate = (self.done - self.counted) / (now - self.shown)
        self.counted, self.shown = self.done, now
        return rate

    @property
    def left(self) -> str:
        """The time that the rest takes at the mean rate so far: ``0:01:30``."""
        taken = self.shown - self.started
        seconds = taken * (self.total - self.done) / self.done if self.done else 0.0
        return str(timedelta(seconds=round(seconds)))


class Rows:
    """Shows rows as they are done: by a bar, or by lines where the output is not a terminal.

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
        visible = self.console is not None and not self.console.quiet and not is_quiet()
        if self.console is not None and visible and not self.console.draws:
            yield self._lines(self.console, title, Pace(total))
            return
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

    def _lines(self, console: Console, title: str, pace: Pace) -> Callable[[int], None]:
        lock = threading.Lock()

        def advance(rows: int) -> None:
            with lock:
                rate = pace.advance(rows)
                if rate is not None:
                    console.print(
                        f"{title}: {pace.done:,} of {pace.total:,} {self.unit}, "
                        f"{rate:,.0f} {self.unit}/s, {pace.left} left",
                        soft_wrap=True,
                    )

        return advance
