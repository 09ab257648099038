"""Regions: polygons of the cells that share a class and an edge.

Two cells that touch in a corner alone are two regions; a hole is a ring of its own. So every
polygon is valid, as QuPath and other readers of GeoJSON want it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from featurestore.errors import FeatureStoreError
from train.overlays.label_map import NONE, Ints, LabelMap, SlidePredictions

Shapes = npt.NDArray[np.object_]


class RegionError(FeatureStoreError):
    """Regions that are not where their tiles are."""


@dataclass(frozen=True)
class Regions:
    """The regions of a slide, by class.

    Parameters
    ----------
    shape
        Polygons, in pixels of the slide's level; shape (regions,), as all that follows.
    label
        Class index.
    tiles
        How many tiles reach into it.
    mean, least
        Of the probability of its class: the mean over its area, and the least.
    """

    shape: Shapes
    label: Ints
    tiles: Ints
    mean: npt.NDArray[np.float64]
    least: npt.NDArray[np.float64]

    @property
    def area(self) -> npt.NDArray[np.float64]:
        """Pixels of each, whole numbers."""
        return np.asarray(shapely.area(self.shape))


def boxes(tiles: SlidePredictions) -> Shapes:
    """Return each tile's own polygon."""
    shapes = shapely.box(tiles.x, tiles.y, tiles.x + tiles.width, tiles.y + tiles.height)
    return np.asarray(shapes)


def regions(labels: LabelMap, tiles: SlidePredictions) -> Regions:
    """Merge the cells of a slide to regions, and see that they are where their tiles are.

    Raises
    ------
    RegionError
        They are not.
    """
    number, of = _connected(labels)
    xs, ys = labels.xs, labels.ys
    cells = shapely.box(
        xs[labels.column], ys[labels.row], xs[labels.column + 1], ys[labels.row + 1]
    )
    order = np.argsort(of, kind="stable")
    starts = np.searchsorted(of[order], np.arange(number))
    label, area = labels.label[order[starts]], labels.area
    by_class = np.argsort(label, kind="stable")  # one class after the other
    merged = np.array([
        part[0] if len(part) == 1 else shapely.coverage_union_all(part)
        for part in np.split(np.asarray(cells)[order], starts[1:])
    ])  # fmt: skip
    pairs = np.unique(of[labels.cell] * len(tiles) + labels.tile)
    outlines = Regions(
        shape=_straight(merged)[by_class],
        label=label[by_class],
        tiles=np.bincount(pairs // len(tiles), minlength=number)[by_class],
        mean=(np.bincount(of, labels.confidence * area) / np.bincount(of, area))[by_class],
        least=np.minimum.reduceat(labels.confidence[order], starts)[by_class],
    )
    check(outlines, labels, tiles)
    return outlines


def _connected(labels: LabelMap) -> tuple[int, Ints]:
    """Return the number of regions and each cell's: cells of one class with an edge in common."""
    cells = len(labels.column)
    place = labels.spread(np.arange(cells), NONE)
    label = labels.spread(labels.label, NONE)
    first, second = [], []
    for before, after in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        same = (label[before] == label[after]) & (label[before] != NONE)
        first.append(place[before][same])
        second.append(place[after][same])
    ends = (np.concatenate(first), np.concatenate(second))
    edges = coo_array((np.ones(len(ends[0]), dtype=bool), ends), shape=(cells, cells))
    number, of = connected_components(edges, directed=False)
    return int(number), of.astype(np.int64)


def _straight(polygons: Shapes) -> Shapes:
    """Leave out the points at which an outline goes straight on."""
    kind, points, (rings, parts) = shapely.to_ragged_array(polygons)
    start = rings[:-1]
    last = rings[1:] - 1  # repeats the first point of its ring
    before, after = np.arange(len(points)) - 1, np.arange(len(points)) + 1
    before[start], after[last] = last - 1, start + 1
    turn = ~((points[before] == points) & (points == points[after])).any(axis=1)
    turn[last] = False
    kept = np.add.reduceat(turn, start)
    corners = np.flatnonzero(turn)
    firsts = np.cumsum(kept) - kept
    closed = np.insert(points[corners], firsts + kept, points[corners][firsts], axis=0)
    offsets = np.concatenate([[0], np.cumsum(kept + 1)])
    return np.asarray(shapely.from_ragged_array(kind, closed, (offsets, parts)))


def check(outlines: Regions, labels: LabelMap, tiles: SlidePredictions) -> None:
    """Compare regions with the tiles that they came from.

    The regions of a class are as large as the rule gives it, to the pixel; and the middle of each
    tile that no other reaches lies in a region of the tile's own class.

    Raises
    ------
    RegionError
        Not so: the maps of this slide would lie.
    """
    classes = tiles.probabilities.shape[1]
    drawn = np.bincount(outlines.label, outlines.area, classes)
    ruled = np.bincount(labels.label, labels.area, classes)
    if not np.array_equal(drawn, ruled):
        raise RegionError(
            "Regions are not as large as their tiles", found=f"{drawn} of {ruled} pixels by class",
            fix="report it: this is an error of the program",
        )  # fmt: skip
    middle = shapely.points(tiles.x + tiles.width / 2, tiles.y + tiles.height / 2)
    point, _ = shapely.STRtree(boxes(tiles)).query(middle, predicate="intersects")
    alone = np.bincount(point, minlength=len(tiles)) == 1
    region, inside = shapely.STRtree(middle[alone]).query(outlines.shape, predicate="contains")
    at = np.full(int(alone.sum()), NONE)
    at[inside] = outlines.label[region]
    astray = int((at != tiles.pred[alone]).sum())
    if astray:
        raise RegionError(
            "Tiles lie outside the regions of their class", found=f"{astray:,} of {len(at):,}",
            fix="report it: this is an error of the program",
        )  # fmt: skip
