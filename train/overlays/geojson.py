"""GeoJSON as QuPath writes and reads it: objects with a class, its colour and measurements.

Coordinates are pixels of the slide's full resolution. A class that QuPath knows already keeps the
colour that it has there, so each object carries its own as well.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import shapely

from train.overlays.label_map import NONE, SlidePredictions
from train.overlays.regions import Regions, Shapes, boxes
from train.plots.palette import rgb


def region_features(
    outlines: Regions, classes: list[str], colours: list[str], downsample: float, mpp2: float
) -> Iterator[str]:
    """Yield an annotation for each region.

    Parameters
    ----------
    downsample
        Pixels of full resolution in one of the slide's level.
    mpp2
        Square micrometres of a pixel of the slide's level.
    """
    shapes, area = write_features(outlines.shape, downsample), outlines.area * mpp2
    columns = (outlines.label, outlines.tiles, outlines.mean, outlines.least, area)
    rows = zip(shapes, *(column.tolist() for column in columns), strict=True)
    for shape, label, tiles, mean, least, area in rows:
        measured = {
            "Mean probability": round(mean, 6), "Least probability": round(least, 6),
            "Tiles": tiles, "Region area µm²": round(area, 3),
        }  # fmt: skip
        yield feature(shape, "annotation", classes[label], colours[label], measured)


def tile_features(
    tiles: SlidePredictions, classes: list[str], colours: list[str], downsample: float
) -> Iterator[str]:
    """Yield a detection for each tile: its own box, its prediction, its label where it has one."""
    names = [f"Probability: {name}" for name in classes]
    rows = zip(
        write_features(boxes(tiles), downsample), tiles.pred.tolist(), tiles.target.tolist(),
        tiles.probabilities.astype(float).round(6).tolist(), strict=True,
    )  # fmt: skip
    for shape, label, target, shares in rows:
        measured = {"Probability": shares[label], **dict(zip(names, shares, strict=True))}
        more = {}
        if target != NONE:
            measured["Right"] = int(target == label)
            more = {"label": classes[target]}
        yield feature(shape, "detection", classes[label], colours[label], measured, metadata=more)


def feature(
    shape: str,
    kind: str,
    name: str,
    colour: str,
    measurements: dict[str, float],
    *,
    metadata: dict[str, str] | None = None,
) -> str:
    """Return one object, as JSON."""
    properties: dict[str, Any] = {
        "objectType": kind,
        "classification": {"name": name, "color": rgb(colour)},
        "color": rgb(colour),
        "isLocked": True,
        "measurements": measurements,
    }
    if metadata:
        properties["metadata"] = metadata
    content = json.dumps(properties, ensure_ascii=False)
    return f'{{"type": "Feature", "geometry": {shape}, "properties": {content}}}'


def write_features(shapes: Shapes, downsample: float) -> list[str]:
    """Return the geometries of polygons in full resolution, as JSON."""
    if downsample != 1:
        shapes = shapely.transform(shapes, lambda points: points * downsample)
    return list(np.asarray(shapely.to_geojson(shapes)))


def collection(features: Iterator[str]) -> bytes:
    """Return a file's content."""
    lines = ",\n".join(features)
    return f'{{"type": "FeatureCollection", "features": [\n{lines}\n]}}\n'.encode()
