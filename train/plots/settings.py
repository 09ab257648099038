"""Pictures of settings side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.drawing import (
    BLUE,
    FAINT,
    LINES,
    LONGEST,
    ORANGE,
    ROWS,
    legend_beside,
    line_styles,
    shortened,
)
from train.plots.style import FEW, new_figure, row_names, save

TICKS = 7  # values along an axis that have room for a name


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

    Of many settings those with the highest mean.

    Parameters
    ----------
    best
        The one that is marked.
    over
        What the intervals are over: slides, patients.
    """
    ranked = sorted(range(len(points)), key=lambda index: (index != best, -points[index].mean))
    shown = sorted(ranked[:ROWS])
    figure = new_figure(9, 0.34 * len(shown) + 1.2)
    axes = figure.add_subplot()
    places = np.arange(len(shown))
    low, high = np.array([points[index].interval for index in shown]).T
    mean, spread = np.array([(points[index].mean, points[index].spread) for index in shown]).T
    is_best = np.array(shown) == best
    for mask, colour in ((~is_best, BLUE), (is_best, ORANGE)):
        axes.hlines(places[mask], low[mask], high[mask], color=colour, linewidth=6, alpha=0.3)
        axes.errorbar(mean[mask], places[mask], xerr=spread[mask], color=colour, fmt="o", capsize=3)
    row_names(axes, [points[index].name for index in shown], 2 * LONGEST)
    axes.get_yticklabels()[shown.index(best)].set_fontweight("bold")
    caption = f"macro F1: mean and deviation over folds\nband: 95 % over {shortened(over)}"
    axes.set_xlabel(caption, parse_math=False)
    of = f" ({len(shown)} of {len(points)})" if len(shown) < len(points) else ""
    axes.set_title(f"Settings{of}, the best in orange", loc="left", fontsize=10)
    return save(figure, path)


def axis_png(
    path: Path, axis: str, points: Sequence[SettingPoint], over: str, deviation: str = "folds"
) -> Path:
    """Draw the macro F1 along one swept key: a line for each combination of the others.

    Parameters
    ----------
    axis
        The key, for example ``train_fraction``: a curve of label efficiency.
    over
        What the intervals are over: slides, patients.
    deviation
        What standard deviations are over.
    """
    values = list(dict.fromkeys(point.overrides[axis] for point in points))
    lines: dict[str, list[SettingPoint]] = {}
    for point in points:
        others = [f"{key}={value}" for key, value in point.overrides.items() if key != axis]
        lines.setdefault(" ".join(others), []).append(point)
    width = max(5.0, 1.1 * min(len(values), TICKS) + 2)
    figure = new_figure(width + (3 if len(lines) > 1 else 0), 4)
    axes = figure.add_subplot()
    ranked = sorted(lines, key=lambda name: -max(point.mean for point in lines[name]))
    styles = dict(zip(ranked, line_styles(len(lines)), strict=False))
    named = {}
    for name in reversed(ranked):  # the best is drawn last, over the others
        line, (colour, dashes) = lines[name], styles.get(name, (FAINT, "-"))
        x = [values.index(point.overrides[axis]) for point in line]
        mean, spread = np.array([(point.mean, point.spread) for point in line]).T
        low, high = np.array([point.interval for point in line]).T
        named[name] = axes.errorbar(
            x, mean, yerr=spread, fmt=f"o{dashes}", capsize=3, color=colour, markersize=4
        )
        if len(lines) <= FEW:
            axes.fill_between(x, low, high, color=colour, alpha=0.15)
    tiles: dict[Any, list[int]] = {value: [] for value in values}
    for point in points:
        tiles[point.overrides[axis]].append(point.tiles)
    labels = [f"{shortened(str(v), 12)}\n{np.mean(tiles[v]):,.0f} tiles" for v in values]
    step = -(-len(values) // TICKS)
    axes.set_xticks(range(0, len(values), step), labels[::step], parse_math=False, fontsize=8)
    axes.set_xlabel(shortened(axis, 2 * LONGEST), parse_math=False)
    axes.set_ylabel("macro F1")
    title = f"mean and deviation over {deviation}"
    title += f"\nband: 95 % over {shortened(over)}" * (len(lines) <= FEW)
    axes.set_title(title, loc="left", fontsize=9, parse_math=False)
    if len(lines) > 1:
        texts = [shortened(name, 3 * LONGEST // 2) for name in ranked[:LINES]]
        handles = [named[name] for name in ranked[:LINES]]
        if more := len(lines) - len(styles):
            texts.append(f"{more} others, none as high")
            handles.append(named[ranked[-1]])
        legend_beside(figure, handles, texts)
    return save(figure, path)
