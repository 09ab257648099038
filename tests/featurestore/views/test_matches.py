"""Where tiles and embeddings meet: each view against its plain-SQL twin and against pandas."""

import functools
from typing import Any

import pandas as pd
import pyarrow as pa
from conftest import ROOT, examples
from hypothesis import example, given, settings
from hypothesis import strategies as st

from featurestore.backend import engine
from featurestore.contract.causes import CHANGES
from featurestore.views.matches import FARTHEST, extent_view, match_view, rekeyed_view

NAMES = ["slide_id", "x", "y"]
KEYS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(-6, 6), st.integers(-2, 9)),
    unique=True, max_size=14,
)  # fmt: skip
CHANGE = st.tuples(
    st.sampled_from([{"a": "a"}, {"a": "b", "b": "c"}, {"a": "c", "b": "c"}]),
    st.booleans(), st.sampled_from([(1, 1), (2, 1), (1, 2), (1, 4)]),
    st.sampled_from([(0, 0), (1, -2)]),
)  # fmt: skip


@functools.cache
def duckdb() -> Any:
    return engine.connect(threads=1)


def table(keys: list[tuple]) -> pa.Table:
    columns = list(zip(*keys, strict=True)) or [(), (), ()]
    kinds = (pa.string(), pa.int64(), pa.int64())
    return pa.table(
        [pa.array(c, kind) for c, kind in zip(columns, kinds, strict=True)], names=NAMES
    )


def tuples(view: Any) -> list[tuple]:
    return sorted((tuple(row.values()) for row in view.to_pyarrow().to_pylist()), key=repr)


@settings(max_examples=examples(10), deadline=None)
@example(
    [("a", 0, 0), ("a", -3, 5), ("b", 2, 2)],
    [("a", 0, 0), ("b", 1, 2), ("b", 3, -5), ("c", 1, 1)],
    [({"a": "b", "b": "c"}, True, (1, 2), (1, -2)), ({"a": "b", "b": "c"}, False, (1, 2), (0, 0))],
)
@given(KEYS, KEYS, st.lists(CHANGE, min_size=1, max_size=3))
def test_views_agree_with_their_sql_twins_and_with_pandas(
    keys: list[tuple], embedded: list[tuple], drawn: list[tuple]
):
    connection = duckdb()
    tiles = engine.register(connection, "tiles", table(keys))
    embeddings = engine.register(connection, "embeddings", table(embedded))
    rows = [
        dict(zip(CHANGES.names, (number, slide, other, swapped, *factor, *plus), strict=True))
        for number, (names, swapped, factor, plus) in enumerate(drawn)
        for slide, other in names.items()
    ]
    changes = engine.register(connection, "changes", pa.Table.from_pylist(rows, CHANGES))
    views = {
        "matches": match_view(tiles, embeddings),
        "extents": extent_view(tiles),
        "rekeyed": rekeyed_view(tiles, changes, embeddings),
    }
    for name, view in views.items():
        text = (ROOT / "tests" / "sql" / f"{name}.sql").read_text()
        assert tuples(view) == sorted(connection.con.execute(text).fetchall(), key=repr), name

    ours, theirs = table(keys).to_pandas(), table(embedded).to_pandas()
    both = ours.merge(theirs, on=NAMES, how="left", indicator=True)
    missing = (both._merge == "left_only").groupby(both.slide_id).agg(["size", "sum"])
    expected = [(slide, int(n), int(m)) for slide, n, m in missing.itertuples()]
    assert tuples(views["matches"]) == expected
    assert tuples(views["rekeyed"]) == rekeyed(ours, theirs, pd.DataFrame(rows))


def rekeyed(ours: pd.DataFrame, theirs: pd.DataFrame, changes: pd.DataFrame) -> list[tuple]:
    """Count by pandas, which divides as Python does: rounded down."""
    both = ours.merge(changes, on="slide_id")
    swapped = both.x.where(~both.swapped.astype(bool), both.y)
    other = both.y.where(~both.swapped.astype(bool), both.x)
    both["y"] = other * both.times // both.over + both.plus_y
    both["x"] = swapped * both.times // both.over + both.plus_x
    both["slide_id"] = both.other_id
    kept = both[["change", *NAMES]].drop_duplicates().merge(theirs, on=NAMES)
    return [(int(change), int(n)) for change, n in kept.groupby("change").size().items()]


def test_what_lies_beyond_every_slide_is_left_out():
    """A multiple or a difference of it would not fit 64 bits."""
    connection = engine.connect(threads=1)
    far = pa.table({"slide_id": ["a", "a", "a"], "x": pa.array([0, 2**64 - 1, 8], pa.uint64()),
                    "y": [0, 0, FARTHEST]})  # fmt: skip
    tiles = engine.register(connection, "tiles", far)
    assert tuples(extent_view(tiles)) == [("a", 0, 8, 8, 0, FARTHEST, FARTHEST)]
