"""One class for every point of a slide: the rule that all maps of it share.

Tiles may overlap. A point belongs to the class with the largest mean probability over the tiles
that cover it; where one tile alone covers it, that is the tile's own prediction. The edges of all
tiles cut the slide into cells, on each of which the tiles that cover it are the same: the rule is
applied once per cell, in whole numbers, and neither regions nor pixels are rounded.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featurestore.errors import SchemaError

Ints = npt.NDArray[np.int64]
NONE = -1  # no label
MOST = 50_000_000  # cells of a slide, and shares of tiles in them


@dataclass(frozen=True)
class SlidePredictions:
    """The tiles of one slide, as they were predicted.

    Parameters
    ----------
    x, y
        Upper left corners, in pixels of the slide's level, shape (tiles,).
    width, height
        Of every tile, in the same pixels.
    target, pred
        Class index; of the target, `NONE` without a label. Shape (tiles,).
    probabilities
        Shape (tiles, K).
    """

    x: Ints
    y: Ints
    width: int
    height: int
    target: Ints
    pred: Ints
    probabilities: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.x)

    @property
    def labelled(self) -> int:
        """How many have a label."""
        return int((self.target != NONE).sum())

    @property
    def accuracy(self) -> float:
        """Share of those with a label that are right; not a number without labels."""
        right = int((self.target == self.pred).sum())
        return right / self.labelled if self.labelled else math.nan

    @property
    def step(self) -> int:
        """Side of the largest square that the corners of all tiles lie on, counted from 0, 0."""
        return int(np.gcd.reduce(np.concatenate([self.x, self.y, [self.width, self.height]])))


@dataclass(frozen=True)
class LabelMap:
    """A slide cut into cells by the edges of its tiles.

    Parameters
    ----------
    xs, ys
        The edges, ascending: column c reaches from ``xs[c]`` to ``xs[c + 1]``.
    column, row
        Of each cell that a tile covers, row by row; shape (cells,).
    label, truth
        Class index by the rule; the label that most of its tiles have, or `NONE`.
    confidence
        Mean probability of ``label``.
    tile, cell
        Which tile covers which cell; shape (pairs,).
    """

    xs: Ints
    ys: Ints
    column: Ints
    row: Ints
    label: Ints
    truth: Ints
    confidence: npt.NDArray[np.float64]
    tile: Ints
    cell: Ints

    @property
    def area(self) -> Ints:
        """Pixels of each cell."""
        return np.diff(self.xs)[self.column] * np.diff(self.ys)[self.row]

    def spread(self, values: npt.NDArray, nothing: float) -> npt.NDArray:
        """Lay values of cells out by row and column, with ``nothing`` where no tile is."""
        laid = np.full((len(self.ys) - 1, len(self.xs) - 1), nothing, dtype=values.dtype)
        laid[self.row, self.column] = values
        return laid


def label_map(tiles: SlidePredictions) -> LabelMap:
    """Cut a slide into cells and apply the rule to each.

    Raises
    ------
    SchemaError
        Tiles overlap in so many ways that the cells do not fit into memory.
    """
    xs, left, columns = _cut(tiles.x, tiles.width)
    ys, top, rows = _cut(tiles.y, tiles.height)
    pairs, size = int((columns * rows).sum()), (len(xs) - 1) * (len(ys) - 1)
    if max(pairs, size) > MOST:
        raise SchemaError(
            "The tiles of a slide lie too irregularly to be mapped",
            found=f"{len(tiles):,} tiles cut it into {size:,} cells, in {pairs:,} pieces",
            fix="predict tiles that lie on a grid, or leave the slide out of maps.slides",
        )
    tile = np.repeat(np.arange(len(tiles)), columns * rows)
    inner = np.arange(pairs) - np.repeat(np.cumsum(columns * rows) - columns * rows, columns * rows)
    down, across = np.divmod(inner, columns[tile])
    place = (top[tile] + down) * (len(xs) - 1) + left[tile] + across
    positions, cell = np.unique(place, return_inverse=True)
    row, column = np.divmod(positions, len(xs) - 1)
    label, confidence = _argmax(tiles, tile, cell, len(positions))
    truth = _majority(tiles.target[tile], cell, len(positions), tiles.probabilities.shape[1])
    return LabelMap(xs, ys, column, row, label, truth, confidence, tile, cell)


def _cut(low: Ints, extent: int) -> tuple[Ints, Ints, Ints]:
    """Return the edges along one axis, each tile's first piece and its number of pieces."""
    edges = np.unique(np.concatenate([low, low + extent]))
    first = np.searchsorted(edges, low)
    return edges, first, np.searchsorted(edges, low + extent) - first


def _argmax(
    tiles: SlidePredictions, tile: Ints, cell: Ints, cells: int
) -> tuple[Ints, npt.NDArray[np.float64]]:
    """Return the class of the largest mean probability, the first on a tie, and that mean."""
    covered = np.bincount(cell, minlength=cells)
    best, label = np.full(cells, -np.inf), np.zeros(cells, dtype=np.int64)
    alone = np.zeros(cells, dtype=np.int64)
    alone[cell] = tile  # the one, where there is one
    for index in range(tiles.probabilities.shape[1]):
        mean = np.bincount(cell, tiles.probabilities[tile, index], cells) / covered
        better = np.where(covered == 1, tiles.pred[alone] == index, mean > best)
        label[better], best[better] = index, mean[better]
    return label, best


def _majority(target: Ints, cell: Ints, cells: int, classes: int) -> Ints:
    """Return the label that most tiles of each cell have, the first on a tie."""
    most, label = np.zeros(cells, dtype=np.int64), np.full(cells, NONE)
    for index in range(classes):
        votes = np.bincount(cell[target == index], minlength=cells)
        more = votes > most
        label[more], most[more] = index, votes[more]
    return label


@dataclass(frozen=True)
class Grid:
    """The pixels of a map.

    Parameters
    ----------
    pixel
        Side of a pixel of the map, in pixels of the slide's level.
    width, height
        How many pixels: as many as cover the slide.
    """

    pixel: int
    width: int
    height: int

    def halved(self) -> "Grid":
        """Return the grid whose pixels are twice as large."""
        return Grid(2 * self.pixel, -(-self.width // 2), -(-self.height // 2))


def grid(extent: tuple[int, int], step: int, most: int) -> Grid:
    """Return the pixels that cover a slide: the tiles' own step, unless that were too many.

    Parameters
    ----------
    extent
        Width and height of the slide.
    step
        See `SlidePredictions.step`; pixels are as large, or the least multiple of it that is
        enough.
    most
        Pixels at most.
    """
    width, height = extent
    factor = 1
    while math.prod(-(-side // (factor * step)) for side in extent) > most:
        factor += 1
    pixel = factor * step
    return Grid(pixel, -(-width // pixel), -(-height // pixel))


def places(edges: Ints, pixel: int, count: int, start: int = 0) -> Ints:
    """Return which piece between edges holds the centre of each pixel; `NONE` beyond them."""
    centre = 2 * (start + pixel * np.arange(count)) + pixel  # doubled, to stay whole
    piece = np.searchsorted(2 * edges, centre, side="right") - 1
    return np.where((piece < 0) | (piece >= len(edges) - 1), NONE, piece)


def sample(laid: npt.NDArray, rows: Ints, columns: Ints, nothing: float) -> npt.NDArray:
    """Return the values at the given rows and columns, ``nothing`` beyond the tiles."""
    values = laid[np.maximum(rows, 0)[:, None], np.maximum(columns, 0)]
    values[rows == NONE] = nothing
    values[:, columns == NONE] = nothing
    return values
