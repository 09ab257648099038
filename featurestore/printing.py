"""What a terminal is shown: names come from artifacts, and none of their characters steers it.

Whatever prints does so by `say`, `print_error` or a `featurestore.printing.Console`.
"""

import sys
from typing import Any, TextIO

import rich.console
from rich.text import Text


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
        super().__init__(markup=False, emoji=False, **settings)

    def render_str(self, text: str, **style: Any) -> Text:
        """Return a string as Rich draws it."""
        return super().render_str(printable(text), **style)


def counted(number: int, noun: str) -> str:
    """Return a number of things, in words: of one thing its singular."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
