"""Pictures of an evaluation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featurestore.drawing import (
    BLUE,
    FAINT,
    LINES,
    ORANGE,
    ROWS,
    legend_beside,
    line_styles,
    shortened,
)
from train.evaluation.curves import Curve
from train.evaluation.estimates import Estimate
from train.evaluation.evaluate import Evaluation
from train.evaluation.groups import Group
from train.evaluation.metrics import is_higher_better
from train.plots.style import new_figure, row_names, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MANY = 25  # classes whose counts can be read in one picture


def evaluation_pngs(
    evaluation: Evaluation, folder: Path, title: str, prefix: str = ""
) -> list[Path]:
    """Draw what an evaluation means: the confusion matrix first, then the other pictures.

    Parameters
    ----------
    title
        Above the confusion matrix.
    prefix
        Begins the names of files.
    """
    classes, metrics = evaluation.predictions.classes, evaluation.metrics
    f1 = {name: metrics[f"f1/{name}"] for name in classes}

    def path(name: str) -> Path:
        return folder / f"{prefix}{name}.png"

    return [
        confusion_png(path("confusion"), evaluation.confusion, classes, title),
        reliability_png(path("reliability"), evaluation.bins, metrics["calibration_error"].value),
        curves_png(path("curves"), evaluation.curves),
        classes_png(path("classes"), f1, evaluation.predictions.cluster_name),
        slides_png(path("slides"), evaluation.slides["accuracy"], evaluation.slides["tiles"]),
        risk_png(path("risk_coverage"), evaluation.risk_coverage),
    ]


def reliability_png(path: Path, bins: npt.NDArray[np.float64], error: float) -> Path:
    """Draw how often tiles are right against how sure their prediction is; below, how many.

    Parameters
    ----------
    bins
        Tiles, sums of confidence and hits by bin, shape (B, 3).
    error
        The expected calibration error.
    """
    tiles, confidence, hits = bins[bins[:, 0] > 0].T
    figure = new_figure(4.6, 5.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    upper.plot([0, 1], [0, 1], color="grey", linewidth=1, label="as sure as it is right")
    upper.plot(confidence / tiles, hits / tiles, "o-", color=BLUE, label="predictions")
    upper.set_ylabel("share that is right")
    upper.set_ylim(0, 1.02)
    upper.legend(fontsize=8, frameon=False)
    upper.set_title(f"Calibration error {error:.3f}", loc="left", fontsize=10)
    lower.bar(confidence / tiles, tiles, width=0.03, color=BLUE)
    lower.set_ylabel("tiles")
    lower.set_xlabel("probability of the predicted class")
    return save(figure, path)


def curves_png(path: Path, curves: Mapping[str, Curve]) -> Path:
    """Write the picture of `curves_figure`."""
    return save(curves_figure(curves), path)


def curves_figure(curves: Mapping[str, Curve]) -> "Figure":
    """Draw each class against the others: ROC curves and precision-recall curves.

    Of many classes those with the least area under the ROC curve have a colour and a name beside
    the pictures; the others are grey.
    """
    from matplotlib.lines import Line2D

    figure = new_figure(10.8, 4.6)
    left, right = figure.subplots(1, 2)
    areas = {
        name: float(np.trapezoid(curve.true_positive_rate, curve.false_positive_rate))
        for name, curve in curves.items()
    }
    worst = set(sorted(areas, key=areas.__getitem__)[:LINES])
    styles = dict(zip([name for name in curves if name in worst], line_styles(len(worst)),
                      strict=True))  # fmt: skip
    for name, curve in sorted(curves.items(), key=lambda named: named[0] in worst):
        colour, dashes = styles.get(name, (FAINT, "-"))
        style = {"linewidth": 1.2 if name in worst else 0.6, "color": colour, "linestyle": dashes}
        left.plot(curve.false_positive_rate, curve.true_positive_rate, **style)
        right.plot(curve.recall, curve.precision, **style)
    left.plot([0, 1], [0, 1], color="grey", linewidth=0.7)
    for axes, x, y in ((left, "false positive rate", "recall"), (right, "recall", "precision")):
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.02)
    left.set_title("ROC, each class against the others", loc="left", fontsize=10)
    right.set_title("Precision and recall", loc="left", fontsize=10)
    lines = [Line2D([], [], color=c, linestyle=dashes) for c, dashes in styles.values()]
    names = [shortened(name) for name in styles]
    if others := len(curves) - len(worst):
        lines.append(Line2D([], [], color=FAINT))
        names.append(f"{others} others, with more area")
    legend_beside(figure, lines, names)
    return figure


def classes_png(path: Path, f1: Mapping[str, Estimate], over: str) -> Path:
    """Draw the F1 of each class with its 95 % interval; of many classes the lowest ones.

    Parameters
    ----------
    f1
        By class; not a number where it is absent.
    over
        What the intervals are over: slides, patients.
    """
    shown = lowest(f1)
    figure = new_figure(6.5, 0.34 * len(shown) + 1.2)
    axes = figure.add_subplot()
    values, low, high = np.array([f1[name].ends for name in shown]).T
    axes.barh(range(len(shown)), np.nan_to_num(values), color=BLUE, alpha=0.55)
    axes.hlines(range(len(shown)), low, high, color="black", linewidth=1.5)
    for place, (value, end) in enumerate(zip(values, high, strict=True)):
        label = "absent" if np.isnan(value) else f"{value:.3f}"
        at = np.nanmax([value, end, 0]) + 0.01
        axes.text(at, place, label, va="center", fontsize=8)
    row_names(axes, shown)
    axes.set_xlim(0, 1.12)
    of = f" of the {len(shown)} lowest of {len(f1)}" if len(shown) < len(f1) else ""
    axes.set_xlabel(f"F1{of}\nline: 95 % interval over {shortened(over)}", parse_math=False)
    return save(figure, path)


def lowest(values: Mapping[str, Estimate]) -> list[str]:
    """Return names in their order; if they are more than `ROWS`, those of the lowest values."""
    ranked = sorted(values, key=lambda name: np.nan_to_num(values[name].value, nan=np.inf))
    kept = set(ranked[:ROWS])
    return [name for name in values if name in kept]


def groups_png(
    path: Path, groups: Sequence[Group], overall: Mapping[str, Estimate], over: str
) -> Path:
    """Draw macro F1 and accuracy of each group of a column with intervals, the worst in orange.

    Parameters
    ----------
    overall
        The metrics of all tiles.
    over
        What the intervals are over: slides, patients.
    """
    places = np.arange(len(groups))
    figure = new_figure(9.2, 0.4 * len(groups) + 1.4)
    panels = figure.subplots(1, 2, sharey=True)
    titles = {"f1_macro": "macro F1", "accuracy": "accuracy"}
    for axes, (metric, title) in zip(panels, titles.items(), strict=True):
        values, low, high = np.array([group.metrics[metric].ends for group in groups]).T
        colours = [ORANGE if value == np.nanmin(values) else BLUE for value in values]
        axes.barh(places, np.nan_to_num(values), color=colours, alpha=0.55)
        axes.hlines(places, low, high, color="black", linewidth=1.5)
        for place, value in enumerate(values):
            axes.text(1.02, place, f"{value:.3f}", va="center", fontsize=8)
        axes.axvline(overall[metric].value, color="grey", linewidth=1, linestyle="--")
        axes.set_xlim(0, 1.12)
        axes.set_xlabel(title)
    names = [
        f"{shortened(group.value)}\n{group.tiles:,} tiles, {group.slides:,} slides"
        for group in groups
    ]
    panels[0].set_yticks(places, names, parse_math=False, fontsize=8)
    panels[0].set_ylim(len(groups) - 0.5, -0.5)
    column = shortened(groups[0].column)
    title = (
        f"By {column}, the worst in orange; line: 95 % over {shortened(over)}; dashed: all tiles"
    )
    figure.suptitle(title, fontsize=9, x=0.01, ha="left", parse_math=False)
    return save(figure, path)


def slides_png(path: Path, accuracy: list[float], tiles: list[int]) -> Path:
    """Draw the accuracy of every slide, the worst first; the area of a point is its tiles."""
    figure = new_figure(6.5, 3.6)
    axes = figure.add_subplot()
    area = 12 + 90 * np.array(tiles) / max(tiles)
    axes.scatter(range(len(accuracy)), accuracy, s=area, color=BLUE, alpha=0.6)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("slides, the worst first; area: number of tiles")
    axes.set_ylabel("accuracy")
    return save(figure, path)


def risk_png(path: Path, curve: dict[str, list[float]]) -> Path:
    """Draw how many errors are left if only the surest predictions are given."""
    figure = new_figure(7.4, 3.8)
    axes = figure.add_subplot()
    # Between points are tiles that are equally sure, which no threshold tells apart.
    axes.plot(curve["coverage"], curve["risk"], ".-", markersize=3, color=BLUE)
    named = {}  # beside the curve, not on it: points may be as near as two probabilities are
    for marker, share in zip("os^", (0.5, 0.8, 0.9), strict=True):
        place = np.searchsorted(curve["coverage"], share)
        x, y = curve["coverage"][place], curve["risk"][place]
        label = f"from {curve['confidence'][place]:.2f}: {x:.0%} of tiles"
        [named[label]] = axes.plot(x, y, marker, color=ORANGE, linestyle="")
    axes.set_xlim(0, 1.02)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("share of tiles that a prediction is given for, the surest first")
    axes.set_ylabel("share of errors among them")
    legend_beside(figure, list(named.values()), list(named))
    return save(figure, path)


def differences_png(
    path: Path, first: str, by_run: Mapping[str, Mapping[str, Estimate]], over: str
) -> Path:
    """Draw by how much runs differ from the first, metric by metric, with 95 % intervals.

    Parameters
    ----------
    by_run
        Differences by run and metric.
    over
        What the intervals are over: slides, patients.
    """
    names = list(next(iter(by_run.values())))
    figure = new_figure(9.5, 0.3 * len(names) * min(len(by_run), LINES) + 1.4)
    axes = figure.add_subplot()
    axes.axvline(0, color="grey", linewidth=1)
    styles = line_styles(len(by_run))
    named = {}
    for number, (run, differences) in enumerate(by_run.items()):
        place = np.arange(len(names)) + 0.7 * (number + 0.5) / len(by_run) - 0.35
        value, low, high = np.array([differences[name].ends for name in names]).T
        colour, dashes = styles[number] if number < len(styles) else (FAINT, "-")
        points = axes.plot(value, place, "o" if dashes == "-" else "D", color=colour, markersize=5)
        axes.hlines(place, low, high, color=colour, linestyle=dashes)
        if number < len(styles):
            named[shortened(run)] = points[0]
    if others := len(by_run) - len(styles):
        named[f"{others} others"] = points[0]
    row_names(axes, [f"{n} {'↑' if is_higher_better(n) else '↓'}" for n in names])
    caption = f"above {shortened(first)}; line: 95 % interval over {shortened(over)}"
    axes.set_xlabel(f"{caption}\nof ↑ more is better, of ↓ less", parse_math=False)
    legend_beside(figure, list(named.values()), list(named))
    return save(figure, path)


def confusion_png(
    path: Path, confusion: npt.NDArray[np.int64], names: list[str], title: str
) -> Path:
    """Draw a confusion matrix: colour is the share of the true class, the figure its count.

    Above `MANY` classes there are no counts, and the size is fixed.

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
    many = len(names) > MANY
    longest = max(map(len, map(shortened, names)))
    size = 9.0 if many else max(3.2, 0.55 * len(names) + 0.09 * longest + 1.2)
    figure = new_figure(size, size)
    axes = figure.add_subplot()
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if not many:
        for (row, column), count in np.ndenumerate(confusion):
            colour = "white" if share[row, column] > 0.55 else "black"
            axes.text(
                column,
                row,
                f"{count}",
                ha="center",
                va="center",
                color=colour,
                fontsize=8,
                in_layout=False,
            )  # fmt: skip  (within the axes: it moves nothing)
    step = -(-len(names) // (2 * MANY))  # of so many names not all can be read
    ticks, named = range(0, len(names), step), [shortened(name) for name in names[::step]]
    font = 7 if many else 10
    upright = 90 if longest > 3 else 0
    axes.set_xticks(ticks, named, rotation=upright, parse_math=False, fontsize=font)
    axes.set_yticks(ticks, named, parse_math=False, fontsize=font)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    figure.suptitle(shortened(title, 32), x=0.02, ha="left", fontsize=10, parse_math=False)
    return save(figure, path, is_framed=True)
