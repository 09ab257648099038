"""The console that tables, bars and lines are drawn on: text is text on it, not markup."""

from typing import Any

import rich.console
from rich.text import Text

from featurestore.printing import shown


class Console(rich.console.Console):
    """Rich's console, on which no name steers the terminal; see `featurestore.printing.shown`.

    Rich hands every string through `render_str`, be it a line, a cell, a head or a title, and has
    no hook there.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, **settings)

    def render_str(self, text: str, **style: Any) -> Text:
        """Return a string as Rich draws it."""
        return super().render_str(shown(text), **style)
