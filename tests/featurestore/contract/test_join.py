"""Tiles and embeddings that hardly meet: which are refused, and the cause that is named."""

import functools
from itertools import product
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.backend import engine
from featurestore.contract import join
from featurestore.contract.join import SLIDES, Join
from featurestore.errors import EmptyViewError, FeatureStoreError, JoinError

SLIDE_NAMES = ["s1", "s2", "s3"]


def grid(
    slides: list[str] = SLIDE_NAMES, across: int = 5, down: int = 7, step: int = 224, plus: int = 0
) -> pa.Table:
    """Return the keys of slides with tiles in rows and columns."""
    keys = list(product(slides, range(across), range(down)))
    return pa.table({
        "slide_id": [slide for slide, _, _ in keys],
        "x": [plus + step * x for _, x, _ in keys],
        "y": [plus + step * y for _, _, y in keys],
    })  # fmt: skip


@functools.cache
def duckdb() -> Any:
    return engine.connect(threads=1)


def joined(tiles: pa.Table, embeddings: pa.Table) -> Join:
    connection = duckdb()
    ours = engine.register(connection, "kept_tiles", tiles)
    return Join("tiles", ours, ours, engine.register(connection, "given_keys", embeddings))


def refused(tiles: pa.Table, embeddings: pa.Table, allowed: float = 0.5) -> FeatureStoreError:
    with pytest.raises((JoinError, EmptyViewError)) as refusal:
        join.check(joined(tiles, embeddings), allowed)
    return refusal.value


CAUSES = {
    # name: (tiles, embeddings, words)
    "a suffix": (
        grid(), grid(["s1.svs", "s2.svs", "s3.svs"]),
        "slide_id of the embeddings ends in '.svs' ('s1', 's1.svs'): so 105 of 105",
    ),
    "a suffix of tiles": (
        grid(["s1.svs", "s2.svs", "s3.svs"]), grid(),
        "slide_id of the tiles ends in '.svs' ('s1.svs', 's1'): so 105 of 105",
    ),
    "a case": (
        grid(), grid(["S1", "S2", "S3"]), "slide_id differs in upper and lower case ('s1', 'S1')",
    ),
    "another level": (
        grid(), grid(step=56), "x and y of the tiles are 4 times those of the embeddings: so 105 "
        "of 105 would have one, not 12 by chance",
    ),
    "another level, the other way": (
        grid(step=56), grid(), "x and y of the embeddings are 4 times those of the tiles: so 105 "
        "of 105 would have one",
    ),
    "numbers of columns and rows": (
        grid(step=219), grid(step=1),
        "x and y of the tiles are 219 times those of the embeddings: so 105 of 105",
    ),
    "half a tile": (
        grid(), grid(plus=112),
        "x, y of the embeddings are those of the tiles plus 112, 112, half a tile: so 105 of 105",
    ),
    "an offset": (
        grid(), grid(plus=-5), "those of the tiles plus -5, -5: so 105 of 105",
    ),
    "x and y": (grid(), grid(across=7, down=5), "x and y are swapped: so 105 of 105"),
    "a suffix and another level": (
        grid(), grid(["s1_1", "s2_1", "s3_1"], step=112),
        "ends in '_1' ('s1', 's1_1'); and x and y of the tiles are 2 times those of the "
        "embeddings: so 105 of 105",
    ),
    "nothing known": (
        grid(), grid(["q7", "q8", "q9"]),
        "0 of these 3 slides have embeddings of no tile; the first tile without one at "
        "slide_id='s1', x=0, y=0; the first embedding of no tile at slide_id='q7', x=0, y=0",
    ),
    "slides that were not embedded": (
        grid(), grid(["s1"]), "every embedding that there is has its tile",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CAUSES)
def test_the_cause_is_named_with_how_many_would_meet(name: str):
    tiles, embeddings, words = CAUSES[name]
    allowed = 0.2 if name == "x and y" else 0.5  # of a grid 5 by 7 most tiles meet all the same
    assert words in refused(tiles, embeddings, allowed).found


def test_embeddings_that_other_tiles_have_explain_nothing():
    """Of a slide whose right half was not embedded, each missing tile has one half a slide away."""
    tiles = grid(across=10)
    embeddings = tiles.filter(pa.array([x < 224 * 4 for x in tiles["x"].to_pylist()]))
    assert "every embedding that there is has its tile" in refused(tiles, embeddings).found


def test_a_cause_of_half_the_missing_tiles_is_not_clear():
    tiles = grid(["s1", "s2"])
    embeddings = grid(["s1.svs", "q2"])
    assert "embeddings of no tile" in refused(tiles, embeddings).found


def test_one_slide_is_refused_for_itself():
    """The others have theirs; the cause is that of the slide."""
    error = refused(grid(), grid(["s1", "s2", "S3"]))
    assert isinstance(error, JoinError)
    assert error.wrong == "1 of 3 slides lack embeddings of their tiles"
    assert error.found == (
        "allow_missing=0.5; without: 35 of 35 in 's3'; slide_id differs in upper and lower case "
        "('s3', 'S3'): so 35 of 35 would have one"
    )
    assert error.fix == "spell slide_id alike in both artifacts"  # nothing to leave out
    error = refused(grid(), grid(["s1", "s2"]))
    assert error.fix == "embed the others as well; or let them be dropped: allow_missing=1"


def test_a_suffix_is_answered_by_the_option_that_takes_it_away():
    """Where one artifact alone has it; of several suffixes none would do."""
    fix = refused(grid(), grid(["s1.svs", "s2.svs", "s3.svs"])).fix
    assert fix == "set data.slide_id_strip=.svs, or spell slide_id alike in both artifacts"
    fix = refused(grid(["a.svs", "b.tif"]), grid(["a", "b"])).fix
    assert fix == "spell slide_id alike in both artifacts"


def test_what_meets_by_chance_at_a_wrong_place_is_not_met():
    """Whatever share is allowed but all; no advice to go on with the few that meet by chance."""
    tiles, embeddings = grid(across=8, down=12), grid(across=8, down=12, step=56)
    by_key = set(zip(*tiles.to_pydict().values(), strict=True))
    met = len(by_key & set(zip(*embeddings.to_pydict().values(), strict=True)))
    assert met == 18  # of 288
    for allowed in (0.5, 0.95):
        error = refused(tiles, embeddings, allowed)
        assert error.wrong == "288 of 288 tiles have no embedding of their own"
        assert "without: 96 of 96 in 's1'" in error.found
        assert "so 288 of 288 would have one, not 18 by chance" in error.found
        assert error.fix == "write x and y of both in pixels of one level"
    assert join.check(joined(tiles, embeddings), 1)["missing"].to_pylist() == [90] * 3


def test_what_meets_in_its_own_place_is_met_though_the_rest_is_elsewhere():
    """Of each slide the upper part is written as the tiles are, the lower from another corner."""
    upper, lower = grid(down=3), grid(down=8, plus=112)
    below = lower.filter(pa.array([y > 3 * 224 for y in lower["y"].to_pylist()]))
    error = refused(grid(down=8), pa.concat_tables([upper, below]))
    assert error.wrong == "75 of 120 tiles have no embedding"
    assert "plus 112, 112, half a tile: so 75 of 75 would have one" in error.found


def test_what_is_allowed_passes_and_an_empty_join_never():
    table = join.check(joined(grid(), grid(["s1"])), 1)
    assert table.to_pylist() == [
        {"slide_id": "s2", "tiles": 35, "missing": 35},
        {"slide_id": "s3", "tiles": 35, "missing": 35},
        {"slide_id": "s1", "tiles": 35, "missing": 0},
    ]
    assert isinstance(refused(grid(), grid(["S1"]), 1), EmptyViewError)


COUNTS = st.integers(1, 1000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))


@given(st.lists(COUNTS, min_size=1, max_size=5), st.integers(0, 100))
def test_more_than_the_share_is_refused_and_the_share_itself_is_not(
    counts: list[tuple[int, int]], percent: int
):
    """In whole numbers: a share of 0.29 lets 29 of 100 pass."""
    rows = [
        {"slide_id": f"s{n}", "tiles": tiles, "missing": missing}
        for n, (tiles, missing) in enumerate(counts)
    ]
    rows.sort(key=lambda row: -row["missing"] / row["tiles"])
    total = (sum(tiles for tiles, _ in counts), sum(missing for _, missing in counts))
    expected = any(100 * missing > percent * tiles for tiles, missing in [*counts, total])
    summary = join.summary(pa.Table.from_pylist(rows, SLIDES))
    assert join.is_refused(summary, percent / 100) == expected
