"""Which share of each tile an area covers: exact, but for the arithmetic of doubles."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import shapely

from featurestore.annotations.annotation import Shapes
from featurestore.annotations.areas import polygons_of

PLACES = 12  # decimals of a share: the others are rounding, of which none may make a class
LEAST_OVERLAP = 1.0  # square pixel of a slide
SLIVER = 1e-6  # square pixels, between outlines that follow each other


@dataclass(frozen=True)
class Overlap:
    """Where two classes were drawn over each other.

    Parameters
    ----------
    area
        Square pixels of full resolution.
    tiles
        How many tiles have a share of it.
    """

    area: float
    tiles: int

    def __add__(self, other: "Overlap") -> "Overlap":
        return Overlap(self.area + other.area, self.tiles + other.tiles)


def shares(area: Shapes, tiles: Shapes) -> npt.NDArray[np.float64]:
    """Return the share of each tile that an area covers, in [0, 1].

    Parameters
    ----------
    area
        Polygons that touch at most.
    tiles
        Boxes, shape (n,).
    """
    if not len(area) or not len(tiles):
        return np.zeros(len(tiles))
    piece, tile = shapely.STRtree(tiles).query(area, predicate="intersects")
    shapely.prepare(area)
    inside = shapely.covers(area[piece], tiles[tile])
    covered = np.empty(len(piece))
    covered[inside] = shapely.area(tiles[tile[inside]])
    covered[~inside] = shapely.area(
        shapely.intersection(area[piece[~inside]], tiles[tile[~inside]])
    )
    total = np.bincount(tile, weights=covered, minlength=len(tiles)) / shapely.area(tiles)
    return np.minimum(total.round(PLACES), 1.0)


def overlaps(areas: Mapping[str, Shapes], tiles: Shapes) -> dict[tuple[str, str], Overlap]:
    """Return where two classes cover the same, by their names, more than a pixel of it."""
    trees = {name: shapely.STRtree(area) for name, area in areas.items()}
    boxes, result = shapely.STRtree(tiles), {}
    for one, other in combinations(areas, 2):
        second, first = trees[one].query(areas[other], predicate="intersects")
        shared = polygons_of(shapely.intersection(areas[one][first], areas[other][second]))
        size = shapely.area(shared)
        if size.sum() >= LEAST_OVERLAP:
            shared = shared[size > SLIVER]
            piece, tile = boxes.query(shared, predicate="intersects")
            shapely.prepare(shared)
            inside = ~shapely.touches(shared[piece], tiles[tile])
            result[one, other] = Overlap(float(size.sum()), len(np.unique(tile[inside])))
    return result
