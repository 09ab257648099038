"""A figure as PNG, its parts put in their places once."""

from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # half a second, which who draws nothing need not wait for
    from matplotlib.figure import Figure


def png(figure: "Figure", dpi: float | None = None) -> bytes:
    """Return a figure as PNG.

    A figure that puts its parts in their places by itself is drawn twice by Matplotlib, first to
    see how large they are. Here it measures and places them, and is then drawn once: the same
    picture in three quarters of the time.

    Parameters
    ----------
    figure
        With a canvas; it is not to be changed any more.
    dpi
        Pixels an inch; by default the figure's own.
    """
    if dpi:
        figure.set_dpi(dpi)
    if layout := figure.get_layout_engine():
        layout.execute(figure)
        figure.set_layout_engine(None)
    content = BytesIO()
    figure.savefig(content, format="png", dpi=figure.dpi)
    return content.getvalue()
