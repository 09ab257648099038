"""A picture of encoders side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.drawing import BLUE, LONGEST, ORANGE, shortened
from train.evaluation.leaderboard import RANKED_BY, Leaderboard
from train.evaluation.metrics import METRICS
from train.plots.style import new_figure, row_names, save


def encoders_png(path: Path, board: Leaderboard) -> Path:
    """Draw each encoder's macro F1, and what each pair differs by, with 95 % intervals.

    A difference whose interval holds 0 is grey.
    """
    entries, differences = board.entries, board.differences
    rows = max(len(entries), len(differences))
    figure = new_figure(11 if differences else 5.5, 0.42 * rows + 1.6)
    left, *rest = figure.subplots(1, 2 if differences else 1, squeeze=False)[0]
    over, title = entries[0].predictions.cluster_name, METRICS[RANKED_BY].title
    ends = [entry.metrics[RANKED_BY].ends for entry in entries]
    forest(
        left,
        [shortened(entry.encoder) for entry in entries],
        ends,
        [ORANGE, *[BLUE] * len(entries)],
    )
    left.set_xlabel(f"{title}; line: 95 % interval over {shortened(over)}", parse_math=False)
    left.set_title(f"{board.split}, {board.tiles:,} tiles", loc="left", fontsize=10)
    for right in rest:
        names = [
            f"{shortened(each.encoder)}\nabove {shortened(each.other)}" for each in differences
        ]
        ends = [each.metrics[RANKED_BY].ends for each in differences]
        colours = ["grey" if not low > 0 else ORANGE for _, low, _ in ends]
        right.axvline(0, color="grey", linewidth=1)
        forest(right, names, ends, colours)
        right.set_xlabel(f"difference in {title}\non the same tiles", parse_math=False)
        right.set_title("grey: the interval holds 0", loc="left", fontsize=10)
    return save(figure, path)


def forest(
    axes: Any,
    names: Sequence[str],
    ends: Sequence[tuple[float, float, float]],
    colours: Sequence[str],
) -> None:
    """Draw values with their intervals, a line each.

    Parameters
    ----------
    axes
        Matplotlib's.
    ends
        Value, lower and upper end; not a number where there is none.
    """
    for place, ((value, low, high), colour) in enumerate(zip(ends, colours, strict=False)):
        axes.plot(value, place, "o", color=colour)
        axes.hlines(place, low, high, color=colour, linewidth=1.5)
        at = np.nanmax([value, high])
        axes.annotate(f"{value:.3f}", (at, place), xytext=(5, 0), textcoords="offset points",
                      va="center", fontsize=8)  # fmt: skip
    axes.margins(x=0.15)
    row_names(axes, names, 3 * LONGEST)  # of differences, which are two names
