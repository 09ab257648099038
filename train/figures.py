"""Pictures: the one file of train/ that draws."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from sklearn.metrics import precision_recall_curve, roc_curve

from train import evidence
from train.groups import Group
from train.palette import ANSWERS

BLUE, ORANGE = "#0072B2", "#D55E00"
FEW = 4  # lines whose intervals can be told apart
FLAT = 0.4  # height to width of what is better drawn below each other than side by side


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
    figure = _figure(8, 0.34 * len(names) + 1.2)
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
    return _saved(figure, path)


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
    figure = _figure(max(5.0, 1.1 * len(values) + 2), 4)
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
    return _saved(figure, path)


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
    figure = _figure(4.6, 5.2)
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
    return _saved(figure, path)


def curves_png(
    path: Path,
    target: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float32],
    names: list[str],
) -> Path:
    """Draw each class against the others: ROC curves and precision-recall curves."""
    figure = _figure(9.2, 4.6)
    left, right = figure.subplots(1, 2)
    for index, name in enumerate(names):
        own = target == index
        if not own.any() or own.all():
            continue
        false, true, _ = roc_curve(own, probabilities[:, index])
        precision, recall, _ = precision_recall_curve(own, probabilities[:, index])
        left.plot(false, true, linewidth=1, label=name)
        right.plot(recall, precision, linewidth=1, label=name)
    left.plot([0, 1], [0, 1], color="grey", linewidth=0.7)
    for axes, x, y in ((left, "false positive rate", "recall"), (right, "recall", "precision")):
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.02)
    left.set_title("ROC, each class against the others", loc="left", fontsize=10)
    right.set_title("Precision and recall", loc="left", fontsize=10)
    right.legend(fontsize=7, frameon=False, loc="lower left")
    return _saved(figure, path)


def classes_png(
    path: Path, names: list[str], f1: list[tuple[float, float, float]], over: str = "slides"
) -> Path:
    """Draw the F1 of each class with its 95 % interval.

    Parameters
    ----------
    f1
        Value, lower and upper end; not a number where a class is absent.
    over
        What the intervals resample.
    """
    figure = _figure(6.5, 0.34 * len(names) + 1.2)
    axes = figure.add_subplot()
    value, low, high = np.array(f1).T
    axes.barh(range(len(names)), np.nan_to_num(value), color=BLUE, alpha=0.55)
    axes.hlines(range(len(names)), low, high, color="black", linewidth=1.5)
    for place, (own, end) in enumerate(zip(value, high, strict=True)):
        said = "absent" if np.isnan(own) else f"{own:.3f}"
        axes.text(np.nan_to_num(max(own, end)) + 0.01, place, said, va="center", fontsize=8)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 1.12)
    axes.set_xlabel(f"F1; line: 95 % interval, {over} resampled", parse_math=False)
    return _saved(figure, path)


def groups_png(
    path: Path,
    column: str,
    groups: list[Group],
    overall: dict[str, evidence.Figure],
    over: str = "slides",
) -> Path:
    """Draw macro F1 and accuracy of each group of a column with intervals, the worst in orange.

    Parameters
    ----------
    overall
        The figures of all tiles.
    over
        What the intervals resample.
    """
    place = np.arange(len(groups))
    figure = _figure(9.2, 0.4 * len(groups) + 1.4)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, metric, said in zip(
        panels, ("f1_macro", "accuracy"), ("macro F1", "accuracy"), strict=True
    ):
        found = [group.figures[metric] for group in groups]
        value, low, high = np.array([(f.value, f.low, f.high) for f in found]).T
        colours = [ORANGE if own == value.min() else BLUE for own in value]
        axes.barh(place, value, color=colours, alpha=0.55)
        axes.hlines(place, low, high, color="black", linewidth=1.5)
        for own, at in enumerate(value):
            axes.text(1.02, own, f"{at:.3f}", va="center", fontsize=8)
        axes.axvline(overall[metric].value, color="grey", linewidth=1, linestyle="--")
        axes.set_xlim(0, 1.12)
        axes.set_xlabel(said)
    names = [f"{group.value}\n{group.tiles:,} tiles, {group.slides:,} slides" for group in groups]
    panels[0].set_yticks(place, names, parse_math=False, fontsize=8)
    panels[0].set_ylim(len(groups) - 0.5, -0.5)
    said = f"By {column}, the worst in orange; line: 95 %, {over} resampled; dashed: all tiles"
    figure.suptitle(said, fontsize=9, x=0.01, ha="left", parse_math=False)
    return _saved(figure, path)


def slides_png(path: Path, accuracy: list[float], tiles: list[int]) -> Path:
    """Draw the accuracy of every slide, the worst first; the area of a point is its tiles."""
    figure = _figure(6.5, 3.6)
    axes = figure.add_subplot()
    area = 12 + 90 * np.array(tiles) / max(tiles)
    axes.scatter(range(len(accuracy)), accuracy, s=area, color=BLUE, alpha=0.6)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("slides, the worst first; area: number of tiles")
    axes.set_ylabel("accuracy")
    return _saved(figure, path)


def risk_png(path: Path, curve: dict[str, list[float]]) -> Path:
    """Draw how many errors are left if only the surest predictions are given."""
    figure = _figure(5.6, 3.8)
    axes = figure.add_subplot()
    axes.plot(curve["coverage"], curve["risk"], color=BLUE)
    for share in (0.5, 0.8, 0.9):
        place = int(np.searchsorted(curve["coverage"], share))
        if place < len(curve["coverage"]):
            x, y = curve["coverage"][place], curve["risk"][place]
            axes.plot(x, y, "o", color=ORANGE)
            axes.annotate(f"above {curve['confidence'][place]:.2f}", (x, y), fontsize=8, ha="right")
    axes.set_xlim(0, 1.02)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("share of tiles that a prediction is given for, the surest first")
    axes.set_ylabel("share of errors among them")
    return _saved(figure, path)


def differences_png(
    path: Path,
    first: str,
    found: dict[str, dict[str, tuple[float, float, float]]],
    over: str = "slides",
) -> Path:
    """Draw by how much runs differ from the first, figure by figure, with 95 % intervals.

    Parameters
    ----------
    found
        By run and figure: difference, lower and upper end.
    over
        What the intervals resample.
    """
    names = list(next(iter(found.values())))
    figure = _figure(7.5, 0.3 * len(names) * len(found) + 1.4)
    axes = figure.add_subplot()
    axes.axvline(0, color="grey", linewidth=1)
    for number, (run, own) in enumerate(found.items()):
        place = np.arange(len(names)) + 0.7 * (number + 0.5) / len(found) - 0.35
        value, low, high = np.array([own[name] for name in names]).T
        drawn = axes.plot(value, place, "o", label=run)
        axes.hlines(place, low, high, color=drawn[0].get_color())
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(f"above {first}; line: 95 % interval, {over} resampled", parse_math=False)
    axes.legend(fontsize=7, frameon=False)
    return _saved(figure, path)


def overview_png(
    path: Path,
    title: str,
    classes: list[str],
    colours: list[str],
    label: npt.NDArray[np.int64],
    confidence: npt.NDArray[np.float64],
    truth: npt.NDArray[np.int64] | None,
    answer: npt.NDArray[np.int64],
    extent: tuple[float, float, float, float],
) -> Path:
    """Draw a slide: what is true, what is predicted, where it errs, how sure it is.

    Parameters
    ----------
    label, truth
        Class indices as an image, below zero where there is none; without labels no ``truth``.
    confidence
        Probability of ``label``, not a number where there is no tile.
    answer
        Index of `train.palette.ANSWERS`.
    extent
        Left, right, lower and upper edge of the images, in millimetres.
    """
    marks = {"prediction": (label, colours)}
    if truth is not None:
        marks = {"truth": (truth, colours), **marks, "errors": (answer, list(ANSWERS.values()))}
    tall = abs((extent[2] - extent[3]) / (extent[1] - extent[0]))
    number = len(marks) + 1
    shape = (number, 1) if tall < FLAT else (1, number)
    width = 9.5 if tall < FLAT else 3.3
    height = float(np.clip(width * tall, 0.6, 7)) + 0.4
    figure = _figure(width * shape[1] + 0.6, height * shape[0] + 1.3)
    panels = figure.subplots(*shape, sharex=True, sharey=True)
    for axes, (name, (image, tones)) in zip(panels, marks.items(), strict=False):
        axes.imshow(
            np.ma.masked_less(image, 0), ListedColormap(tones), vmin=-0.5, vmax=len(tones) - 0.5,
            extent=extent, interpolation="nearest",
        )  # fmt: skip
        axes.set_title(name, fontsize=9, loc="left")
    drawn = panels[-1].imshow(
        confidence, "viridis", vmin=0, vmax=1, extent=extent, interpolation="nearest"
    )
    panels[-1].set_title("probability of the prediction", fontsize=9, loc="left")
    figure.colorbar(drawn, ax=panels[-1], shrink=0.8)
    for axes in panels:
        axes.tick_params(labelsize=7)
    panels[-1 if tall < FLAT else 0].set_xlabel("mm", fontsize=7)
    seen = np.unique(np.concatenate([values.ravel() for values, _ in list(marks.values())[:2]]))
    named = {classes[index]: colours[index] for index in seen if index >= 0}
    entries = {**named, **(ANSWERS if truth is not None else {})}
    legend = figure.legend(
        handles=[Patch(color=colour, label=name) for name, colour in entries.items()],
        loc="outside lower left", ncols=min(10, len(entries)), fontsize=8, frameon=False,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, parse_math=False)
    return _saved(figure, path)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _saved(figure: Figure, path: Path) -> Path:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
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
