"""Pictures: the one file of train/ that draws."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

FEW = 4  # lines whose intervals can be told apart


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


def axis_png(
    path: Path,
    axis: str,
    settings: list[dict[str, Any]],
    tiles: list[int],
    f1: list[tuple[float, float, float, float]],
) -> Path:
    """Draw the macro F1 along one swept key: a line for each combination of the others.

    Parameters
    ----------
    axis
        The key, for example ``train_fraction``: a curve of label efficiency.
    settings
        The swept values of each setting.
    tiles
        Tiles that it trains on, the mean over folds.
    f1
        Mean and standard deviation over the folds, lower and upper end of the interval.
    """
    values = list(dict.fromkeys(setting[axis] for setting in settings))
    lines: dict[str, list[int]] = {}
    for place, setting in enumerate(settings):
        others = [f"{key}={value}" for key, value in setting.items() if key != axis]
        lines.setdefault(" ".join(others), []).append(place)
    figure = Figure(figsize=(max(5.0, 1.1 * len(values) + 2), 4), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, places in lines.items():
        x = [values.index(settings[place][axis]) for place in places]
        mean, spread, low, high = np.array([f1[place] for place in places]).T
        drawn = axes.errorbar(x, mean, yerr=spread, fmt="o-", capsize=3, label=name or None)
        if len(lines) <= FEW:
            axes.fill_between(x, low, high, color=drawn.lines[0].get_color(), alpha=0.15)
    labels = []
    for value in values:
        own = [tiles[p] for p, setting in enumerate(settings) if setting[axis] == value]
        labels.append(f"{value}\n{np.mean(own):,.0f} tiles")
    axes.set_xticks(range(len(values)), labels, parse_math=False)
    axes.set_xlabel(axis, parse_math=False)
    axes.set_ylabel("macro F1")
    axes.spines[["top", "right"]].set_visible(False)
    said = "mean and deviation over folds" + "; band: 95 % over slides" * (len(lines) <= FEW)
    axes.set_title(said, loc="left", fontsize=9)
    if len(lines) > 1:
        axes.legend(fontsize=7, frameon=False)
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
