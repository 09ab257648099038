"""GeoJSON of QuPath: what its versions since 0.2 write, and what they read of others.

A collection, a list of features or a single one, each of which may hold its children; a class as
``{"name": ...}``, as ``{"names": [...]}``, with its parent, or as text.
"""

import json
from collections.abc import Iterator
from typing import Any

from featurestore.annotations.annotation import Annotation, Kind, polygon

GEOMETRIES = (
    "Polygon", "MultiPolygon", "GeometryCollection",
    "Point", "MultiPoint", "LineString", "MultiLineString",
)  # fmt: skip
DETECTED = {"detection", "cell", "tile", "PathDetectionObject", "PathCellObject", "PathTileObject"}
FRAMES = {"root", "tmaCore", "tma_core", "PathRootObject", "TMACoreObject"}
"""Objects that hold others, and say nothing of what they enclose."""


def read(content: bytes) -> Iterator[Annotation]:
    """Yield the objects of a GeoJSON document.

    Raises
    ------
    ValueError, TypeError, KeyError, AttributeError, RecursionError
        It is none.
    """
    nodes = [json.loads(content)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, list):
            nodes += reversed(node)
        elif isinstance(node.get("features"), list):
            nodes.append(node["features"])
        elif node["type"] == "Feature":
            properties = node.get("properties") or {}
            nodes.append(properties.get("childObjects") or properties.get("children") or [])
            yield from _feature(node, properties)
        elif node["type"] in GEOMETRIES:
            yield Annotation((), _polygons(node))
        else:
            raise ValueError(f"an object of type {node['type']!r}")


def _feature(node: dict[str, Any], properties: dict[str, Any]) -> Iterator[Annotation]:
    # Up to 0.3 the type was the id, then `object_type`.
    kinds = [properties.get(name) for name in ("objectType", "object_type", "type")]
    name = next((kind for kind in [*kinds, node.get("id")] if isinstance(kind, str)), "")
    if name not in FRAMES:
        kind: Kind = "detection" if name in DETECTED else "annotation"
        classes = _classes(properties.get("classification"))
        yield Annotation(classes, _polygons(node.get("geometry") or {}), kind)


def _classes(classification: Any) -> tuple[str, ...]:
    """Return the name of a class, and of those that it is derived from, the most special first."""
    full = ": ".join(_names(classification))
    parts = [part.strip() for part in full.split(":")]
    bases = (": ".join(parts[:length]) for length in range(len(parts), 0, -1))
    return tuple(name for name in dict.fromkeys([full, *bases]) if name)


def _names(classification: Any) -> list[str]:
    """Return the name of a class behind those of its parents."""
    if not classification:
        return []
    if isinstance(classification, str):
        return [classification]
    if names := classification.get("names"):
        return list(names)
    name = classification["name"]
    return [*_names(classification.get("parentClass")), *([name] if name else [])]  # before 0.4


def _polygons(geometry: dict[str, Any]) -> list[Any]:
    """Return the areas of a geometry; points and lines have none."""
    kind = geometry.get("type")
    if kind == "GeometryCollection":
        return [area for part in geometry["geometries"] for area in _polygons(part)]
    many = {"Polygon": lambda rings: [rings], "MultiPolygon": list}.get(str(kind))
    areas = map(polygon, many(geometry["coordinates"])) if many else ()
    return [area for area in areas if area is not None]
