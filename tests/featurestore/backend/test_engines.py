"""DuckDB and Spark: row for row the same views, and the same as the plain-SQL twins."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlglot
from conftest import ROOT
from expressions import EXPRESSIONS
from expressions import TILES as EXPRESSED
from ibis.formats.pyarrow import PyArrowType
from programs import JAVA

from featurestore import FeatureStore, StoreSpec
from featurestore.backend import engine, statements
from featurestore.backend import spark as backend_spark
from featurestore.backend.query import Reach
from featurestore.contract import join
from featurestore.contract.causes import CHANGES
from featurestore.contract.parquet_table import ReadOptions
from featurestore.contract.schemas import checked_table
from featurestore.errors import ArtifactError, FeatureStoreWarning, JoinError, QueryError
from featurestore.io.parquet import dataset
from featurestore.snapshots.build import materialise
from featurestore.spec.rules import LabelRules
from featurestore.views.classes import ClassSpec
from featurestore.views.fates import fate_view, funnel_view
from featurestore.views.filters import filtered
from featurestore.views.folds import fold_view, hashed_fold_view, shared_groups, split_view
from featurestore.views.joins import common_keys
from featurestore.views.labels import coverage_view, label_view
from featurestore.views.leakage import (
    duplicate_embeddings,
    grid_spacing,
    group_counts,
    groups_in_several_folds,
    groups_in_train_and_test,
    overlapping_tiles,
)
from featurestore.views.matches import extent_view, match_view, rekeyed_view
from featurestore.views.thresholds import threshold_view
from train.inference.cohort import PredictionSet
from train.inference.writer import PredictionWriter

pytestmark = pytest.mark.slow
ENGINES = ["duckdb", "pyspark"]
NAMES = ["Connective-Tissue", 'O\'Brien; drop "x" --', "Öl & Fett"]
KEY = ["slide_id", "x", "y"]
# Ties, zeros, coverages at their class's threshold and just beside it, sums in every rounding.
SHARES = [
    (0.5, 0.5, 0.0), (0.0, 0.25, 0.25), (0.0, 0.0, 0.0), (0.0, 0.0, 0.25), (0.5, 0.0, 0.0),
    (0.25, 0.0, 0.0), (0.0, 1.0, 0.0), (1 / 1024, 0.0, 0.0), (0.1, 0.2, 0.3), (0.0, 0.0, 0.75),
    (0.0, 0.5, 0.0), (0.75, 0.0, 0.0), (0.2, 0.0, 0.0), (0.0, 0.2, 0.0), (0.0, 0.0, 0.2),
    (0.1, 0.1, 0.0), (0.1, 0.0, 0.1), (0.3, 0.3, 0.3), (1 / 3, 1 / 3, 1 / 3), (0.0, 0.0, 0.0),
    (0.7, 0.2, 0.1), (0.0, 1e-300, 0.0), (0.5 - 2**-53, 0.0, 0.0), (0.0, 0.0, 0.25 - 2**-54),
    (0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.25, 0.5, 0.25), (0.25, 0.25, 0.5), (0.5, 0.25, 0.25),
    (-0.0, 0.5, -0.0),
]  # fmt: skip
CLASSES = [ClassSpec(*rule) for rule in zip(NAMES, [2, 0, 1], [0.5, 0.0, 0.25], strict=True)]
NUMBERS = range(len(SHARES))
KEYS = {"slide_id": [f"s{n % 3}" for n in NUMBERS], "x": list(NUMBERS),
        "y": [n % 2 for n in NUMBERS]}  # fmt: skip
TILES = pa.table(
    KEYS | {f"roi_coverage_{name}": [row[n] for row in SHARES] for n, name in enumerate(NAMES)}
)
ASSIGNED = pa.table(
    KEYS | {"fold": pa.array([None if n == 4 else n % 2 for n in NUMBERS], pa.int64())}
)
MERGED = [ClassSpec(NAMES[1], None, 0.0), ClassSpec(NAMES[2], 0, 0.25, (NAMES[0], NAMES[2]))]
GROUPS = pa.table({"slide_id": ["s0", "s1"], "fold": [1, 0]})
EMBEDDED = pa.table(KEYS).filter(pa.array([n != 11 for n in NUMBERS]))
MOVED = pa.Table.from_pylist(
    [dict(zip(CHANGES.names, row, strict=True)) for row in [
        (0, "s0", "s0", False, 1, 1, 0, 0), (1, "s0", "s1", False, 1, 1, 1, 1),
        (1, "s1", "s2", False, 1, 1, 1, -1), (2, "s0", "s1", True, 5, 3, 1, 0),
        (2, "s2", "s2", False, 1, 2, 0, 0),
    ]],
    CHANGES,
)  # fmt: skip
SLIDES = pa.table({"id": ["s0", "s1", "s2"], "tile_extent_x": [4, 1, 7], "tile_extent_y": [2] * 3})
TWIN = {"tissue_prop_min": 0.2, "single_class": False, "a": 0.5, "b": 0.0, "c": 0.25, "fold": 1,
        "rare": NAMES[1], "seed": 7, "k": 3}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def spark() -> Iterator[Any]:
    """Start a local Spark as a store would; every test's session is made beside this one."""
    from pyspark.sql import SparkSession

    with pytest.MonkeyPatch.context() as patch:
        for name in backend_spark.CLUSTER:
            patch.delenv(name, raising=False)
        engine.connect(threads=2, engine="pyspark")
        session = SparkSession.getActiveSession()
        assert session is not None
        session.conf.set("spark.sql.shuffle.partitions", "2")
        yield session
        viewed.cache_clear()
        session.stop()


@pytest.fixture(scope="module", params=ENGINES)
def connection(request: pytest.FixtureRequest) -> Any:
    return engine.connect(engine=request.param)


@pytest.fixture(scope="module")
def on_spark() -> Any:
    return engine.connect(engine="pyspark")


def views(connection: Any, rule: str = "dominant") -> dict[str, Any]:
    """Build all views on one engine."""
    tiles = engine.register(connection, "tiles", TILES)
    labels = label_view(tiles, CLASSES, rule)  # type: ignore[arg-type]
    rules = LabelRules(single_class=False, label_rule=rule)  # type: ignore[arg-type]
    thresholds = engine.create_view(
        connection, "thresholds", threshold_view(labels, CLASSES, rules)
    )
    folds = fold_view(thresholds, engine.register(connection, "assigned", ASSIGNED))
    groups = engine.register(connection, "assigned_groups", GROUPS)
    embeddings = engine.register(connection, "embeddings", EMBEDDED)
    fates = engine.create_view(connection, "fates", fate_view(folds, embeddings))
    split = split_view(fates, 1)
    slides = engine.register(connection, "slides", SLIDES)
    fates_of = ["fold", "dropped_by"]
    sides = fates.select(*KEY, side=fates.fold.cast("string"), cell=fates.target)
    return {
        "labels": labels.select(*KEY, "tissue_prop", "dominant", "label", "target"),
        "coverages": coverage_view(tiles, CLASSES),
        "merged": threshold_view(
            label_view(tiles, MERGED, rule),  # type: ignore[arg-type]
            MERGED,
            replace(rules, drop=[NAMES[1]]),
        ).select(*KEY, "tissue_prop", "label", "target", "dropped_by"),
        "thresholds": thresholds.select(*KEY, "dropped_by"),
        "grouped_folds": fold_view(thresholds, groups, [NAMES[1]]).select(*KEY, *fates_of),
        "hashed_folds": hashed_fold_view(thresholds, 3, 7, [NAMES[1]]).select(*KEY, *fates_of),
        "fates": fates.select(*KEY, "fold", "dropped_by"),
        "funnel": funnel_view(fates),
        "split": split.select(*KEY, "split"),
        "shared_groups": shared_groups(split, "slide_id"),
        "spread": groups_in_several_folds(group_counts(fates, ["slide_id"]), "slide_id"),
        "common": groups_in_train_and_test(
            *(group_counts(rows, ["slide_id"]) for rows in (fates, fates.filter(fates.x > 8))),
            "slide_id",
        ),
        "overlap": overlapping_tiles(fates, slides),
        "spacing": grid_spacing(tiles),
        "twins": duplicate_embeddings(sides),
        "matches": match_view(tiles, embeddings),
        "extents": extent_view(tiles),
        "rekeyed": rekeyed_view(tiles, engine.register(connection, "changes", MOVED), embeddings),
    }


@cache
def viewed(name: str, rule: str) -> tuple[Any, dict[str, Any]]:
    """Return a connection to an engine in which nothing but all views are, and the views."""
    connection = engine.connect(threads=1, engine=name)  # type: ignore[arg-type]
    return connection, views(connection, rule)


def rows(view: Any) -> list[tuple]:
    return sorted((tuple(row.values()) for row in view.to_pyarrow().to_pylist()), key=repr)


TWINS = ["labels", "coverages", "merged", "thresholds", "grouped_folds", "fates", "funnel", "split",
         "shared_groups"]  # fmt: skip
HASHED = ["hashed_folds"]  # no two engines read hexadecimal digits by the same SQL
GUARD = ["spread", "common", "overlap", "spacing", "twins", "matches", "extents", "rekeyed"]


@pytest.mark.parametrize("name", TWINS + GUARD + HASHED)
@pytest.mark.parametrize("on", ENGINES)
def test_views_agree_with_their_sql_twins_on_every_engine(on: str, name: str):
    """The twins run on DuckDB: plain SQL, written by hand, is the oracle of both."""
    view = viewed(on, "dominant")[1][name]
    oracle, _ = viewed("duckdb", "dominant")
    text = (ROOT / "tests" / "sql" / f"{name}.sql").read_text()
    used = {key: value for key, value in TWIN.items() if f"${key}" in text}
    expected = sorted(oracle.con.execute(text, used).fetchall(), key=repr)
    assert len(expected) > 0
    assert rows(view) == expected


@pytest.mark.parametrize("name", TWINS + GUARD)
def test_spark_gives_the_twins_rows_when_it_runs_them_itself(name: str):
    """The same hand-written SQL in Spark's dialect, over Spark's tables."""
    on_spark, made = viewed("pyspark", "dominant")
    view = made[name]
    text = (ROOT / "tests" / "sql" / f"{name}.sql").read_text()
    (translated,) = sqlglot.transpile(text, read="duckdb", write="spark")
    used = {key: value for key, value in TWIN.items() if f":{key}" in translated}
    answer = on_spark.session.sql(translated, used).toArrow().to_pylist()
    assert rows(view) == sorted((tuple(row.values()) for row in answer), key=repr)


def test_the_cause_of_a_poor_join_is_the_same_on_every_engine(connection: Any):
    """Another level and another spelling at once, of a slide and a half in three."""
    rows = [(f"s{n % 3}", 4 * n, 8 * n) for n in range(12)]
    other = [(f"S{slide[1:]}", x // 4, y // 4) for slide, x, y in rows if slide != "s2"]
    ours, theirs = (
        engine.register(connection, name, pa.table(list(zip(*keys, strict=True)), names=KEY))
        for name, keys in (("all_tiles", rows), ("all_keys", [*other, rows[2]]))
    )
    with pytest.raises(JoinError) as refusal:
        join.check(join.Join("tiles", ours, ours, theirs), 0.5)
    assert refusal.value.wrong == "11 of 12 tiles have no embedding"
    assert "('s0', 'S0'); and x and y of the tiles are 4 times" in refusal.value.found
    assert "so 8 of 11 would have one" in refusal.value.found


def test_a_filter_means_the_same_on_every_engine(connection: Any):
    """All its expressions in one query; DuckDB's own answers are those of test_filters.py."""
    answers = []
    for one in (connection, engine.connect(threads=1)):
        tiles = engine.register(one, "to_filter", EXPRESSED)
        holds = [filtered(tiles, None, where)[1] for where in EXPRESSIONS]
        columns = {f"holds_{number}": value for number, value in enumerate(holds)}
        answers.append(tiles.select("x", **columns).to_pyarrow().sort_by("x").to_pylist())
    assert answers[0] == answers[1]


@pytest.mark.parametrize("rule", ["dominant", "any_passing"])
def test_both_rules_give_the_same_rows_on_both_engines(rule: str):
    here, on_spark = viewed("duckdb", rule)[1], viewed("pyspark", rule)[1]
    for name in here:
        assert rows(here[name]) == rows(on_spark[name]), name


BOUNDS = [(0.7, 0.0, 0.0), (0.7, 0.1, 0.0), (0.1, 0.0, 0.7), (0.8, 0.0, 0.0), (0.6999, 0.1001, 0.0),
          (0.69, 0.11, 0.0), (0.0, 0.8, 0.0), (0.0, 0.0, 0.79)]  # fmt: skip


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.decimal128(38, 30)], ids=str)
def test_decimals_at_their_bounds_have_the_same_fates_on_every_engine(
    connection: Any, kind: pa.DataType
):
    shares = {
        f"roi_coverage_{name}": pa.array([str(row[n]) for row in BOUNDS]).cast(kind)
        for n, name in enumerate(NAMES)
    }
    places = {
        "slide_id": ["s"] * len(BOUNDS),
        "x": list(range(len(BOUNDS))),
        "y": [0] * len(BOUNDS),
    }
    tiles = engine.register(connection, "bounds", pa.table(places | shares))
    classes = [ClassSpec(*rule) for rule in zip(NAMES, [2, 0, 1], [0.7, 0.8, 0.7], strict=True)]
    rules = LabelRules(tissue_prop_min=0.8, single_class=False)
    fates = threshold_view(label_view(tiles, classes), classes, rules)
    assert fates.order_by("x").to_pyarrow()["dropped_by"].to_pylist() == [
        "tissue", None, None, None, "class_threshold", "class_threshold", None, "tissue",
    ]  # fmt: skip


@pytest.fixture
def spec(tmp_path: Path) -> StoreSpec:
    """Return a store over the same tiles; each slide divided over folds by StratifiedKFold."""
    pq.write_table(TILES, tmp_path / "tiles.parquet")
    vectors = pa.FixedSizeListArray.from_arrays(
        pa.array([float(n) for n in range(2 * len(SHARES))]), 2
    )
    pq.write_table(pa.table(KEYS).append_column("embedding", vectors), tmp_path / "e.parquet")
    return StoreSpec(
        tiles=str(tmp_path / "tiles.parquet"),
        embeddings=str(tmp_path / "e.parquet"),
        class_indices={spec.name: spec.index for spec in CLASSES},
        thresholds={spec.name: spec.threshold for spec in CLASSES},
        single_class=False,
        k=2,
    )


def test_a_store_on_spark_makes_the_same_training_set(spec: StoreSpec):
    """Same name of the snapshot, same fates, funnel and folds; only the engine differs."""
    import shutil

    on_spark = materialise(FeatureStore(replace(spec, backend="pyspark")))
    tiles, manifest = pq.read_table(on_spark.files()), on_spark.manifest
    on_spark.entry.lock.close()
    shutil.rmtree(".featurestore")
    here = materialise(FeatureStore(spec))
    for assignment in (here.manifest["assignment"], manifest["assignment"]):
        assert assignment.pop("made")
    assert here.manifest == manifest
    assert pq.read_table(here.files()).equals(tiles)


REFUSED = {
    "drop view fates": "DROP",
    "select 1; select 2": "2 statements",
    "create table t as select 1": "CREATE",
    "create or replace temporary view fates as select 1": "CREATE",
    "insert into fates select * from fates": "INSERT",
    "with one as (select 1) insert into fates select * from one": "INSERT",
    "delete from fates": "DELETE",
    "set a = 1": "SET",
    "": "statement",
}
ONLY_SPARKS = {
    "from fates insert into fates select *": "INSERT",
    "cache table fates": "CACHE",
    "add jar a": "COMMAND",
    "execute immediate 'select 1'": "COMMAND",
    "select transform(x) using 'cat' from fates": "TRANSFORM",
    "select `reflect`('java.util.UUID', 'randomUUID')": "REFLECT",
}


@pytest.mark.parametrize("query", REFUSED)
@pytest.mark.parametrize("on", ENGINES)
def test_sql_takes_one_statement_that_reads(on: str, query: str):
    connection, _ = viewed(on, "dominant")
    words = "Only what reads|Spark is asked SELECT|no one table|Nothing is asked"
    with pytest.raises(QueryError, match=words) as refusal:
        statements.select(connection, query)
    assert REFUSED[query] in str(refusal.value)
    assert "fates" in dict(engine.columns(connection))


@pytest.mark.parametrize("query", ONLY_SPARKS)
def test_sql_on_spark_changes_nothing_and_runs_no_program(on_spark: Any, query: str):
    with pytest.raises(QueryError, match="Spark is asked SELECT") as refusal:
        statements.select(on_spark, query)
    assert ONLY_SPARKS[query] in str(refusal.value)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("select nope from fates", ["Spark could not run the query", "nope"]),
        ("select * from fates, fate", ["none of the views", "fate; did you mean 'fates'?"]),
        ("select 1 +", ["could not be parsed", "Line 1"]),
    ],
)
def test_what_spark_says_is_kept(query: str, words: list[str]):
    on_spark, _ = viewed("pyspark", "dominant")
    with pytest.raises(QueryError) as refusal:
        statements.select(on_spark, query)
    for word in words:
        assert word in str(refusal.value)


@pytest.mark.parametrize(
    "query",
    ["select 1 as a", "select 1 as a; ;", "(select 1 as a)", "((select 1 as a) limit 3)",
     "select 1 as a -- ;", "with b as (select 1 as a) select * from b", "values (1)",
     "select 1 as a union select 1"],
)  # fmt: skip
def test_every_shape_of_one_select_is_taken(connection: Any, query: str):
    assert rows(statements.select(connection, query)) == [(1,)]


def test_sql_on_spark_reads_files_only_if_it_may(on_spark: Any, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("secret")
    text = f"select value from text.`file://{tmp_path}/notes.txt`"
    with pytest.raises(QueryError, match="none of the views"):
        statements.select(on_spark, text)
    assert rows(statements.select(on_spark, text, Reach(external=True))) == [("secret",)]


def test_sql_on_spark_answers(spec: StoreSpec):
    store = FeatureStore(replace(spec, backend="pyspark"))
    answer = store.sql("with kept as (select * from fates where dropped_by is null) "
                       "select count(*) as n from kept").to_pyarrow()  # fmt: skip
    assert answer.to_pylist() == [{"n": FeatureStore(spec).funnel()[-1]["tiles"]}]


def test_both_engines_list_the_same_views(spec: StoreSpec):
    assert FeatureStore(replace(spec, backend="pyspark")).name_views() == (
        FeatureStore(spec).name_views()
    )


def test_an_integer_beside_a_null_stays_exact(connection: Any):
    values = [2**60 + 1, None]
    table = engine.register(connection, "large", pa.table({"n": pa.array(values, pa.int64())}))
    assert table.to_pyarrow()["n"].to_pylist() == values


@pytest.mark.parametrize(
    "column",
    [pa.array([1, 255], pa.uint8()), pa.array([1, 2**32 - 1], pa.uint32()),
     pa.array([1, 2**64 - 1], pa.uint64()), pa.array(["a", None], pa.large_string()),
     pa.array(["a", None]).dictionary_encode(), pa.array([0.5, None], pa.float16())],
)  # fmt: skip
def test_types_that_spark_lacks_are_registered_all_the_same(on_spark: Any, column: pa.Array):
    table = engine.register(on_spark, "lacking", pa.table({"value": column}))
    assert table.to_pyarrow()["value"].to_pylist() == column.to_pylist()


def test_an_empty_table_is_registered(connection: Any):
    table = engine.register(connection, "nothing", TILES.slice(0, 0))
    assert table.to_pyarrow().column_names == TILES.column_names
    assert table.count().to_pyarrow().as_py() == 0


def test_a_view_can_be_made_anew(connection: Any):
    tiles = engine.register(connection, "tiles", TILES)
    for least in (0, 20):
        view = engine.create_view(connection, "again", tiles.filter(tiles.x >= least))
        assert view.count().to_pyarrow().as_py() == len(SHARES) - least


@pytest.mark.parametrize("name", ["a[1].parquet", "{b}.parquet", "c *.parquet", "100 %20.parquet"])
def test_a_file_name_is_no_pattern(connection: Any, tmp_path: Path, name: str):
    with (tmp_path / name).open("wb") as file:
        pq.write_table(TILES, file)
    pq.write_table(TILES, tmp_path / "c other.parquet")
    assert rows(engine.read_parquet(connection, [tmp_path / name])) == rows_of(TILES)


def rows_of(table: pa.Table) -> list[tuple]:
    return sorted((tuple(row.values()) for row in table.to_pylist()), key=repr)


def test_folders_types_and_unicode_mean_the_same_on_both_engines(connection: Any, tmp_path: Path):
    """Slides 01 and 1 stay two, a letter is one character, a folder above the artifact is a name.

    Of the two files one holds the narrower integers, and lacks a column that no rule reads.
    """
    root = tmp_path / "fold=9" / "a b"
    slides = {"slide_id=01.a+": "01", "slide_id=1": "1", "slide_id=u%CC%88%2F": "\u00fc/"}
    for number, folder in enumerate(slides):
        (root / folder).mkdir(parents=True)
        kind = pa.int32() if number else pa.int64()
        table = pa.table({"x": pa.array([number], kind), "y": pa.array([0], kind), "fold": [1]})
        if number == 2:
            table = table.append_column("organ", pa.array(["skin"]))
        pq.write_table(table, root / folder / "part.parquet")
    with pytest.warns(FeatureStoreWarning):
        artifact = dataset(str(root)).stripped("slide_id", ".a+")
        table = checked_table(connection, artifact, "tiles")
    expected = [("01", 0, 0, 1, None), ("1", 1, 0, 1, None), ("\u00fc/", 2, 0, 1, "skin")]
    assert rows(table.select(*KEY, "fold", "organ")) == expected


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.decimal128(6, 4)], ids=str)
def test_an_absent_coverage_is_zero_on_both_engines(
    connection: Any, kind: pa.DataType, tmp_path: Path
):
    """As plain SQL says it (tests/sql/absent.sql), in the type that the column has elsewhere."""
    for number, left_out in enumerate(NAMES):
        columns = {k: v[:3] if k != "slide_id" else [f"s{number}"] * 3 for k, v in KEYS.items()}
        columns |= {f"roi_coverage_{name}": pa.array([0.5, 0.0, 0.25]).cast(kind)
                    for name in NAMES if name != left_out}  # fmt: skip
        pq.write_table(pa.table(columns), tmp_path / f"{number}.parquet")
    artifact = dataset(str(tmp_path))
    with pytest.warns(FeatureStoreWarning, match=r"it is 0\.0 where they lack it"):
        table = checked_table(connection, artifact, "tiles", ReadOptions(absent_coverage="zero"))
    files = [str(file) for file in artifact.files]
    text = (ROOT / "tests" / "sql" / "absent.sql").read_text()
    expected = engine.connect(threads=1).con.execute(text, {"files": files}).fetchall()
    assert rows(table) == sorted(expected, key=repr)
    types = {dtype for name, dtype in table.schema().items() if name not in KEY}
    assert types == {PyArrowType.to_ibis(kind)}


def test_a_file_that_spark_would_pass_over_is_refused(on_spark: Any, tmp_path: Path):
    pq.write_table(TILES, tmp_path / "_tiles.parquet")
    with pytest.raises(ArtifactError, match="begin with _"):
        engine.read_parquet(on_spark, [tmp_path / "_tiles.parquet"])


def test_a_parquet_type_that_spark_lacks_is_named(on_spark: Any, tmp_path: Path):
    column = pa.array([[0.5]], pa.list_(pa.float16()))
    pq.write_table(pa.table({"embedding": column}), tmp_path / "half.parquet")
    with pytest.raises(QueryError, match="FLOAT16"):
        engine.read_parquet(on_spark, [tmp_path / "half.parquet"])


def test_spark_reads_predictions_with_the_very_names_of_the_slides(on_spark: Any, tmp_path: Path):
    names = ["001", "01", "1", "A", "__HIVE_DEFAULT_PARTITION__", "a"]
    slides = pa.table({"slide_id": names, "tiles": [1] * 6, "labelled": [0] * 6})
    tiles = pa.table({"slide_id": range(6), "x": [0] * 6, "y": [0] * 6,
                      "target": pa.nulls(6, pa.int64())})  # fmt: skip
    out = PredictionWriter(tmp_path / "predictions", PredictionSet(slides, 1, {}), ["Fat"])
    out.add(tiles, np.ones((6, 1), dtype=np.float32))
    out.close()
    predicted = on_spark.session.read.parquet(f"file://{tmp_path}/predictions").toArrow()
    assert sorted(predicted["slide_id"].to_pylist()) == names


def test_a_session_that_is_there_keeps_its_settings_and_views(spark: Any):
    """Stores work beside it: under its settings, with views of their own."""
    spark.conf.set("spark.sql.files.maxPartitionBytes", "7654321")
    spark.createDataFrame([(1,)], ["a"])  # work in it makes it the active one
    one, other = (engine.connect(engine="pyspark") for _ in range(2))
    assert one.session.conf.get("spark.sql.files.maxPartitionBytes") == "7654321"
    assert one.session.sparkContext is spark.sparkContext
    engine.register(one, "mine", TILES)
    assert engine.columns(other) == []
    assert spark.catalog.tableExists("mine") is False


def test_spark_of_our_own_is_quiet_and_local(spark: Any):
    conf = spark.sparkContext.getConf()
    assert spark.sparkContext.master == "local[2]"
    assert conf.get("spark.ui.enabled") == "false"
    assert conf.get("spark.ui.showConsoleProgress") == "false"


def test_without_pyspark_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    with pytest.raises(QueryError, match=r"pip install 'tissue-probe\[spark\]'"):
        engine.connect(engine="pyspark")


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )


def test_duckdb_pays_nothing_for_spark():
    code = "import sys; from featurestore.backend import engine; engine.connect(); print('pyspark' in sys.modules)"  # noqa: E501
    assert python(code).stdout == "False\n"


def test_without_java_spark_is_refused_in_words():
    code = """
from featurestore import errors
from featurestore.backend import engine
try:
    engine.connect(engine="pyspark")
except errors.QueryError as refusal:
    print(refusal)
"""
    output = python(code, JAVA_HOME="/nowhere").stdout
    assert "Spark does not start" in output
    assert "Java 17" in output


def test_the_environment_names_the_cluster():
    """MASTER is read by Spark itself; its bars stay, as nothing else is set for it."""
    code = """
from featurestore.backend import engine
context = engine.connect(threads=2, engine="pyspark").session.sparkContext
print(context.master, context.getConf().get("spark.ui.showConsoleProgress"))
context.stop()
"""
    named = {"PATH": "/usr/bin:/bin", "MASTER": "local[1]", "SPARK_SUBMIT_OPTS": JAVA}
    assert python(code, **named).stdout == "local[1] true\n"


def test_common_keys_are_those_that_all_tables_have(connection: Any):
    tables = [
        engine.register(connection, f"keys_{lacking}", pa.table(KEYS).filter(pa.array(
            [n != lacking for n in NUMBERS]
        )))
        for lacking in (3, 5, 8)
    ]  # fmt: skip
    rows = common_keys(tables, KEY).to_pyarrow().sort_by([(name, "ascending") for name in KEY])
    expected = pa.table(KEYS).filter(pa.array([n not in (3, 5, 8) for n in NUMBERS]))
    expected = expected.select(KEY).sort_by([(name, "ascending") for name in KEY])
    assert rows.to_pylist() == expected.to_pylist()
