"""What a terminal is shown: names come from artifacts, and none of their characters steers it.

Whatever prints does so by `say`, `print_error` or a `featurestore.console.Console`.
"""

import sys
from typing import TextIO


def shown(text: str) -> str:
    """Return a text on one line, its characters that are not printed spelled as `repr` does.

    Escape sequences, newlines, overrides of the direction of writing and characters of no width
    would draw over other lines, forge them, or make two names look like one.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def say(text: object, file: TextIO | None = None) -> None:
    """Print a line, on standard output unless told otherwise."""
    print(shown(str(text)), file=file or sys.stdout)


def print_error(error: Exception) -> None:
    """Print a refusal on standard error; its parts are shown, and it has lines of its own."""
    print(f"error: {error}", file=sys.stderr)
