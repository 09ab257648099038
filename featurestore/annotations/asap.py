"""ASAP's XML: annotations by group, and groups of groups.

Its programs draw splines, and masks of them, by their points; so are they read here.
"""

from collections.abc import Iterator
from xml.etree import ElementTree

from featurestore.annotations.annotation import Annotation, polygon

AREAS = ("Polygon", "Spline", "Rectangle")
NO_GROUP = "None"


def read(content: bytes) -> Iterator[Annotation]:
    """Yield the annotations of a document of ASAP.

    Raises
    ------
    xml.etree.ElementTree.ParseError, ValueError, KeyError
        It is none.
    """
    root = ElementTree.fromstring(content)
    annotations = root.find("Annotations")
    if annotations is None:
        raise ValueError(f"XML of another program: <{root.tag}> without <Annotations>")
    parents = {
        group.attrib["Name"]: group.get("PartOfGroup", NO_GROUP)
        for group in root.iterfind("AnnotationGroups/Group")
    }
    for annotation in annotations.iterfind("Annotation"):
        areas = []
        if annotation.get("Type") in AREAS:
            points = sorted(
                (
                    int(point.get("Order", number)),
                    float(point.attrib["X"]),
                    float(point.attrib["Y"]),
                )
                for number, point in enumerate(annotation.iterfind("Coordinates/Coordinate"))
            )
            areas = [polygon([[point[1:] for point in points]])]
        # Without any group, masks of ASAP go by the names of annotations.
        name = annotation.get("PartOfGroup", NO_GROUP) if parents else annotation.get("Name", "")
        groups = tuple(_groups(name, parents))
        yield Annotation(groups, [area for area in areas if area is not None])


def _groups(name: str, parents: dict[str, str]) -> Iterator[str]:
    """Yield a group and those that it is part of, from within; a circle ends where it closes."""
    seen = {NO_GROUP, ""}
    while name not in seen:
        yield name
        seen.add(name)
        name = parents.get(name, NO_GROUP)
