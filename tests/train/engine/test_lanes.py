"""Lanes: nearly even ranges of whole parts, and one order of all tiles that merges them evenly."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.engine.lanes import LANES, Lanes, owned

SIZES = st.lists(st.integers(0, 12), min_size=LANES, max_size=LANES)


def lanes_of(sizes: list[int]) -> Lanes:
    """Return lanes of some sizes."""
    return Lanes(np.cumsum([0, *sizes]))


@settings(deadline=None, max_examples=25)
@given(sizes=SIZES, world=st.integers(1, LANES))
def test_positions_are_those_of_times_in_order(sizes: list[int], world: int):
    """Sorted as fractions, the lane deciding between equals, as all processes find them."""
    times = sorted(
        (Fraction(2 * row + 1, 2 * size), lane, row)
        for lane, size in enumerate(sizes) for row in range(size)
    )  # fmt: skip
    place = {(lane, row): position for position, (_, lane, row) in enumerate(times)}
    expected = [place[lane, row] for lane, size in enumerate(sizes) for row in range(size)]
    lanes = lanes_of(sizes)
    by_rank = [lanes.positions(owned(rank, world)) for rank in range(world)]
    assert np.concatenate(by_rank).tolist() == expected
    assert [len(positions) for positions in by_rank] == [
        len(range(*lanes.rows(owned(rank, world)).indices(len(lanes)))) for rank in range(world)
    ]


def test_positions_are_exact_where_floating_point_is_not():
    """The middle rows of 3 and of a thousand million meet: the lower lane comes first."""
    sizes = [0] * LANES
    sizes[3], sizes[7] = 3, 1_000_000_001
    positions = lanes_of(sizes).positions(range(3, 4))
    assert positions.tolist() == [166_666_667, 500_000_001, 833_333_336]


@settings(deadline=None, max_examples=25)
@given(sizes=SIZES, seed=st.integers(0, 9))
def test_a_lane_is_shuffled_within_itself_whoever_owns_it(sizes: list[int], seed: int):
    lanes = lanes_of(sizes)
    for rank in range(4):
        of_rank = owned(rank, 4)
        first = lanes.rows(of_rank).start
        by_lane = np.split(
            lanes.shuffled(of_rank, seed) + first, np.cumsum(lanes.sizes[of_rank])[:-1]
        )
        for lane, tiles in zip(of_rank, by_lane, strict=True):
            edges = range(lanes.edges[lane], lanes.edges[lane + 1])
            assert sorted(tiles.tolist()) == list(edges)
            alone = lanes.shuffled(range(lane, lane + 1), seed) + edges.start
            assert tiles.tolist() == alone.tolist()


def test_seeds_and_lanes_shuffle_unalike():
    lanes = lanes_of([100] * LANES)
    orders = {tuple(lanes.shuffled(range(n, n + 1), seed)) for n in range(LANES) for seed in (0, 1)}
    assert len(orders) == 2 * LANES


@pytest.mark.parametrize("world", [1, 2, 3, 5, LANES])
def test_every_lane_has_one_owner(world: int):
    lanes = [lane for rank in range(world) for lane in owned(rank, world)]
    assert lanes == list(range(LANES))


@given(
    rows=st.lists(st.integers(0, 2000), unique=True),
    starts=st.lists(st.integers(1, 2000), unique=True),
)
def test_cuts_keep_lanes_nearly_even(rows: list[int], starts: list[int]):
    rows, number = np.sort(np.array(rows, dtype=np.int64)), len(rows)
    lanes = Lanes.cut(rows, np.array([0, *sorted(starts)]))
    assert (lanes.edges[0], len(lanes)) == (0, number)
    assert len(lanes.edges) == LANES + 1
    assert (lanes.sizes >= 0).all()
    assert np.abs(lanes.sizes - number / LANES).max() <= number / LANES / 2 + 1


def test_lanes_are_whole_parts_where_parts_are_many():
    """10,000 slides of 30 to 50 tiles, of which a tenth is not chosen; and one file, cut evenly."""
    rng = np.random.default_rng(0)
    starts = np.cumsum([0, *rng.integers(30, 51, size=9999)])
    rows = np.flatnonzero(rng.random(starts[-1] + 30) > 0.1)
    edges = Lanes.cut(rows, starts).edges
    part = np.searchsorted(starts, rows, side="right")
    assert (part[edges[1:-1] - 1] < part[edges[1:-1]]).all()
    assert np.ptp(np.diff(Lanes.cut(rows, np.zeros(1, np.int64)).edges)) <= 1
