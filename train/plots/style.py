"""How all pictures look, and how they are written."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.drawing import LONGEST, shortened
from featurestore.png import png

if TYPE_CHECKING:  # half a second, which a run without pictures need not wait for
    from matplotlib.figure import Figure

FEW = 4  # lines whose intervals can be told apart
FLAT = 0.4  # height to width of what is better drawn below each other than side by side


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure, sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: "Figure", path: Path, is_framed: bool = False) -> Path:
    """Write a figure as PNG and return its path.

    Parameters
    ----------
    is_framed
        Whether axes keep the upper and the right edge of their frames.
    """
    for axes in figure.axes if not is_framed else ():
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(figure))
    return path


def row_names(axes: Any, names: Sequence[str], longest: int = LONGEST) -> None:
    """Name rows that are drawn at 0, 1, ... from above."""
    short = [shortened(name, longest) for name in names]
    axes.set_yticks(range(len(names)), short, parse_math=False)
    axes.set_ylim(len(names) - 0.5, -0.5)
