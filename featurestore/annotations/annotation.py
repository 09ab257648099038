"""What a file of annotations holds, whichever program wrote it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import shapely

from featurestore.errors import FeatureStoreError

Kind = Literal["annotation", "detection"]
LEAST = 3  # points of an outline
Shapes = npt.NDArray[np.object_]


class AnnotationError(FeatureStoreError):
    """A file of annotations that cannot be read, or says what nobody has asked for."""


@dataclass(frozen=True)
class Annotation:
    """One object that somebody, or a program, has drawn.

    Parameters
    ----------
    classes
        Names of its class, the most special first: ``Tumor: Necrotic`` is a ``Tumor``. Empty
        without one.
    polygons
        Its areas, as they were drawn: in pixels of full resolution, valid or not.
    kind
        Programs detect, by the thousand; people annotate.
    """

    classes: tuple[str, ...]
    polygons: Sequence[shapely.Polygon]
    kind: Kind = "annotation"


def polygon(rings: Iterable[Sequence[Sequence[float]]]) -> shapely.Polygon | None:
    """Return the polygon of an outline and its holes, or None if it has not three points.

    Parameters
    ----------
    rings
        Points, each two numbers or more, of which two count; closed or not.

    Raises
    ------
    ValueError, TypeError
        A point is not two finite numbers.
    """
    outlines = [np.asarray(ring, dtype=np.float64) for ring in rings]
    for points in outlines:
        if points.size and (points.ndim != 2 or not np.isfinite(points[:, :2]).all()):
            raise ValueError("a point is not two finite numbers")
    if not outlines or len(outlines[0]) < LEAST:
        return None
    shell, *holes = (points[:, :2] for points in outlines if len(points) >= LEAST)
    return shapely.Polygon(shell, holes)
