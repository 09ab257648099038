"""`where`: what it takes, what it means on both engines, what is refused."""

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CLASSES, TABLES
from expressions import EXPRESSIONS, TILES

from featurestore.backend import engine
from featurestore.errors import ConfigError
from featurestore.folds.artifact import Wanted
from featurestore.spec.store_spec import StoreSpec
from featurestore.store import FeatureStore
from featurestore.validation import violations
from featurestore.views.filters import filtered

SLIDES = pa.table({"id": ["a", "b", "c"], "mpp_x": [0.25, 0.5, None], "organ": ["x", "y", "z"],
                   "stain": ["HE", "IHC", "HE"]})  # fmt: skip


def engines_answer(connection: object, where: str) -> list[int]:
    tiles = engine.register(connection, "tiles", TILES)  # type: ignore[arg-type]
    table, holds = filtered(tiles, None, where)
    return sorted(table.filter(holds).to_pyarrow()["x"].to_pylist())


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_it_means_what_duckdb_says(where: str):
    duckdb.register("tiles", TILES)
    expected = duckdb.sql(f"select x from tiles where {where} order by x").fetchall()
    assert engines_answer(engine.connect(), where) == [x for (x,) in expected]


def test_a_number_is_rounded_to_the_floats_that_it_is_compared_with():
    """As a threshold is: 0.7 is not below the 0.7 of a column of single floats."""
    for where in ("share >= 0.7", "0.7 <= share", "share between 0.7 and 1", "share in (0.7, 5)"):
        assert engines_answer(engine.connect(), where) == [0, 2, 5], where


def test_columns_of_slides_are_joined_and_tiles_go_before_them():
    connection = engine.connect()
    tiles, slides = (engine.register(connection, name, table)
                     for name, table in (("tiles", TILES), ("slides", SLIDES)))  # fmt: skip
    table, holds = filtered(tiles, slides, "stain = 'HE' and organ <> 'x'")
    assert sorted(table.filter(holds).to_pyarrow()["x"].to_pylist()) == [0, 1, 4]
    table, holds = filtered(tiles, slides, "mpp_x > 0.3")  # not known of c and d
    assert sorted(table.filter(holds).to_pyarrow()["x"].to_pylist()) == [2, 3]


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("orgn = 'colon'", ["not: orgn", "did you mean 'organ'?"]),
        ("stian = 'HE'", ["not: stian", "did you mean 'stain'?"]),
        ("tiles.organ = 'colon'", ["tiles.organ", "without its table"]),
        ("organ = 5", ["does not go together", "not comparable"]),
        ("x in ('a')", ["does not go together"]),
        ("x like 'a'", ["does not go together"]),
        ("not x", ["does not go together"]),
        ("trim(leading from organ) = 'a'", ["does not go together", "LEADING"]),
        ("x < 99999999999999999999", ["does not go together"]),
        ("x and kept", ["does not go together"]),
        ("x + 1", ["neither true nor false"]),
        ("organ", ["neither true nor false"]),
        ("x or x", ["neither true nor false"]),
        ("x = (select 1)", ["not taken there", "SELECT 1"]),
        ("x in (select x from tiles)", ["not taken there"]),
        ("select 1", ["not taken there"]),
        ("organ = null", ["not taken there: NULL"]),
        ("read_text('/etc/passwd') = 'x'", ["not taken there", "READ_TEXT"]),
        ("random() < 0.5", ["not taken there"]),
        ("x = any([1])", ["not taken there"]),
        ("kept; kept", ["one SQL expression, not 2"]),
        ("", ["one SQL expression, not 0"]),
        ("x >", ["is not an SQL expression"]),
        ("'open", ["is not an SQL expression"]),
        ("drop table tiles", ["not taken there"]),
        ("id = 'a' -- and so on", []),
    ],
)
def test_refused(where: str, words: list[str]):
    connection = engine.connect()
    tiles, slides = (engine.register(connection, name, table)
                     for name, table in (("tiles", TILES), ("slides", SLIDES)))  # fmt: skip
    if not words:
        filtered(tiles, slides, where)
        return
    with pytest.raises(ConfigError) as refused:
        filtered(tiles, slides, where)
    assert all(word in str(refused.value) for word in words), refused.value


def spec(artifacts: TABLES, **rules: object) -> StoreSpec:
    named = {key.removeprefix("data."): uri for key, uri in artifacts({"fold": None}).items()}
    pq.write_table(pa.table({"id": ["s0", "s1", "s2", "s3"], "organ": ["colon"] * 3 + ["lung"]}),
                   "slides.parquet")  # fmt: skip
    more = {"slides": "slides.parquet", "k": 2} | rules
    return StoreSpec(**CLASSES, **named, **more)  # type: ignore[arg-type]


def test_tiles_that_are_not_asked_for_have_a_fate_of_their_own(artifacts: TABLES):
    store = FeatureStore(spec(artifacts, where="organ = 'colon' and tissue_prop > 0.85"))
    funnel = store.funnel()
    assert [row["reason"] for row in funnel][:3] == ["input", "filtered", "background"]
    counts = {row["reason"]: row["tiles"] for row in funnel}
    assert (counts["input"], counts["filtered"], counts["kept"]) == (12, 8, 4)
    assert "organ" not in store.view("fates").columns


def test_without_it_the_funnel_does_not_tell_of_it(artifacts: TABLES):
    reasons = {row["reason"] for row in FeatureStore(spec(artifacts)).funnel()}
    assert not {"filtered", "dropped_class"} & reasons


def test_check_tells_of_it(artifacts: TABLES):
    """Beside whatever else is wrong."""
    found = violations(FeatureStore(spec(artifacts, where="orgn = 'colon'"))).to_pylist()
    [row] = [row for row in found if row["severity"] == "error"]
    assert "a column that there is not: orgn" in row["wrong"]
    sound = violations(FeatureStore(spec(artifacts, where="organ = 'colon'"))).to_pylist()
    assert not [row for row in sound if row["severity"] == "error"]


def test_folds_are_of_other_slides_if_it_reads_other_slides(artifacts: TABLES):
    """The same tiles under the same rules: what survives is said by the slides."""

    def cohort() -> str:
        store = FeatureStore(spec(artifacts, where="organ = 'colon'"))
        assert store.assignment is not None
        return store.assignment.origin.cohort

    before = cohort()
    assert cohort() == before
    made = spec(artifacts, where="organ = 'colon'")
    pq.write_table(pa.table({"id": ["s0", "s1", "s2", "s3"], "organ": ["colon"] * 4}),
                   "slides.parquet")  # fmt: skip
    store = FeatureStore(made)
    wanted = Wanted(made, store.sources.dataset("tiles"), slides=store.sources.dataset("slides"))
    assert wanted.cohort != before
