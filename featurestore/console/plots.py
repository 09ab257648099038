"""Pictures of a cohort, drawn from the small tables of `featurestore.views.summaries`."""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ibis.expr.types as ir
import matplotlib
import numpy as np
import pyarrow as pa
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from featurestore.backend import errors
from featurestore.console.settings import open_store
from featurestore.io import atomic
from featurestore.png import png
from featurestore.printing import say
from featurestore.views import summaries
from featurestore.views.classes import ClassSpec
from featurestore.views.fates import distribution_view, funnel_view
from featurestore.views.labels import coverage_view
from featurestore.views.thresholds import ON_REQUEST

# Okabe and Ito (2008): told apart with any colour vision.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#7F7F7F")
KEPT, DROPPED, INPUT, FAINT = "#009E73", "#D55E00", "#56606B", "#C8C8C8"
DPI = 110
MANY = 25  # classes that have a panel each


def run(options: argparse.Namespace) -> None:
    """Draw pictures of a cohort."""
    store = open_store(options)
    store.survivors("")
    classes = store.classes()
    for path in draw(store.view("fates"), classes, options.output, [options.picture]):
        say(path)


def draw(
    fates: ir.Table, classes: Sequence[ClassSpec], folder: Path, names: Iterable[str] | None = None
) -> list[Path]:
    """Draw pictures of a cohort; return the PNG files.

    Parameters
    ----------
    fates
        The view of fates, with its coverages.
    classes
        In the order of their columns, with the chosen thresholds.
    folder
        Where to write.
    names
        Some of `PICTURES` (default: all).

    Raises
    ------
    ArtifactError
        A file cannot be written.
    """
    with errors.translated():
        return [
            save(figure, folder / f"{file}.png")
            for name in names or PICTURES
            for file, figure in PICTURES[name](fates, classes).items()
        ]


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, by temporary name and rename."""
    FigureCanvasAgg(figure)
    atomic.write_bytes(path, png(figure, DPI))
    return path


def _funnel(fates: ir.Table, classes: Sequence[ClassSpec]) -> dict[str, Figure]:
    rows = funnel_view(fates).to_pyarrow().to_pylist()
    asked = [row for row in rows if row["tiles"] or row["reason"] not in ON_REQUEST]
    return {"funnel": funnel_figure(asked)}


def _thresholds(fates: ir.Table, classes: Sequence[ClassSpec]) -> dict[str, Figure]:
    coverages = coverage_view(fates, classes)
    thresholds = {spec.name: spec.threshold for spec in classes}
    survival = summaries.survival_view(fates, coverages).to_pyarrow()
    histogram = summaries.histogram_view(coverages).to_pyarrow()
    return {
        "thresholds": survival_figure(survival, thresholds),
        "coverages": histogram_figure(histogram, thresholds),
    }


def _folds(fates: ir.Table, classes: Sequence[ClassSpec]) -> dict[str, Figure]:
    counts = distribution_view(fates).to_pyarrow()
    trained = [spec.name for spec in classes if spec.index is not None]
    return {"folds": folds_figure(counts, trained)}


def _slides(fates: ir.Table, classes: Sequence[ClassSpec]) -> dict[str, Figure]:
    return {"slides": slides_figure(summaries.slide_view(fates).to_pyarrow())}


PICTURES: dict[str, Callable[[ir.Table, Sequence[ClassSpec]], dict[str, Figure]]] = {
    "funnel": _funnel,
    "thresholds": _thresholds,
    "folds": _folds,
    "slides": _slides,
}


def funnel_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw how many tiles each reason drops: ``step, reason, tiles``, from input to kept."""
    figure = Figure(figsize=(7, 0.42 * len(rows) + 0.9), layout="constrained")
    axes = figure.add_subplot()
    total = max(rows[0]["tiles"], 1)
    named = {"input": INPUT, "kept": KEPT}
    tiles = [row["tiles"] for row in rows]
    axes.barh(range(len(rows)), tiles, color=[named.get(r["reason"], DROPPED) for r in rows])
    for place, count in enumerate(tiles):
        axes.text(count + total / 100, place, f"{count:,}  {count / total:.1%}", va="center")
    axes.set_yticks(range(len(rows)), [row["reason"] for row in rows], parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, total * 1.25)
    axes.set_xlabel("tiles")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("What becomes of the tiles", loc="left")
    return figure


def survival_figure(survival: pa.Table, thresholds: Mapping[str, float]) -> Figure:
    """Draw the share of each class's tiles that reaches each threshold, the chosen one marked.

    Of more than `MANY` classes those that lose the most have a colour and a name, others are grey.

    Parameters
    ----------
    survival
        ``class, at_least, tiles``.
    thresholds
        Class to threshold.
    """
    curves = survival_curves(survival, thresholds)
    heights = {name: float(np.interp(thresholds[name], at, share))
               for name, (at, share, _) in curves.items()}  # fmt: skip
    worst = sorted(curves, key=heights.__getitem__)[: len(COLOURS)]
    named = [name for name in curves if len(curves) <= MANY or name in worst]
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for name in curves.keys() - set(named):
        axes.plot(*curves[name][:2], "-", color=FAINT, linewidth=0.6)
    for number, name in enumerate(named):
        colour, dashes = (
            COLOURS[number % len(COLOURS)],
            ("-", "--", ":")[number // len(COLOURS) % 3],
        )
        at, share, tiles = curves[name]
        threshold, height = thresholds[name], heights[name]
        axes.plot(at, share, dashes, color=colour, label=f"{name} ({tiles:,})")
        axes.plot([threshold], [height], "o", color=colour, markeredgecolor="white", zorder=3)
        axes.plot([threshold, threshold], [0, height], color=colour, linewidth=0.8, alpha=0.5)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("threshold of the dominant class's coverage")
    axes.set_ylabel("share of its tiles that reach it")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("Survival by threshold (dots: the chosen ones)", loc="left")
    if curves:
        legend = axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def survival_curves(
    survival: pa.Table, thresholds: Mapping[str, float]
) -> dict[str, tuple[np.ndarray, np.ndarray, int]]:
    """Return thresholds, the share that reaches them, and all tiles, of each class with tiles."""
    by_class: dict[str, list[tuple[float, int]]] = {name: [] for name in thresholds}
    for row in survival.to_pylist():
        if row["class"] in by_class:
            by_class[row["class"]].append((row["at_least"], row["tiles"]))
    curves = {}
    for name, points in by_class.items():
        if points:
            at, tiles = np.array(points, dtype=float).T
            curves[name] = at, tiles / max(tiles[0], 1), int(tiles[0])
    return curves


def histogram_figure(histogram: pa.Table, thresholds: Mapping[str, float]) -> Figure:
    """Draw each class's coverages where there are any: ``class, low, tiles``.

    Each class has a panel; above `MANY` classes it has a row of one picture.
    """
    table = histogram_counts(histogram, list(thresholds))
    if len(thresholds) > MANY:
        return histogram_rows_figure(table, thresholds)
    low, width = np.arange(summaries.BINS) / summaries.BINS, 1 / summaries.BINS
    across = min(len(thresholds), 4)
    down = -(-len(thresholds) // across)
    size = 2.4 * across, 1.9 * down + 0.4
    figure = Figure(figsize=size)
    # Panels of one size need no layout that measures them: it took two thirds of the drawing.
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(
        left=0.75 / size[0], right=1 - 0.1 / size[0], wspace=0.08,
        bottom=0.6 / size[1], top=1 - 0.3 / size[1], hspace=0.25,
    )  # fmt: skip
    grid[0, 0].set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
    for axes, tiles, (name, threshold) in zip(grid.flat, table, thresholds.items(), strict=False):
        axes.bar(low[tiles > 0], tiles[tiles > 0], width, align="edge", color=COLOURS[0])
        axes.axvline(threshold, color=DROPPED, linewidth=1.2)
        axes.set_title(name, fontsize=9, parse_math=False)
        axes.set_yscale("log")
        axes.minorticks_off()
        axes.set_xlim(0, 1)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in list(grid.flat)[len(thresholds) :]:
        axes.set_axis_off()
    figure.supxlabel("coverage, where above 0 (line: threshold)", fontsize=9)
    figure.supylabel("tiles", fontsize=9)
    return figure


def histogram_rows_figure(table: np.ndarray, thresholds: Mapping[str, float]) -> Figure:
    """Draw the coverages of many classes, a row each: tiles by class and bin, shape (K, bins)."""
    figure = Figure(figsize=(7.5, 9), layout="constrained")
    axes = figure.add_subplot()
    counts = np.ma.masked_less(table, 1)  # a logarithm has no colour for none
    image = axes.imshow(
        counts, cmap="Blues", norm="log", aspect="auto", interpolation="nearest",
        extent=(0, 1, len(table) - 0.5, -0.5),
    )  # fmt: skip
    places = np.arange(len(table))
    axes.vlines(list(thresholds.values()), places - 0.5, places + 0.5, color=DROPPED, linewidth=1.2)
    step = -(-len(table) // (2 * MANY))  # of so many names not all can be read
    names = list(thresholds)[::step]
    axes.set_yticks(places[::step], names, parse_math=False, fontsize=7)
    axes.set_xlabel("coverage, where above 0 (line: threshold)")
    figure.colorbar(image, ax=axes, label="tiles")
    return figure


def histogram_counts(histogram: pa.Table, names: Sequence[str]) -> np.ndarray:
    """Return tiles by class and bin, shape (K, bins), of ``class, low, tiles``."""
    place = {name: row for row, name in enumerate(names)}
    rows = np.array([place.get(name, -1) for name in histogram["class"].to_pylist()], dtype=int)
    bins = np.rint(histogram["low"].to_numpy() * summaries.BINS).astype(int)
    table = np.zeros((len(names), summaries.BINS), dtype=np.int64)
    named = rows >= 0
    table[rows[named], bins[named]] = histogram["tiles"].to_numpy()[named]
    return table


def folds_figure(counts: pa.Table, names: Sequence[str]) -> Figure:
    """Draw fold x class: ``fold, label, tiles, slides``, of kept tiles; empty cells stand out.

    Above `MANY` classes there is no text in cells, and the size is fixed.
    """
    folds = sorted(set(counts["fold"].to_pylist()))
    row = {fold: place for place, fold in enumerate(folds)}
    column = {name: place for place, name in enumerate(names)}
    table = np.zeros((len(folds), len(names)), dtype=np.int64)
    for each in counts.to_pylist():
        table[row[each["fold"]], column[each["label"]]] = each["tiles"]
    share = table / np.maximum(table.sum(axis=0), 1)
    many = len(names) > MANY
    width = 12.0 if many else 0.95 * len(names) + 1.6
    figure = Figure(figsize=(width, 0.55 * len(folds) + 1.9), layout="constrained")
    axes = figure.add_subplot()
    most = max(2 / max(len(folds), 1), share.max())  # an even share is half of the scale
    colours = matplotlib.colormaps["Blues"].with_extremes(bad=DROPPED)  # of an empty cell
    shown = np.ma.masked_where(table == 0, share) if many else share
    image = axes.imshow(shown, cmap=colours, vmin=0, vmax=most, aspect="auto")
    for (fold, kind), tiles in np.ndenumerate(table) if not many else ():
        dark = share[fold, kind] > 0.6 * most
        cell_text = f"{tiles:,}\n{share[fold, kind]:.0%}" if tiles else "none"
        colour = DROPPED if not tiles else "white" if dark else "black"
        weight = "normal" if tiles else "bold"
        axes.text(kind, fold, cell_text, ha="center", va="center", fontsize=8, color=colour,
                  fontweight=weight, in_layout=False)  # fmt: skip
    step = -(-len(names) // (2 * MANY))  # of so many names not all can be read
    axes.set_xticks(range(0, len(names), max(step, 1)), names[:: max(step, 1)], parse_math=False,
                    rotation=90 if many else 35, ha="center" if many else "right")  # fmt: skip
    axes.set_yticks(range(len(folds)), [str(fold) for fold in folds])
    axes.set_ylabel("fold")
    axes.set_title("Kept tiles per fold and class, share of the class", loc="left", fontsize=10)
    figure.colorbar(image, ax=axes, label="share of the class")
    return figure


def slides_figure(slides: pa.Table) -> Figure:
    """Draw the tiles of each slide, the largest first: ``slide_id, kept, dropped``."""
    kept, dropped = slides["kept"].to_numpy(), slides["dropped"].to_numpy()
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.add_subplot()
    place = np.arange(len(kept))
    # Steps, not bars: thousands of bars are slower to draw and show less.
    axes.fill_between(np.append(place, len(kept)), np.append(kept, kept[-1:]), step="post",
                      color=KEPT, label="kept", linewidth=0)  # fmt: skip
    axes.fill_between(
        np.append(place, len(kept)), np.append(kept, kept[-1:]),
        np.append(kept + dropped, (kept + dropped)[-1:]), step="post", color=DROPPED,
        label="dropped", linewidth=0, alpha=0.75,
    )  # fmt: skip
    axes.set_xlim(0, max(len(kept), 1))
    axes.set_ylim(0, None)
    if len(kept) <= 40:
        axes.set_xticks(place + 0.5, slides["slide_id"].to_pylist(), rotation=90, fontsize=7,
                        parse_math=False)  # fmt: skip
    else:
        axes.set_xlabel(f"{len(kept):,} slides, the largest first")
    axes.set_ylabel("tiles")
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    median = int(np.median(kept)) if len(kept) else 0
    axes.set_title(f"Tiles per slide (median {median:,} kept)", loc="left")
    return figure
