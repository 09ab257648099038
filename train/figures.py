"""Pictures: the one file of train/ that draws."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def settings_png(
    path: Path, names: list[str], f1: list[tuple[float, float, float, float]], best: int
) -> Path:
    """Draw the macro F1 of each setting: its folds' mean and standard deviation, its interval.

    Parameters
    ----------
    names
        The settings.
    f1
        Mean and standard deviation over the folds, lower and upper end of the interval.
    best
        The one that is marked.
    """
    figure = Figure(figsize=(8, 0.34 * len(names) + 1.2), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, (mean, spread, low, high) in enumerate(f1):
        colour = "#D55E00" if place == best else "#0072B2"
        axes.plot([low, high], [place, place], color=colour, linewidth=6, alpha=0.3)
        axes.errorbar(mean, place, xerr=spread, color=colour, fmt="o", capsize=3)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.get_yticklabels()[best].set_fontweight("bold")
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("macro F1: mean and deviation over folds; band: 95 % over slides")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("Settings, the best in orange", loc="left", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


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
