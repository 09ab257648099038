"""The tiles of each slide: on a grid over its extent, over what was annotated, or as they are."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from featurestore.annotations.annotation import Shapes
from featurestore.backend import engine, errors
from featurestore.contract import rules, violation
from featurestore.contract.schemas import checked_table
from featurestore.errors import ConfigError, SchemaError
from featurestore.io import parquet
from featurestore.spec.literals import Edge
from featurestore.views.classes import COVERAGE, class_names
from featurestore.views.folds import KEY

Pair = tuple[int, int]
Reach = tuple[float, float, float, float]
TILE_SIZE = "--tile-size 224"
SIZES = f"--slides slides.parquet or {TILE_SIZE}"
SAID_BY = {"clam": "--coords patches/, where CLAM says it"}
"""By the tool that slides were imported from: the option that brings the size of tiles."""
Corners = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class GridOptions:
    """What is said of the tiles besides the artifact that names them.

    Parameters
    ----------
    tile, stride
        Width and height, and distance from tile to tile, in the units of x and y.
    origin
        The corner of the first tile.
    edge
        Whether tiles that reach over the slide's end are kept.
    downsample
        Pixels of full resolution in one of x and y.
    """

    tile: Pair | None = None
    stride: Pair | None = None
    origin: Pair = (0, 0)
    edge: Edge = "keep"
    downsample: float | None = None


@dataclass(frozen=True)
class SlideGrid:
    """The tiles of one slide.

    Parameters
    ----------
    name
        The slide.
    tile
        Width and height of each.
    downsample
        Pixels of full resolution in one of x and y.
    rows_within
        Returns the tiles, ``slide_id, x, y`` and what comes with them, given what the
        annotations reach: left, upper, right and lower end in the units of x and y.
    """

    name: str
    tile: Pair
    downsample: float
    rows_within: Callable[[Reach], pa.Table]

    def boxes(self, rows: pa.Table) -> Shapes:
        """Return the tiles as polygons in full resolution."""
        x, y = (rows[name].to_numpy() for name in ("x", "y"))
        corners = (x, y, x + self.tile[0], y + self.tile[1])
        return np.asarray(shapely.box(*(corner * self.downsample for corner in corners)))


class AnnotatedGrid:
    """Tiles over what was annotated, of slides that nothing else is known of."""

    def __init__(self, options: GridOptions) -> None:
        if options.tile is None:
            raise ConfigError(
                "Nothing says how large tiles are", found="neither --tiles nor --tile-size",
                fix="name slides or tiles, --tiles slides.parquet, or set --tile-size 224",
            )  # fmt: skip
        self.tile, self.options = options.tile, options
        self.slides: list[str] | None = None

    def each(self, wanted: Collection[str]) -> Iterator[SlideGrid]:
        """Yield the tiles of slides."""
        for name in sorted(wanted):
            yield SlideGrid(
                name, self.tile, self.options.downsample or 1.0, partial(self._rows, name)
            )

    def _rows(self, name: str, reach: Reach) -> pa.Table:
        stride = self.options.stride or self.tile
        if reach[2] <= reach[0]:  # nothing was annotated
            return _table(name, (np.empty(0, np.int64), np.empty(0, np.int64)))
        # The first tile of the lattice that reaches into what was annotated.
        skipped = [
            max(math.floor((low - corner - side) / step) + 1, 0) * step
            for low, corner, side, step in zip(
                reach, self.options.origin, self.tile, stride, strict=False
            )
        ]
        left, top = self.options.origin
        first = (left + skipped[0], top + skipped[1])
        return _table(name, lattice(reach[2:], self.tile, stride, first, "keep"))


class SlidesGrid:
    """Tiles over the extents of slides.

    Parameters
    ----------
    rows
        Of the slides artifact, by the names of slides.
    options
        What goes before what the artifact says.
    """

    def __init__(self, rows: dict[str, dict[str, Any]], options: GridOptions) -> None:
        self.rows, self.options = rows, options
        self.slides = list(rows)

    def each(self, wanted: Collection[str]) -> Iterator[SlideGrid]:
        """Yield the tiles of slides."""
        for name in sorted(wanted):
            row = self.rows[name]
            tile = self.options.tile or pair(row, "tile_extent", TILE_SIZE)
            extent = pair(row, "extent", "a grid of your own: --tiles coordinates.parquet")
            stated = row.get("stride_x") and row.get("stride_y")
            stride = self.options.stride or (pair(row, "stride", "--stride") if stated else tile)
            corners = lattice(extent, tile, stride, self.options.origin, self.options.edge)
            rows = _table(name, corners)
            yield SlideGrid(name, tile, downsample(row, self.options), partial(_as_it_is, rows))


class TilesGrid:
    """Tiles as they are, with their other columns.

    Parameters
    ----------
    tiles
        With the key of tiles.
    slides
        Rows of the slides artifact by name, which say how large tiles are; may be empty.
    options
        What goes before what the artifact says.
    """

    def __init__(
        self, tiles: ir.Table, slides: dict[str, dict[str, Any]], options: GridOptions
    ) -> None:
        self.tiles, self.rows, self.options = tiles, slides, options

    @cached_property
    def slides(self) -> list[str]:
        """Their names."""
        with errors.translated():
            names = self.tiles.select("slide_id").distinct().to_pyarrow()["slide_id"]
        return names.to_pylist()

    def each(self, wanted: Collection[str]) -> Iterator[SlideGrid]:
        """Yield the tiles of slides, which the engine sorts in a stream."""
        chosen = self.tiles.filter(self.tiles.slide_id.isin(sorted(wanted)))
        with errors.translated():
            batches = chosen.order_by(list(KEY)).to_pyarrow_batches()
        for name, rows in by_slide(batches):
            row = self.rows.get(name, {"id": name})
            tile = self.options.tile or pair(row, "tile_extent", TILE_SIZE if self.rows else SIZES)
            yield SlideGrid(name, tile, downsample(row, self.options), partial(_as_it_is, rows))


def open_grid(
    uri: str | None, slides: str | None, options: GridOptions
) -> AnnotatedGrid | SlidesGrid | TilesGrid:
    """Return the tiles that are to be covered.

    Parameters
    ----------
    uri
        Of Parquet with ``slide_id``, ``x`` and ``y``, or of the slides artifact; None for a grid
        over what was annotated.
    slides
        URI of the slides artifact, which says how large tiles are that have a key alone.

    Raises
    ------
    SchemaError
        It is neither, or has coverages already.
    ConfigError
        Nothing says how large tiles are.
    """
    uri = uri or slides
    if uri is None:
        return AnnotatedGrid(options)
    dataset = parquet.dataset(uri)
    if "slide_id" not in dataset.columns and "id" in dataset.columns:
        return SlidesGrid(read_slides(uri), options)
    tiles = checked_table(engine.connect(), dataset, "tiles")
    violation.raise_first(rules.key(tiles, "tiles"))
    if names := class_names(tiles.columns):
        raise SchemaError(
            f"The tiles of {uri} have coverages already",
            found=f"{COVERAGE}{names[0]}" + f" and {len(names) - 1} more" * (len(names) > 1),
            fix="name tiles without them, or drop these columns",
        )
    plain = [name for name, kind in tiles.schema().items() if not kind.is_nested()]
    kept = tiles.select(*KEY, *(name for name in plain if name not in KEY))
    return TilesGrid(kept, read_slides(slides) if slides else {}, options)


def read_slides(uri: str) -> dict[str, dict[str, Any]]:
    """Return the rows of a slides artifact by the names of slides."""
    table = checked_table(engine.connect(), parquet.dataset(uri), "slides")
    violation.raise_first(rules.slides(table))
    return rows_by_slide(table)


def rows_by_slide(table: ir.Table) -> dict[str, dict[str, Any]]:
    """Return the rows of a table of slides by their names."""
    with errors.translated():
        rows = table.mutate(id=table.id.cast("string")).to_pyarrow().to_pylist()
    return {row["id"]: row for row in rows}


def pair(row: dict[str, Any], name: str, fix: str) -> Pair:
    """Return two columns of a slide, ``<name>_x`` and ``<name>_y``.

    Raises
    ------
    SchemaError
        One of them is not there, or no number of pixels.
    """
    columns = [f"{name}_{axis}" for axis in "xy"]
    width, height = (row.get(column) for column in columns)
    if not width or not height or min(width, height) < 1:
        lacking = "no such columns" if not set(columns) <= row.keys() else f"{width} and {height}"
        source = row.get("source")
        again = f"import again with {SAID_BY[source]}; or " if source in SAID_BY else ""
        raise SchemaError(
            f"Nothing says what {' and '.join(columns)} are of slide {row['id']}",
            found=f"{lacking} in its row of slides" + (f", which is of {source}" if source else ""),
            fix=f"{again}set {fix}, or write them into the slides",
        )
    return int(width), int(height)


def downsample(row: dict[str, Any], options: GridOptions) -> float:
    """Return how many pixels of full resolution one of a slide's tiles has.

    Raises
    ------
    SchemaError
        The tiles are of another level than 0, and nothing says it.
    """
    factor = options.downsample or row.get("downsample") or (None if row.get("level") else 1.0)
    if factor is None or not 0 < factor < math.inf:
        raise SchemaError(
            f"The tiles of slide {row['id']} were not cut from its full resolution",
            found=f"level {row.get('level')}, downsample {factor}",
            fix="set for example --downsample 4, or write a column downsample of the slides",
        )
    return float(factor)


def lattice(
    extent: tuple[float, float], tile: Pair, stride: Pair, origin: Pair, edge: Edge
) -> Corners:
    """Return the corners of tiles, row by row, from an origin to the end of an extent."""
    steps = (np.array(extent) - origin - tile) / stride
    # Of a slide that is smaller than a tile, one reaches over its end.
    last = np.maximum(np.ceil(steps), 0) if edge == "keep" else np.floor(steps)
    across, down = np.maximum(last + 1, 0).astype(np.int64).tolist()
    y, x = np.divmod(np.arange(across * down), max(across, 1))
    return x * stride[0] + origin[0], y * stride[1] + origin[1]


def by_slide(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[str, pa.Table]]:
    """Yield the rows of each slide, of batches in the order of slides."""
    for name, runs in groupby(_runs(batches), key=itemgetter(0)):
        yield name, pa.concat_tables([rows for _, rows in runs])


def _runs(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[str, pa.Table]]:
    for batch in batches:
        names = batch["slide_id"].dictionary_encode()
        codes = names.indices.to_numpy()
        ends = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
        for start, end in pairwise(ends):
            if end > start:
                rows = pa.Table.from_batches([batch.slice(start, end - start)])
                yield names[start].as_py(), rows


def _as_it_is(rows: pa.Table, _: Reach) -> pa.Table:
    return rows


def _table(name: str, corners: Corners) -> pa.Table:
    x, y = corners
    return pa.table({"slide_id": pa.array([name] * len(x), pa.string()), "x": x, "y": y})
