"""Tiles with the share of each that every class covers: one slide at a time, into one file."""

import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from featurestore.annotations import files
from featurestore.annotations.annotation import AnnotationError, Shapes
from featurestore.annotations.areas import Counts, Selection, areas
from featurestore.annotations.coverage import Overlap, overlaps, shares
from featurestore.annotations.grid import (
    AnnotatedGrid,
    Reach,
    SlideGrid,
    SlidesGrid,
    TilesGrid,
)
from featurestore.errors import EmptyViewError, FeatureStoreWarning
from featurestore.io.atomic import fresh_file
from featurestore.io.progress import Rows
from featurestore.spec.typed import nearest
from featurestore.views.classes import COVERAGE

ROWS = 65_536  # of a row group
SHOWN = 3  # names in a message
Grid = AnnotatedGrid | SlidesGrid | TilesGrid


@dataclass
class Summary:
    """What was covered.

    Parameters
    ----------
    counts
        What the annotations hold.
    slides, tiles
        How many were written.
    covered, area
        By class, how many tiles have a share of it, and the sum of their shares.
    overlaps
        By two classes, where they were drawn over each other.
    """

    counts: Counts = field(default_factory=Counts)
    slides: int = 0
    tiles: int = 0
    covered: Counter[str] = field(default_factory=Counter)
    area: dict[str, float] = field(default_factory=dict)
    overlaps: dict[tuple[str, str], Overlap] = field(default_factory=dict)

    def table(self, classes: Iterable[str]) -> pa.Table:
        """Return a row for each class: ``class, polygons, tiles, area`` (in tiles)."""
        rows = [
            {"class": name, "polygons": self.counts.polygons[name], "tiles": self.covered[name],
             "area (tiles)": self.area.get(name, 0.0)}
            for name in classes
        ]  # fmt: skip
        return pa.Table.from_pylist(rows)


def cover(
    grid: Grid, files_of: Mapping[str, list[Path]], selection: Selection, to: Path, bar: Rows
) -> Summary:
    """Write the tiles of the slides that were annotated; warn of what is not as one would think.

    A slide without a file is left out: that nobody looked is not that nothing is there.

    Parameters
    ----------
    grid
        Which tiles.
    files_of
        The files of annotations of each slide.
    selection
        What of them counts.
    to
        The Parquet file.
    bar
        Shows the slides as they are done.

    Raises
    ------
    AnnotationError
        No file is of a slide of the grid, one cannot be read, or a class is not known.
    EmptyViewError
        There is no tile.
    """
    wanted = _wanted(grid, files_of)
    summary = Summary()
    with bar.counting("annotations", len(wanted)) as advance, fresh_file(to) as building:
        writer = None
        try:
            for block in _blocks(_tables(grid.each(wanted), files_of, selection, summary), advance):
                writer = writer or pq.ParquetWriter(building, block.schema, compression="zstd")
                writer.write_table(block)
        finally:
            if writer is not None:
                writer.close()
        _check(summary, selection)
    _warn_of_all(summary, selection)
    return summary


def _wanted(grid: Grid, files_of: Mapping[str, object]) -> list[str]:
    """Return the slides that have both tiles and annotations, and warn of the others."""
    slides = list(files_of) if grid.slides is None else grid.slides
    without_files, without_tiles = files.match(files_of, slides)
    wanted = [name for name in slides if name in files_of]
    if not wanted:
        raise AnnotationError(
            "No file of annotations is of a slide of the tiles",
            found=f"annotations of {_listed(without_tiles)}; tiles of {_listed(without_files)}"
            + (nearest(without_tiles[0], without_files) if without_tiles else ""),
            fix=r"say which part of a file's name is the slide, for example --slide-id '(.+)\.svs'",
        )
    _warn_of(f"{len(without_files):,} slides have no annotations and are left out", without_files)
    _warn_of(
        f"annotations of {len(without_tiles):,} slides are of none of the tiles", without_tiles
    )
    return wanted


def _tables(
    grids: Iterable[SlideGrid],
    files_of: Mapping[str, list[Path]],
    selection: Selection,
    summary: Summary,
) -> Iterator[pa.Table]:
    """Yield the tiles of each slide with their coverages, and sum up."""
    for grid in grids:
        shapes, counts = areas(files.read(files_of[grid.name]), selection)
        summary.counts += counts
        if summary.counts.unknown:
            continue  # all names that are not known belong in the refusal
        rows = grid.rows_within(_reach(shapes, grid.downsample))
        boxes = grid.boxes(rows)
        for name in selection.classes:
            share = shares(shapes.get(name, boxes[:0]), boxes)
            rows = rows.append_column(COVERAGE + name, pa.array(share))
            summary.covered[name] += int((share > 0).sum())
            summary.area[name] = summary.area.get(name, 0.0) + float(share.sum())
        for pair, overlap in overlaps(shapes, boxes).items():
            summary.overlaps[pair] = overlap + summary.overlaps.get(pair, Overlap(0.0, 0))
        summary.slides += 1
        summary.tiles += len(rows)
        yield rows


def _reach(shapes: Mapping[str, Shapes], downsample: float) -> Reach:
    """Return the ends of what was annotated, in pixels of the tiles; of nothing, one point."""
    every = [area for area in shapes.values() if len(area)]
    if not every:
        return (0.0, 0.0, 0.0, 0.0)
    left, top, right, bottom = shapely.total_bounds(np.concatenate(every)) / downsample
    return float(left), float(top), float(right), float(bottom)


def _blocks(tables: Iterable[pa.Table], advance: Callable[[int], None]) -> Iterator[pa.Table]:
    """Yield tables of slides, those of small ones together."""
    pending: list[pa.Table] = []
    for table in tables:
        pending.append(table)
        advance(1)
        if sum(map(len, pending)) >= ROWS:
            yield pa.concat_tables(pending)
            pending = []
    if pending:
        yield pa.concat_tables(pending)


def _check(summary: Summary, selection: Selection) -> None:
    """Refuse annotations of classes that are not known, and a grid without tiles."""
    if unknown := summary.counts.unknown:
        names = [f"{name!r} ({count:,})" for name, count in unknown.most_common()]
        name = unknown.most_common(1)[0][0]
        raise AnnotationError(
            f"Annotations are of classes that are not known: {', '.join(names)}",
            found=f"classes {', '.join(selection.classes)}{nearest(name, selection.classes)}",
            fix=f"add them to --classes, or leave them out: --ignore {name!r}",
        )
    if not summary.tiles:
        raise EmptyViewError(
            "There are no tiles to cover", found=f"{summary.slides:,} slides without one",
            fix="name larger slides, or --edge keep with smaller tiles",
        )  # fmt: skip


def _warn_of_all(summary: Summary, selection: Selection) -> None:
    counts = summary.counts
    if counts.repaired:
        total = counts.polygons.total()
        _warn_of(f"{counts.repaired:,} of {total:,} polygons cross themselves and were repaired")
    for reason, number in counts.passed_over.items():
        _warn_of(f"{number:,} objects do not count: {reason}")
    for (one, other), overlap in summary.overlaps.items():
        _warn_of(
            f"{one} and {other} are drawn over each other: {overlap.area:,.0f} square pixels of "
            f"full resolution, in {overlap.tiles:,} tiles, count for both"
        )
    _warn_of(
        "no polygon is of some classes", [n for n in selection.classes if not counts.polygons[n]]
    )


def _warn_of(message: str, names: Collection[str] | None = None) -> None:
    """Warn, with some names; not if there are none."""
    if names is None or names:
        text = message if names is None else f"{message}: {_listed(names)}"
        warnings.warn(text, FeatureStoreWarning, stacklevel=4)


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:SHOWN])
    return (shown or "none") + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")
