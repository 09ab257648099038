"""Tiles that overlap, against a comparison of all with all."""

from itertools import combinations

import pyarrow as pa
import pytest
from conftest import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ibis.backends.duckdb import Backend as DuckDB

from featurestore.backend import engine
from featurestore.views.leakage import overlapping_tiles

SIZE = (4, 6)  # width and height of a tile
PLACES = st.sets(
    st.tuples(st.sampled_from("ab"), st.integers(-9, 9), st.integers(-13, 13)),
    min_size=1, max_size=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def connection() -> DuckDB:
    return engine.connect(threads=1)


@settings(max_examples=examples(15), deadline=None)
@given(PLACES, st.booleans(), st.integers(0, 2**8 - 1))
@example({("a", 0, 0), ("a", -4, 6), ("a", -3, 6)}, False, 0b100)
@example({("a", 1, 0), ("a", -3, 0), ("a", 5, 6)}, False, 0b010)
def test_overlapping_tiles_are_those_of_all_pairs(
    connection: DuckDB, places: set, on_grid: bool, folds: int
):
    if on_grid:
        places = {(slide, x * SIZE[0], y * SIZE[1]) for slide, x, y in places}
    tiles = [(*place, folds >> n & 1) for n, place in enumerate(sorted(places))]
    expected = [
        (*one, *other[1:])
        for one, other in combinations(tiles, 2)
        if one[0] == other[0]
        and abs(one[1] - other[1]) < SIZE[0]
        and abs(one[2] - other[2]) < SIZE[1]
        and one[3] != other[3]
    ]
    names = ["slide_id", "x", "y", "fold"]
    columns = {
        name: list(column) for name, column in zip(names, zip(*tiles, strict=True), strict=True)
    }
    fates = pa.table(columns | {"dropped_by": pa.nulls(len(tiles), pa.string())})
    slides = pa.table({"id": ["a", "b"], "tile_extent_x": [4, 4], "tile_extent_y": [6, 6]})
    overlaps = overlapping_tiles(
        engine.register(connection, "fates", fates), engine.register(connection, "slides", slides)
    )
    rows = overlaps.to_pyarrow().to_pylist()
    assert sorted(tuple(row.values()) for row in rows) == sorted(expected)
