"""What a terminal is shown: names come from artifacts, and none of their characters steers it.

Whatever prints does so by `say`, `print_error` or a `featurestore.printing.Console`.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO

import rich.console
from rich.text import Text

_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


def be_quiet() -> None:
    """Let no progress and no note be printed from here on: answers and errors are."""
    _QUIET.set(True)


def is_quiet() -> bool:
    """Return whether progress and notes are not to be printed."""
    return _QUIET.get()


@contextmanager
def quietly(quiet: bool) -> Iterator[None]:
    """Print no progress and no note in the block, if that is asked for."""
    token = _QUIET.set(quiet or is_quiet())
    try:
        yield
    finally:
        _QUIET.reset(token)


def printable(text: str) -> str:
    """Return a text on one line, its characters that are not printed spelled as `repr` does.

    Escape sequences, newlines, overrides of the direction of writing and characters of no width
    would draw over other lines, forge them, or make two names look like one.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def say(text: object, file: TextIO | None = None) -> None:
    """Print a line, on standard output unless told otherwise."""
    print(printable(str(text)), file=file or sys.stdout)


def print_error(error: Exception) -> None:
    """Print a refusal on standard error; its parts are shown, and it has lines of its own."""
    print(f"error: {error}", file=sys.stderr)


class Console(rich.console.Console):
    """Rich's console, on which no name steers the terminal; see `printable`.

    Rich hands every string through `render_str`, be it a line, a cell, a head or a title, and has
    no hook there.
    """

    def __init__(self, **settings: Any) -> None:
        if os.environ.get("NO_COLOR"):  # Rich would go on with bold and italic
            settings = {"color_system": None, **settings}
        super().__init__(markup=False, emoji=False, **settings)
        self.width_is_given = "width" in settings or os.environ.get("COLUMNS", "").isdigit()

    @property
    def draws(self) -> bool:
        """Whether a bar may be drawn: by escape sequences, which pipes and NO_COLOR do without."""
        return self.is_terminal and not self.no_color and not self.is_dumb_terminal

    @property
    def prose_width(self) -> int:
        """Where prose is broken: at the terminal's edge; in a pipe, of no known width, nowhere."""
        return self.width if self.is_terminal or self.width_is_given else sys.maxsize

    def render_str(self, text: str, **style: Any) -> Text:
        """Return a string as Rich draws it."""
        return super().render_str(printable(text), **style)


def counted(number: int, noun: str) -> str:
    """Return a number of things, in words: of one thing its singular."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
