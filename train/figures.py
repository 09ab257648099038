"""Pictures: the one file of train/ that draws."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def confusion_png(
    path: Path, confusion: npt.NDArray[np.int64], names: list[str], title: str
) -> Path:
    """Draw a confusion matrix: colour is the share of the true class, the figure its count.

    Parameters
    ----------
    path
        The PNG to write.
    confusion
        Shape (K, K): true class down, predicted class across.
    names
        The classes, by index.
    title
        Written above.
    """
    size = max(3.2, 0.55 * len(names) + 1.6)
    figure = Figure(figsize=(size, size), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(confusion):
        colour = "white" if share[row, column] > 0.55 else "black"
        axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=8)
    ticks = range(len(names))
    axes.set_xticks(ticks, names, rotation=45, ha="right", parse_math=False)
    axes.set_yticks(ticks, names, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
