"""Pictures of settings side by side."""

from pathlib import Path
from typing import Any

import numpy as np

from train.plots.style import BLUE, FEW, ORANGE, new_figure, save


def settings_png(
    path: Path,
    names: list[str],
    f1: list[tuple[float, float, float, float]],
    best: int,
    over: str = "slides",
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
    over
        What the intervals resample.
    """
    figure = new_figure(8, 0.34 * len(names) + 1.2)
    axes = figure.add_subplot()
    for place, (mean, spread, low, high) in enumerate(f1):
        colour = ORANGE if place == best else BLUE
        axes.plot([low, high], [place, place], color=colour, linewidth=6, alpha=0.3)
        axes.errorbar(mean, place, xerr=spread, color=colour, fmt="o", capsize=3)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.get_yticklabels()[best].set_fontweight("bold")
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(
        f"macro F1: mean and deviation over folds; band: 95 % over {over}", parse_math=False
    )
    axes.set_title("Settings, the best in orange", loc="left", fontsize=10)
    return save(figure, path)


def axis_png(
    path: Path,
    axis: str,
    settings: list[dict[str, Any]],
    tiles: list[int],
    f1: list[tuple[float, float, float, float]],
    over: str = "slides",
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
    over
        What the intervals resample.
    """
    values = list(dict.fromkeys(setting[axis] for setting in settings))
    lines: dict[str, list[int]] = {}
    for place, setting in enumerate(settings):
        others = [f"{key}={value}" for key, value in setting.items() if key != axis]
        lines.setdefault(" ".join(others), []).append(place)
    figure = new_figure(max(5.0, 1.1 * len(values) + 2), 4)
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
    said = "mean and deviation over folds" + f"; band: 95 % over {over}" * (len(lines) <= FEW)
    axes.set_title(said, loc="left", fontsize=9, parse_math=False)
    if len(lines) > 1:
        axes.legend(fontsize=7, frameon=False)
    return save(figure, path)
