"""GeoJSON in every form that QuPath has written or reads, and what is none."""

import json

import pytest
import shapely

from featurestore.annotations.geojson import read

SQUARE = [[[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]]
HOLE = [[2, 2], [4, 2], [4, 4], [2, 4], [2, 2]]
AWAY = [[[20, 0], [21, 0], [21, 1], [20, 1], [20, 0]]]


def feature(geometry: dict | None = None, **properties: object) -> dict:
    area = {"type": "Polygon", "coordinates": SQUARE}
    return {"type": "Feature", "geometry": area if geometry is None else geometry,
            "properties": properties}  # fmt: skip


def classes(document: object) -> list[tuple[str, ...]]:
    return [annotation.classes for annotation in read(json.dumps(document).encode())]


FAT = feature(classification={"name": "Fat", "color": [1, 2, 3]})


@pytest.mark.parametrize(
    "document",
    [
        {"type": "FeatureCollection", "features": [FAT]},
        [FAT],
        FAT,
        {"features": [FAT]},
        {"type": "FeatureCollection", "features": [{"type": "FeatureCollection",
                                                    "features": [FAT]}]},
        [[FAT]],
    ],
    ids=["collection", "list", "feature", "collection without a type", "nested", "list of lists"],
)  # fmt: skip
def test_a_document_is_a_collection_a_list_or_a_feature(document: object):
    [annotation] = read(json.dumps(document).encode())
    assert annotation.classes == ("Fat",)
    assert annotation.kind == "annotation"
    [area] = annotation.polygons
    assert area.equals(shapely.box(0, 0, 10, 10))


@pytest.mark.parametrize(
    ("classification", "expected"),
    [
        ({"name": "Fat", "colorRGB": -377282}, ("Fat",)),
        ({"name": "Tumor: Positive", "color": [0, 0, 0]}, ("Tumor: Positive", "Tumor")),
        ({"names": ["Tumor", "Positive"]}, ("Tumor: Positive", "Tumor")),
        ({"name": "Positive", "parentClass": {"name": "Tumor", "colorRGB": 1}, "colorRGB": 2},
         ("Tumor: Positive", "Tumor")),
        ("Fat", ("Fat",)),
        ("Grade:3", ("Grade:3", "Grade: 3", "Grade")),
        ({}, ()),
        (None, ()),
        ({"name": None}, ()),
    ],
)  # fmt: skip
def test_a_class_is_written_in_many_ways(classification: object, expected: tuple[str, ...]):
    """Since 0.5 a derived class has names, before a name with colons, before 0.4 a parent."""
    assert classes(feature(classification=classification)) == [expected]


def test_children_lie_in_the_properties_of_their_parent():
    child = feature(classification="Nerve", childObjects=[FAT])
    assert classes(feature(classification="Muscle", childObjects=[child])) == [
        ("Muscle",), ("Nerve",), ("Fat",),
    ]  # fmt: skip
    assert classes(feature(classification="Muscle", children=[child]))[1:] == [
        ("Nerve",), ("Fat",),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("geometry", "expected"),
    [
        ({"type": "Polygon", "coordinates": [*SQUARE, HOLE]}, 96),
        ({"type": "MultiPolygon", "coordinates": [[*SQUARE, HOLE], AWAY]}, 97),
        ({"type": "GeometryCollection", "geometries": [
            {"type": "Polygon", "coordinates": SQUARE}, {"type": "Point", "coordinates": [1, 2]},
            {"type": "MultiPolygon", "coordinates": [AWAY]}]}, 101),
        ({"type": "Polygon", "coordinates": [SQUARE[0][:-1]]}, 100),
        ({"type": "Polygon", "coordinates": [[[*point, 7.0] for point in SQUARE[0]]]}, 100),
        ({"type": "Polygon", "coordinates": [SQUARE[0][:2]]}, 0),
        ({"type": "Polygon", "coordinates": []}, 0),
        ({"type": "Point", "coordinates": [3, 4]}, 0),
        ({"type": "LineString", "coordinates": [[3, 4], [5, 6]]}, 0),
        ({}, 0),
    ],
    ids=["hole", "multipolygon", "collection", "not closed", "with z", "two points", "empty",
         "point", "line", "none"],
)  # fmt: skip
def test_the_area_of_a_geometry(geometry: dict, expected: float):
    [annotation] = read(json.dumps(feature(geometry)).encode())
    assert sum(area.area for area in annotation.polygons) == expected


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"objectType": "annotation"}, ["annotation"]),
        ({"objectType": "cell"}, ["detection"]),
        ({"object_type": "detection"}, ["detection"]),
        ({"type": "tile"}, ["detection"]),
        ({"objectType": "tmaCore", "childObjects": [FAT]}, ["annotation"]),
        ({"objectType": "root"}, []),
        ({}, ["annotation"]),
    ],
)
def test_programs_detect_people_annotate(properties: dict, expected: list[str]):
    found = read(json.dumps(feature(**properties)).encode())
    assert [annotation.kind for annotation in found] == expected


def test_in_version_0_2_the_type_was_the_id():
    old = feature() | {"id": "PathDetectionObject"}
    assert [found.kind for found in read(json.dumps(old).encode())] == ["detection"]
    new = feature(objectType="annotation") | {"id": "1b0f-uuid"}
    assert [found.kind for found in read(json.dumps(new).encode())] == ["annotation"]


def test_a_bare_geometry_has_no_class():
    assert classes({"type": "Polygon", "coordinates": SQUARE}) == [()]


@pytest.mark.parametrize(
    "content",
    [b"{", b"1", b'{"type": "Topology"}', b"{}", b"\xff", b'["a"]',
     json.dumps(feature({"type": "Polygon", "coordinates": [["a", "b", "c"]]})).encode(),
     json.dumps(feature({"type": "Polygon", "coordinates": [[1, 2, 3]]})).encode(),
     b'{"type": "Polygon", "coordinates": [[[0, 0], [NaN, 1], [2, 2]]]}'],
)  # fmt: skip
def test_what_is_no_geojson_raises(content: bytes):
    with pytest.raises((ValueError, TypeError, LookupError, AttributeError)):
        list(read(content))
