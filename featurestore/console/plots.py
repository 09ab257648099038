"""Pictures of a cohort, drawn from the small tables of `featurestore.views.summaries`."""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from featurestore.backend import errors
from featurestore.console.settings import open_store
from featurestore.drawing import (
    BLUE,
    FAINT,
    GREEN,
    LINES,
    ORANGE,
    ROWS,
    legend_beside,
    line_styles,
    shortened,
)
from featurestore.io import atomic
from featurestore.png import png
from featurestore.printing import say
from featurestore.views import summaries
from featurestore.views.classes import ClassSpec
from featurestore.views.fates import distribution_view, funnel_view
from featurestore.views.labels import coverage_view
from featurestore.views.thresholds import ON_REQUEST

KEPT, DROPPED, INPUT = GREEN, ORANGE, "#56606B"
DPI = 110
MANY, MANY_FOLDS = 25, 12  # whose counts can be read in one picture
PANELS = 12  # classes that have axes of their own, at most


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

    Of more than `LINES` classes those with the most tiles have colour and name, others are grey.

    Parameters
    ----------
    survival
        ``class, at_least, tiles``.
    thresholds
        Class to threshold.
    """
    figure = Figure(figsize=(8.5, 4.6), layout="constrained")
    axes = figure.add_subplot()
    rows_of = _by_class(survival)
    total = {name: rows_of[name][0]["tiles"] for name in thresholds if name in rows_of}
    largest = sorted(total, key=lambda name: -total[name])[:LINES]
    in_order = [name for name in total if name in set(largest)]
    styles = dict(zip(in_order, line_styles(LINES), strict=False))
    lines: dict[str, Any] = {}
    for name in sorted(total, key=lambda name: name in styles):  # the faint ones below
        rows, threshold = rows_of[name], thresholds[name]
        colour, dashes = styles.get(name, (FAINT, "-"))
        at = np.array([row["at_least"] for row in rows])
        share = np.array([row["tiles"] for row in rows]) / max(total[name], 1)
        [lines[name]] = axes.plot(at, share, dashes, color=colour)
        if name in styles:
            height = float(np.interp(threshold, at, share))
            axes.plot([threshold], [height], "o", color=colour, markeredgecolor="white", zorder=3)
            axes.plot([threshold, threshold], [0, height], color=colour, linewidth=0.8, alpha=0.5)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("threshold of the dominant class's coverage")
    axes.set_ylabel("share of its tiles that reach it")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("Survival by threshold (dots: the chosen ones)", loc="left")
    handles = [lines[name] for name in styles]
    names = [f"{shortened(name)} ({total[name]:,})" for name in styles]
    if others := len(total) - len(styles):
        handles.append(next(lines[name] for name in total if name not in styles))
        names.append(f"{others} others, with fewer tiles")
    legend_beside(figure, handles, names)
    return figure


def _by_class(table: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each class, read once."""
    rows_of: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        rows_of.setdefault(row["class"], []).append(row)
    return rows_of


def histogram_figure(histogram: pa.Table, thresholds: Mapping[str, float]) -> Figure:
    """Draw each class's coverages where there are any: ``class, low, tiles``.

    Each class has a panel; above `PANELS` classes it has a row of one picture.
    """
    table = histogram_counts(histogram, list(thresholds))
    if len(thresholds) > PANELS:
        return histogram_rows_figure(table, thresholds)
    low, width = np.arange(summaries.BINS) / summaries.BINS, 1 / summaries.BINS
    across = min(len(thresholds), 4)
    down = -(-len(thresholds) // across)
    size = 2.2 * across, 1.9 * down + 0.4
    figure = Figure(figsize=size)
    # Panels of one size need no layout that measures them: it took two thirds of the drawing.
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(
        left=0.75 / size[0], right=1 - 0.1 / size[0], wspace=0.08,
        bottom=0.6 / size[1], top=1 - 0.3 / size[1], hspace=0.25,
    )  # fmt: skip
    grid[0, 0].set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
    for axes, tiles, (name, threshold) in zip(grid.flat, table, thresholds.items(), strict=False):
        axes.bar(low[tiles > 0], tiles[tiles > 0], width, align="edge", color=BLUE)
        axes.axvline(threshold, color=DROPPED, linewidth=1.2)
        axes.set_title(shortened(name), fontsize=9, parse_math=False)
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
    step = -(-len(table) // ROWS)  # of so many names not all can be read
    names = [shortened(name) for name in list(thresholds)[::step]]
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
    """Draw class x fold: ``fold, label, tiles, slides``, of kept tiles; empty cells stand out.

    Above `MANY` classes or `MANY_FOLDS` folds there are no counts, and the size is fixed.
    """
    rows = counts.to_pylist()
    folds = {fold: place for place, fold in enumerate(sorted({row["fold"] for row in rows}))}
    places = {name: place for place, name in enumerate(names)}
    table = np.zeros((len(names), len(folds)), dtype=np.int64)
    for row in rows:
        table[places[row["label"]], folds[row["fold"]]] = row["tiles"]
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    many = len(names) > MANY or len(folds) > MANY_FOLDS
    size = (0.85 * min(len(folds), MANY_FOLDS) + 3.8, 0.5 * min(len(names), MANY) + 1.4)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    most = max(2 / max(len(folds), 1), share.max(initial=0))  # an even share is half of the scale
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=most, aspect="auto")
    for (kind, fold), tiles in () if many else np.ndenumerate(table):
        dark = share[kind, fold] > 0.6 * most
        cell_text = f"{tiles:,}\n{share[kind, fold]:.0%}" if tiles else "none"
        colour = DROPPED if not tiles else "white" if dark else "black"
        weight = "normal" if tiles else "bold"
        axes.text(fold, kind, cell_text, ha="center", va="center", fontsize=8, color=colour,
                  fontweight=weight, in_layout=False)  # fmt: skip
    step = max(-(-len(names) // ROWS), 1)  # of so many names not all can be read
    named = [shortened(name) for name in names[::step]]
    axes.set_yticks(range(0, len(names), step), named, parse_math=False)
    step = max(-(-len(folds) // (2 * MANY_FOLDS)), 1)
    axes.set_xticks(range(0, len(folds), step), [str(fold) for fold in folds][::step])
    axes.set_xlabel("fold")
    figure.suptitle("Kept tiles by class and fold", x=0.01, ha="left", fontsize=10)
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
        names = [shortened(name) for name in slides["slide_id"].to_pylist()]
        axes.set_xticks(place + 0.5, names, rotation=90, fontsize=7, parse_math=False)
    else:
        axes.set_xlabel(f"{len(kept):,} slides, the largest first")
    axes.set_ylabel("tiles")
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    median = int(np.median(kept)) if len(kept) else 0
    axes.set_title(f"Tiles per slide (median {median:,} kept)", loc="left")
    return figure
