"""Pictures of settings side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from train.plots.style import BLUE, FEW, ORANGE, new_figure, save


@dataclass(frozen=True)
class SettingPoint:
    """The macro F1 of a setting.

    Parameters
    ----------
    name, overrides
        Which setting: what tells it from the others, and the swept values by key.
    tiles
        Tiles that it trains on, the mean over folds.
    mean, spread
        Over the folds: mean and standard deviation.
    interval
        Lower and upper end.
    """

    name: str
    overrides: dict[str, Any]
    tiles: int
    mean: float
    spread: float
    interval: tuple[float, float]


def settings_png(path: Path, points: Sequence[SettingPoint], best: int, over: str) -> Path:
    """Draw the macro F1 of each setting: its folds' mean and standard deviation, its interval.

    Parameters
    ----------
    best
        The one that is marked.
    over
        What the intervals are over: slides, patients.
    """
    figure = new_figure(8, 0.34 * len(points) + 1.2)
    axes = figure.add_subplot()
    for place, point in enumerate(points):
        colour = ORANGE if place == best else BLUE
        axes.plot(point.interval, [place, place], color=colour, linewidth=6, alpha=0.3)
        axes.errorbar(point.mean, place, xerr=point.spread, color=colour, fmt="o", capsize=3)
    axes.set_yticks(range(len(points)), [point.name for point in points], parse_math=False)
    axes.get_yticklabels()[best].set_fontweight("bold")
    axes.set_ylim(len(points) - 0.5, -0.5)
    axes.set_xlabel(
        f"macro F1: mean and deviation over folds; band: 95 % over {over}", parse_math=False
    )
    axes.set_title("Settings, the best in orange", loc="left", fontsize=10)
    return save(figure, path)


def axis_png(path: Path, axis: str, points: Sequence[SettingPoint], over: str) -> Path:
    """Draw the macro F1 along one swept key: a line for each combination of the others.

    Parameters
    ----------
    axis
        The key, for example ``train_fraction``: a curve of label efficiency.
    over
        What the intervals are over: slides, patients.
    """
    values = list(dict.fromkeys(point.overrides[axis] for point in points))
    lines: dict[str, list[SettingPoint]] = {}
    for point in points:
        others = [f"{key}={value}" for key, value in point.overrides.items() if key != axis]
        lines.setdefault(" ".join(others), []).append(point)
    figure = new_figure(max(5.0, 1.1 * len(values) + 2), 4)
    axes = figure.add_subplot()
    for name, line in lines.items():
        x = [values.index(point.overrides[axis]) for point in line]
        mean, spread = np.array([(point.mean, point.spread) for point in line]).T
        low, high = np.array([point.interval for point in line]).T
        drawn = axes.errorbar(x, mean, yerr=spread, fmt="o-", capsize=3, label=name or None)
        if len(lines) <= FEW:
            axes.fill_between(x, low, high, color=drawn.lines[0].get_color(), alpha=0.15)
    labels = []
    for value in values:
        tiles = [point.tiles for point in points if point.overrides[axis] == value]
        labels.append(f"{value}\n{np.mean(tiles):,.0f} tiles")
    axes.set_xticks(range(len(values)), labels, parse_math=False)
    axes.set_xlabel(axis, parse_math=False)
    axes.set_ylabel("macro F1")
    title = "mean and deviation over folds" + f"; band: 95 % over {over}" * (len(lines) <= FEW)
    axes.set_title(title, loc="left", fontsize=9, parse_math=False)
    if len(lines) > 1:
        axes.legend(fontsize=7, frameon=False)
    return save(figure, path)
