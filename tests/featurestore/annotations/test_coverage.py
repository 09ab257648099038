"""Coverages against what other arithmetic makes of the same polygons."""

import math
from collections.abc import Iterable

import numpy as np
import pytest
import shapely
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path

from featurestore.annotations.annotation import Annotation
from featurestore.annotations.areas import VERTICES, Selection, areas, cut, polygons_of
from featurestore.annotations.coverage import overlaps, shares

Points = list[tuple[float, float]]


def area_of(points: Points) -> float:
    """Shoelace."""
    after = [*points[1:], *points[:1]]
    return abs(math.fsum(a * d - c * b for (a, b), (c, d) in zip(points, after, strict=True))) / 2


def clipped(points: Points, left: float, top: float, right: float, bottom: float) -> Points:
    """Sutherland and Hodgman (1974): clip by one side after another."""
    for axis, limit, sign in ((0, left, 1), (0, right, -1), (1, top, 1), (1, bottom, -1)):
        inside, kept = [sign * (point[axis] - limit) >= 0 for point in points], []
        for number, point in enumerate(points):
            before = points[number - 1]
            if inside[number] != inside[number - 1]:
                share = (limit - before[axis]) / (point[axis] - before[axis])
                cross = [b + share * (p - b) for b, p in zip(before, point, strict=True)]
                cross[axis] = limit
                kept.append((cross[0], cross[1]))
            if inside[number]:
                kept.append(point)
        points = kept
    return points


def star(rng: np.random.Generator, corners: int, middle: Points, size: float) -> Points:
    """Draw a polygon that does not cross itself, mostly not convex."""
    angle = (np.arange(corners) + rng.uniform(0, 1, corners)) * 2 * np.pi / corners
    radius = size * rng.uniform(0.2, 1, corners)
    [(x, y)] = middle
    x, y = x + radius * np.cos(angle), y + radius * np.sin(angle)
    return list(zip(x.tolist(), y.tolist(), strict=True))


def somewhere(rng: np.random.Generator, extent: float) -> Points:
    x, y = rng.uniform(0, extent, 2).tolist()
    return [(x, y)]


def grid(side: int, across: int) -> np.ndarray:
    y, x = np.divmod(np.arange(across * across), across)
    return shapely.box(x * side, y * side, (x + 1) * side, (y + 1) * side)


def drawn(*polygons: shapely.Polygon, name: str = "Fat") -> Iterable[Annotation]:
    return [Annotation((name,), [polygon]) for polygon in polygons]


def area_on(*polygons: shapely.Polygon) -> np.ndarray:
    return areas(drawn(*polygons), Selection(("Fat",)))[0]["Fat"]


def test_rectangles():
    """3/4, 1/2 and a corner of 1/8 x 1/4; the fourth tile is touched alone."""
    tiles = shapely.box([0, 8, 0, 8], [0, 0, 8, 8], [8, 16, 8, 16], [8, 8, 16, 16])
    area = area_on(shapely.box(2, 0, 8, 8), shapely.box(8, 4, 16, 8), shapely.box(1, 8, 2, 10))
    assert shares(area, tiles).tolist() == [0.75, 0.5, 1 / 8 * 1 / 4, 0.0]


def test_a_thousand_polygons_are_clipped_as_by_sutherland_and_hodgman():
    rng = np.random.default_rng(15)
    side, across = 7, 6
    tiles, worst = grid(side, across), 0.0
    bounds = shapely.bounds(tiles)
    for _ in range(1000):
        points = star(rng, int(rng.integers(3, 15)), somewhere(rng, side * across), 9.0)
        low, high = np.min(points, axis=0), np.max(points, axis=0)
        near = (bounds[:, :2] < high).all(axis=1) & (bounds[:, 2:] > low).all(axis=1)
        expected = np.zeros(len(tiles))
        expected[near] = [area_of(clipped(points, *box)) / side**2 for box in bounds[near].tolist()]
        share = shares(area_on(shapely.Polygon(points)), tiles)
        worst = max(worst, np.abs(share - expected).max())
    assert worst < 1e-9


def test_a_polygon_of_many_points_is_clipped_piece_by_piece():
    rng = np.random.default_rng(1)
    points = star(rng, 2000, [(50.3, 49.1)], 60.0)
    pieces = area_on(shapely.Polygon(points))
    assert len(pieces) > 8 and shapely.get_num_coordinates(pieces).max() <= VERTICES
    tiles = grid(20, 5)
    expected = [area_of(clipped(points, *box)) / 400 for box in shapely.bounds(tiles).tolist()]
    assert shares(pieces, tiles) == pytest.approx(expected, abs=1e-9)


def test_spikes_that_meet_in_a_point_are_cut_to_an_end():
    angle = np.linspace(0, 2 * np.pi, 800, endpoint=False)
    radius = np.where(np.arange(800) % 2, 1e-3, 20)
    spikes = shapely.Polygon(np.c_[radius * np.cos(angle), radius * np.sin(angle)])
    pieces = cut(np.array([spikes], dtype=object))
    assert shapely.area(pieces).sum() == pytest.approx(spikes.area)


RECTANGLES = st.lists(
    st.tuples(*(st.integers(0, 30) for _ in range(2)), *(st.integers(1, 12) for _ in range(2)),
              st.booleans()), min_size=1, max_size=8)  # fmt: skip


@settings(max_examples=examples(100), deadline=None)
@given(RECTANGLES, st.tuples(st.integers(0, 5), st.integers(0, 5)), st.integers(3, 16))
def test_pixels_tell_the_union_of_rectangles_with_holes(
    rectangles: list, corner: tuple[int, int], side: int
):
    """All corners are whole, so that a share is a number of pixels; tiles overlap."""
    pixels = np.zeros((64, 64), dtype=bool)
    polygons = []
    for x, y, width, height, hollow in rectangles:
        hole = hollow and min(width, height) > 2
        ring = np.ones((height, width), dtype=bool)
        ring[1:-1, 1:-1] &= not hole
        pixels[y : y + height, x : x + width] |= ring
        inner = [shapely.box(x + 1, y + 1, x + width - 1, y + height - 1).exterior] * hole
        polygons.append(shapely.Polygon(shapely.box(x, y, x + width, y + height).exterior, inner))
    places = [np.arange(start, 40, side / 2) // 1 for start in corner]
    x, y = (place.ravel() for place in np.meshgrid(*places))
    tiles = shapely.box(x, y, x + side, y + side)
    expected = [
        pixels[int(b) : int(b) + side, int(a) : int(a) + side].mean()
        for a, b in zip(x, y, strict=True)
    ]
    assert shares(area_on(*polygons), tiles) == pytest.approx(expected, abs=1e-12)


def test_pixels_tell_the_union_of_a_thousand_polygons():
    """Points in the middle of pixels, by matplotlib: within what the pixels of edges allow."""
    rng = np.random.default_rng(2)
    size, side = 800, 50
    pixels = np.zeros((size, size), dtype=bool)
    polygons = []
    for _ in range(1000):
        points = star(rng, 9, somewhere(rng, size), 20.0)
        polygons.append(shapely.Polygon(points))
        low = np.maximum(np.floor(np.min(points, axis=0)).astype(int), 0)
        high = np.minimum(np.ceil(np.max(points, axis=0)).astype(int), size)
        x, y = np.meshgrid(*(np.arange(a, b) + 0.5 for a, b in zip(low, high, strict=True)))
        if x.size:
            hit = Path(points).contains_points(np.c_[x.ravel(), y.ravel()]).reshape(x.shape)
            pixels[low[1] : high[1], low[0] : high[0]] |= hit
    expected = pixels.reshape(size // side, side, size // side, side).mean(axis=(1, 3)).ravel()
    share = shares(area_on(*polygons), grid(side, size // side))
    assert 0.2 < share.mean() < 0.8
    assert np.abs(share - expected).max() < 0.01
    assert abs(share.mean() - expected.mean()) < 2e-4


def test_a_share_is_never_above_one_nor_a_trace_of_rounding():
    tenths = [shapely.box(0.1 * n, 0, 0.1 * (n + 1), 1) for n in range(10)]
    tiles = shapely.box([0, 1], [0, 0], [1, 2], [1, 1])
    assert shares(area_on(*tenths, *tenths), tiles).tolist() == [1.0, 0.0]


def test_what_crosses_itself_is_repaired_and_counted():
    """Both halves of a bow tie; what is drawn twice is no hole."""
    bow = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    twice = shapely.Polygon([(0, 0), (10, 0), (10, 10), (4, 10), (4, 2), (6, 2), (6, 12), (0, 12)])
    line = shapely.Polygon([(0, 0), (10, 0), (5, 0)])
    for polygon, expected in ((bow, 50), (twice, 112), (line, 0)):
        found, counts = areas(drawn(polygon), Selection(("Fat",)))
        assert shapely.area(found["Fat"]).sum() == expected
        assert counts.repaired == 1
    assert areas(drawn(shapely.box(0, 0, 1, 1)), Selection(("Fat",)))[1].repaired == 0


def test_two_classes_over_each_other():
    """Twenty square pixels in two of three tiles; what touches is not over each other."""
    found, _ = areas(
        [*drawn(shapely.box(0, 0, 30, 10)), *drawn(shapely.box(5, 8, 15, 20), name="Muscle"),
         *drawn(shapely.box(30, 0, 40, 10), name="Nerve")],
        Selection(("Fat", "Muscle", "Nerve")),
    )  # fmt: skip
    tiles = shapely.box([0, 10, 20], [0, 0, 0], [10, 20, 30], [10, 10, 10])
    [(pair, overlap)] = overlaps(found, tiles).items()
    assert pair == ("Fat", "Muscle")
    assert (overlap.area, overlap.tiles) == (20, 2)


@pytest.mark.parametrize(
    ("annotation", "unknown", "passed_over"),
    [
        (Annotation(("Muscle", "Fat"), [shapely.box(0, 0, 1, 1)]), {}, 0),
        (Annotation(("Nerve", "Muscle"), [shapely.box(0, 0, 1, 1)]), {"Nerve": 1}, 0),
        (Annotation(("Region",), [shapely.box(0, 0, 1, 1)]), {}, 1),
        (Annotation((), [shapely.box(0, 0, 1, 1)]), {}, 1),
        (Annotation(("Fat",), []), {}, 1),
        (Annotation(("Fat",), [shapely.box(0, 0, 1, 1)], "detection"), {}, 1),
        (Annotation(("Nerve",), [shapely.box(0, 0, 1, 1)], "detection"), {}, 1),
    ],
)  # fmt: skip
def test_what_counts(annotation: Annotation, unknown: dict, passed_over: int):
    found, counts = areas([annotation], Selection(("Fat",), frozenset({"Region"})))
    assert counts.unknown == unknown
    assert counts.passed_over.total() == passed_over
    assert bool(found) == (not unknown and not passed_over)


def test_detections_count_if_asked_and_an_offset_moves_all():
    one = Annotation(("Fat",), [shapely.box(0, 0, 1, 1)], "detection")
    found, _ = areas([one], Selection(("Fat",), detections=True, offset=(5, 7)))
    assert shapely.total_bounds(found["Fat"]).tolist() == [5, 7, 6, 8]


def test_no_area_covers_nothing():
    assert not len(polygons_of(shapely.GeometryCollection()))
    assert shares(np.array([], dtype=object), grid(2, 2)).tolist() == [0.0] * 4
