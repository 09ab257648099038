"""What all pictures share: colours that anybody can tell apart, short names, a legend beside."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # half a second, which a run without pictures need not wait for
    from matplotlib.figure import Figure

Dashes = Literal["-", "--"]

# Okabe and Ito (2008), black at the end.
FIRST = (
    "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#000000",
)  # fmt: skip
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
FAINT = "#C8C8C8"
"""Of lines beyond `LINES`, which have no name in a legend."""
LINES = 12
"""Lines that have a colour of their own in a picture, at most."""
ROWS = 40
"""Names below each other in a picture, at most."""
LONGEST = 24
"""Characters of a name in a picture, at most."""


def line_styles(count: int) -> list[tuple[str, Dashes]]:
    """Return colour and dashes of lines on white that can be told apart, at most `LINES`.

    Without the palette's yellow, which is hard to see as a line; then again, dashed.
    """
    dark = [colour for colour in FIRST if colour != "#F0E442"]
    kinds: tuple[Dashes, ...] = ("-", "--")
    styles = [(colour, dashes) for dashes in kinds for colour in dark]
    return styles[: min(count, LINES)]


def shortened(name: str, longest: int = LONGEST) -> str:
    """Return a name as it fits into a picture, its middle left out.

    Examples
    --------
    >>> shortened("Connective-Tissue of the duodenum"), shortened("Fat")
    ('Connective-T…he duodenum', 'Fat')
    """
    if len(name) <= longest:
        return name
    return f"{name[: longest // 2]}…{name[longest // 2 + 1 - longest :]}"


def legend_beside(figure: "Figure", lines: Sequence[Any], names: Sequence[str]) -> None:
    """Name lines to the right of all axes, where a legend covers nothing that is drawn."""
    legend = figure.legend(lines, names, fontsize=8, frameon=False, loc="outside right upper")
    for text in legend.get_texts():
        text.set_parse_math(False)
