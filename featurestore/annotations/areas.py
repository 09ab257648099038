"""The area of each class on a slide: polygons that are valid, apart from each other, and small.

A class is what its polygons cover together, however often. What is drawn over itself is area, as
on the screen and in the masks of QuPath and ASAP.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import shapely

from featurestore.annotations.annotation import Annotation, Shapes
from featurestore.spec.typed import composed

POLYGON = 3  # shapely's number of that type
VERTICES = 256  # of a piece
LEAST_SIDE = 1.0  # pixel: spikes that meet in a point are not cut for ever


@dataclass(frozen=True)
class Selection:
    """What of annotations counts.

    Parameters
    ----------
    classes
        Names, in the order of their columns.
    ignored
        Names of classes that are known, and not asked for.
    detections
        Whether what a program detected counts as what somebody annotated.
    offset
        Where the annotations' origin lies in the slide, in pixels of full resolution.
    """

    classes: tuple[str, ...]
    ignored: frozenset[str] = frozenset()
    detections: bool = False
    offset: tuple[float, float] = (0.0, 0.0)


@dataclass
class Counts:
    """What was found in annotations; two of them add up."""

    polygons: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    passed_over: Counter[str] = field(default_factory=Counter)
    repaired: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.polygons + other.polygons,
            self.unknown + other.unknown,
            self.passed_over + other.passed_over,
            self.repaired + other.repaired,
        )


def areas(
    annotations: Iterable[Annotation], selection: Selection
) -> tuple[dict[str, Shapes], Counts]:
    """Return the area of each class in small polygons that touch at most, and what was found.

    Parameters
    ----------
    annotations
        Of one slide.
    """
    counts = Counts()
    drawn: dict[str, list[shapely.Polygon]] = defaultdict(list)
    for annotation in annotations:
        name, reason = _class_of(annotation, selection)
        if name is not None:
            drawn[name] += annotation.polygons
        elif reason:
            counts.passed_over[reason] += 1
        else:
            counts.unknown[annotation.classes[0]] += 1
    shapes = {}
    for name in (name for name in selection.classes if name in drawn):
        polygons = np.array(drawn[name], dtype=object)
        counts.polygons[name] = len(polygons)
        valid = shapely.is_valid(polygons)
        counts.repaired += int((~valid).sum())
        polygons[~valid] = shapely.make_valid(
            polygons[~valid], method="structure", keep_collapsed=False
        )
        moved = shapely.transform(polygons, lambda points: points + selection.offset)
        shapes[name] = cut(polygons_of(shapely.disjoint_subset_union_all(moved)))
    return shapes, counts


def _class_of(annotation: Annotation, selection: Selection) -> tuple[str | None, str | None]:
    """Return the class that an annotation counts for; or why it is passed over, if it may be."""
    if annotation.kind == "detection" and not selection.detections:
        return None, "detections, which --detections counts as well"
    if not annotation.polygons:
        return None, "points, lines and outlines of fewer than three points"
    if not annotation.classes:
        return None, "annotations without a class"
    for name in map(composed, annotation.classes):
        if name in selection.classes:
            return name, None
        if name in selection.ignored:
            return None, "annotations of a class that --ignore names"
    return None, None


def polygons_of(shapes: npt.ArrayLike) -> Shapes:
    """Return the polygons that geometries consist of."""
    parts = np.atleast_1d(shapely.get_parts(shapes))
    return np.asarray(parts[shapely.get_type_id(parts) == POLYGON])


def cut(polygons: Shapes) -> Shapes:
    """Halve polygons until each has few vertices: what meets a tile does not grow with a region."""
    small = []
    while len(polygons):
        left, low, right, high = shapely.bounds(polygons).T
        done = shapely.get_num_coordinates(polygons) <= VERTICES
        done |= np.maximum(right - left, high - low) <= LEAST_SIDE
        small.append(polygons[done])
        polygons = _halved(polygons[~done])
    return np.concatenate(small) if small else polygons


def _halved(polygons: Shapes) -> Shapes:
    """Return the halves of polygons, across their longer sides."""
    left, low, right, high = shapely.bounds(polygons).T
    wide = right - left >= high - low
    x, y = np.where(wide, (left + right) / 2, right), np.where(wide, high, (low + high) / 2)
    first = shapely.box(left, low, x, y)
    second = shapely.box(np.where(wide, x, left), np.where(wide, low, y), right, high)
    halves = [shapely.intersection(polygons, half) for half in (first, second)]
    return polygons_of(np.concatenate(halves))
