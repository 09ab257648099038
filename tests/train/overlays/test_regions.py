"""Regions and pixels against tiles painted one by one."""

import numpy as np
import pytest
import shapely
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from train.overlays import regions as regions_module
from train.overlays.label_map import NONE, SlidePredictions, grid, label_map, places, sample
from train.overlays.regions import RegionError, check, regions

K = 3


def tiles(x, y, pred, width=4, *, height=None, target=None, probabilities=None) -> SlidePredictions:
    """Return tiles whose predicted class has probability 0.8, unless other ones are given."""
    pred = np.array(pred)
    if probabilities is None:
        probabilities = np.full((len(pred), K), 0.1, dtype=np.float32)
        probabilities[np.arange(len(pred)), pred] = 0.8
    return SlidePredictions(
        np.array(x), np.array(y), width, height or width,
        np.full(len(pred), NONE) if target is None else np.array(target), pred,
        np.array(probabilities, dtype=np.float32),
    )  # fmt: skip


def painted(given: SlidePredictions) -> tuple[np.ndarray, np.ndarray]:
    """Return class and true class of every pixel, worked out pixel by pixel."""
    width = int((given.x + given.width).max())
    height = int((given.y + given.height).max())
    label, truth = np.full((height, width), NONE), np.full((height, width), NONE)
    for row in range(height):
        for column in range(width):
            over = [
                n for n in range(len(given))
                if given.x[n] <= column < given.x[n] + given.width
                and given.y[n] <= row < given.y[n] + given.height
            ]  # fmt: skip
            if len(over) == 1:
                label[row, column] = given.pred[over[0]]
            elif over:
                total = [0.0] * K
                for n in over:
                    for index in range(K):
                        total[index] += float(given.probabilities[n, index])
                label[row, column] = total.index(max(total))
            votes = [sum(given.target[n] == index for n in over) for index in range(K)]
            if max(votes):
                truth[row, column] = votes.index(max(votes))
    return label, truth


def agree(given: SlidePredictions) -> None:
    """Compare regions and pixels with what was painted."""
    label, truth = painted(given)
    cut = label_map(given)
    areas = regions(cut, given)
    assert shapely.is_valid(areas.shape).all()
    assert set(shapely.get_type_id(areas.shape).tolist()) == {3}  # polygons, no collections
    height, width = label.shape
    column, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    for index in range(K):
        inside = np.zeros(label.shape, dtype=int)
        for shape in areas.shape[areas.label == index]:
            inside += shapely.contains_xy(shape, column, row)
        np.testing.assert_array_equal(inside, label == index)  # in one region, or in none
        assert areas.area[areas.label == index].sum() == (label == index).sum()
    pixels = grid((width, height), given.step, 10**6)
    rows = places(cut.ys, pixels.pixel, pixels.height)
    columns = places(cut.xs, pixels.pixel, pixels.width)
    for values, expected in ((cut.label, label), (cut.truth, truth)):
        drawn = sample(cut.spread(values, NONE), rows, columns, NONE)
        enlarged = drawn.repeat(pixels.pixel, axis=0).repeat(pixels.pixel, axis=1)
        np.testing.assert_array_equal(enlarged[:height, :width], expected)


@st.composite
def laid(draw) -> SlidePredictions:
    """Draw tiles at distinct places of a grid with any stride: gaps, overlaps, noise of classes."""
    width, height = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    stride = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    origin = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    spots = st.tuples(st.integers(0, 5), st.integers(0, 5))
    places = draw(st.lists(spots, min_size=1, max_size=20, unique=True))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    shares = rng.dirichlet(np.ones(K), len(places)).astype(np.float32)
    x, y = (np.array(axis) for axis in zip(*places, strict=True))
    return tiles(
        origin[0] + stride[0] * x, origin[1] + stride[1] * y, shares.argmax(axis=1), width,
        height=height, target=rng.integers(-1, K, len(places)), probabilities=shares,
    )  # fmt: skip


@settings(max_examples=examples(150), deadline=None)
@given(laid())
def test_regions_and_pixels_are_what_the_rule_says_at_every_pixel(given):
    agree(given)


def test_a_hole_is_a_ring_of_its_own():
    x, y = np.divmod(np.arange(9), 3)
    given = tiles(4 * x, 4 * y, [0, 0, 0, 0, 1, 0, 0, 0, 0])
    areas = regions(label_map(given), given)
    assert areas.label.tolist() == [0, 1]
    ring, middle = areas.shape
    assert len(ring.interiors) == 1 and ring.area == 8 * 16
    assert shapely.get_num_coordinates(ring) == 10  # two squares: straight lines have no points
    assert middle.equals(shapely.box(4, 4, 8, 8))
    assert areas.tiles.tolist() == [8, 1]


def test_tiles_that_touch_in_a_corner_are_two_regions():
    given = tiles([0, 4], [0, 4], [1, 1])
    assert regions(label_map(given), given).area.tolist() == [16, 16]


def test_where_tiles_overlap_the_mean_probability_decides():
    """Between 0.8 and 0.3 for class 0, and 0.2 and 0.7 for class 1, the mean is 0.55 to 0.45."""
    given = tiles([0, 2], [0, 0], [0, 1], probabilities=[[0.8, 0.2, 0], [0.3, 0.7, 0]])
    areas = regions(label_map(given), given)
    assert [shape.bounds for shape in areas.shape] == [(0, 0, 4, 4), (4, 0, 6, 4)]
    np.testing.assert_allclose(areas.mean, [(0.8 + 0.55) / 2, 0.7], rtol=1e-6)
    np.testing.assert_allclose(areas.least, [0.55, 0.7], rtol=1e-6)
    assert areas.tiles.tolist() == [2, 1]


def test_gaps_between_tiles_stay_empty():
    given = tiles([0, 6], [0, 0], [1, 1])
    assert [s.bounds for s in regions(label_map(given), given).shape] == [
        (0, 0, 4, 4),
        (6, 0, 10, 4),
    ]


def test_a_lone_tile_keeps_the_class_that_was_predicted_for_it():
    """Even if its probabilities are equal, or were rounded."""
    given = tiles([0], [0], [2], probabilities=[[0.5, 0, 0.5]])
    assert label_map(given).label.tolist() == [2]


def test_regions_that_are_too_small_are_refused():
    given = tiles([0, 4], [0, 0], [0, 1])
    cut = label_map(given)
    areas = regions(cut, given)
    object.__setattr__(areas, "shape", shapely.box([0, 4], 0, [4, 7], 4))
    with pytest.raises(RegionError, match="not as large"):
        check(areas, cut, given)


def test_regions_elsewhere_are_refused():
    given = tiles([0, 4], [0, 0], [0, 1])
    cut = label_map(given)
    areas = regions(cut, given)
    object.__setattr__(areas, "shape", shapely.box([4, 0], 0, [8, 4], 4))
    with pytest.raises(RegionError, match="outside"):
        check(areas, cut, given)


def test_every_slide_is_checked(monkeypatch):
    seen = []
    monkeypatch.setattr(regions_module, "check", lambda *given: seen.append(given))
    given = tiles([0], [0], [0])
    regions(label_map(given), given)
    assert len(seen) == 1


def test_tiles_without_any_grid_are_refused_before_memory_is_gone():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 200_000, (2, 20_000))
    with pytest.raises(Exception, match="too irregularly"):
        label_map(tiles(x, y, np.zeros(20_000, dtype=int), width=500))


def test_a_map_that_would_be_too_large_gets_larger_pixels():
    assert grid((1000, 500), 10, 10**6).pixel == 10
    larger = grid((1000, 500), 10, 1250)
    assert (larger.pixel, larger.width, larger.height) == (20, 50, 25)


def test_the_last_pixels_reach_over_the_slides_border():
    cover = grid((1001, 999), 100, 10**6)
    assert (cover.width, cover.height) == (11, 10)
