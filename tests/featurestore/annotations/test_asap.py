"""ASAP's XML: coordinates in their order, and groups of groups."""

from xml.etree.ElementTree import ParseError

import pytest
import shapely

from featurestore.annotations.asap import read

GROUPS = """<AnnotationGroups>
  <Group Name="Tumor" PartOfGroup="None" Color="#ff0000"><Attributes /></Group>
  <Group Name="Necrosis" PartOfGroup="Tumor" Color="#00ff00"><Attributes /></Group>
</AnnotationGroups>"""
TRIANGLE = [(0, 0), (10.5, 0), (0, 4)]


def annotation(points: list, group: str = "Tumor", kind: str = "Polygon", name: str = "A 0") -> str:
    places = "".join(
        f'<Coordinate Order="{n}" X="{x}" Y="{y}" />' for n, (x, y) in enumerate(points)
    )
    return (f'<Annotation Name="{name}" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58">'
            f"<Coordinates>{places}</Coordinates></Annotation>")  # fmt: skip


def document(*annotations: str, groups: str = GROUPS) -> bytes:
    inner = f"<Annotations>{''.join(annotations)}</Annotations>{groups}"
    return f'<?xml version="1.0"?><ASAP_Annotations>{inner}</ASAP_Annotations>'.encode()


def test_an_annotation_is_of_its_group_and_of_the_groups_around_it():
    one, two, three = read(document(annotation(TRIANGLE), annotation(TRIANGLE, "Necrosis"),
                                    annotation(TRIANGLE, "None")))  # fmt: skip
    assert [one.classes, two.classes, three.classes] == [("Tumor",), ("Necrosis", "Tumor"), ()]
    assert one.polygons[0].equals(shapely.Polygon(TRIANGLE))
    assert one.kind == "annotation"


def test_without_groups_the_name_is_the_class():
    """As in ASAP's own masks."""
    [one] = read(document(annotation(TRIANGLE, "None", name="Fat"), groups="<AnnotationGroups />"))
    assert one.classes == ("Fat",)


def test_coordinates_are_taken_in_their_order():
    square = [(0, 0), (10, 0), (10, 10), (0, 10)]
    text = annotation(square).replace('Order="1"', 'Order="9"')  # now a bow tie
    [one] = read(document(text))
    assert list(one.polygons[0].exterior.coords)[:4] == [(0, 0), (10, 10), (0, 10), (10, 0)]


@pytest.mark.parametrize(
    ("kind", "points", "areas"),
    [("Polygon", TRIANGLE, 1), ("Spline", TRIANGLE, 1), ("Rectangle", TRIANGLE, 1),
     ("Dot", TRIANGLE[:1], 0), ("PointSet", TRIANGLE, 0), ("Measurement", TRIANGLE[:2], 0),
     ("Polygon", TRIANGLE[:2], 0), ("Polygon", [], 0)],
)  # fmt: skip
def test_points_and_measurements_have_no_area(kind: str, points: list, areas: int):
    [one] = read(document(annotation(points, kind=kind)))
    assert len(one.polygons) == areas


def test_groups_that_hold_each_other_end():
    circle = GROUPS.replace('"Tumor" PartOfGroup="None"', '"Tumor" PartOfGroup="Necrosis"')
    [one] = read(document(annotation(TRIANGLE), groups=circle))
    assert one.classes == ("Tumor", "Necrosis")


@pytest.mark.parametrize("content", [b"<a>", b"", b"{}"])
def test_what_is_no_xml_raises(content: bytes):
    with pytest.raises(ParseError):
        list(read(content))


def test_another_programs_xml_is_named():
    with pytest.raises(ValueError, match="XML of another program: <Slide>"):
        list(read(b"<Slide><Regions /></Slide>"))
    aperio = (
        b'<Annotations MicronsPerPixel="0.5"><Annotation><Regions /></Annotation></Annotations>'
    )
    with pytest.raises(ValueError, match="<Annotations>"):
        list(read(aperio))
