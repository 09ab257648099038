"""DuckDB and Spark: row for row the same views, and the same as the plain-SQL twins."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT

from featurestore import FeatureStore, StoreSpec, backend
from featurestore.classes import ClassSpec
from featurestore.errors import QueryError
from featurestore.folds import fold_view, shared_groups, split_view
from featurestore.funnel import fate_view, funnel_view
from featurestore.guard import common_view, overlap_view, spread_view, twin_view
from featurestore.labels import coverage_view, label_view
from featurestore.snapshot import materialise
from featurestore.thresholds import threshold_view

pytestmark = pytest.mark.slow
NAMES = ["Connective-Tissue", 'O\'Brien; drop "x" --', "Öl & Fett"]
KEY = ["slide_id", "x", "y"]
SHARES = [
    (0.5, 0.5, 0.0), (0.0, 0.25, 0.25), (0.0, 0.0, 0.0), (0.0, 0.0, 0.25), (0.5, 0.0, 0.0),
    (0.25, 0.0, 0.0), (0.0, 1.0, 0.0), (1 / 1024, 0.0, 0.0), (0.1, 0.2, 0.3), (0.0, 0.0, 0.75),
    (0.0, 0.5, 0.0), (0.75, 0.0, 0.0),
]  # fmt: skip
CLASSES = [ClassSpec(name, index, threshold)
           for name, index, threshold in zip(NAMES, [2, 0, 1], [0.5, 0.0, 0.25], strict=True)]  # fmt: skip
NUMBERS = range(len(SHARES))
KEYS = {"slide_id": [f"s{n % 3}" for n in NUMBERS], "x": list(NUMBERS),
        "y": [n % 2 for n in NUMBERS]}  # fmt: skip
TILES = pa.table(
    KEYS | {f"roi_coverage_{name}": [row[n] for row in SHARES] for n, name in enumerate(NAMES)}
)
ASSIGNED = pa.table(
    KEYS | {"fold": pa.array([None if n == 4 else n % 2 for n in NUMBERS], pa.int64())}
)
EMBEDDED = pa.table(KEYS).filter(pa.array([n != 11 for n in NUMBERS]))
SLIDES = pa.table({"id": ["s0", "s1", "s2"], "tile_extent_x": [4, 1, 7], "tile_extent_y": [2] * 3})
TWIN = {"tissue_prop_min": 0.2, "single_class": False, "a": 0.5, "b": 0.0, "c": 0.25, "fold": 1}


@pytest.fixture(scope="module", params=["duckdb", "pyspark"])
def connection(request: pytest.FixtureRequest) -> Iterator[Any]:
    opened = backend.connect(engine=request.param)
    yield opened


@pytest.fixture(scope="module", autouse=True)
def _stop_spark() -> Iterator[None]:
    yield
    from pyspark.sql import SparkSession

    if (session := SparkSession.getActiveSession()) is not None:
        session.stop()


def views(connection: Any, rule: str = "dominant") -> dict[str, Any]:
    """Build all views on one engine."""
    tiles = backend.register(connection, "tiles", TILES)
    labels = label_view(tiles, CLASSES, rule)  # type: ignore[arg-type]
    thresholds = backend.create_view(
        connection, "thresholds", threshold_view(labels, CLASSES, 0.2, False, rule)  # type: ignore[arg-type]
    )
    folds = fold_view(thresholds, backend.register(connection, "assigned", ASSIGNED))
    there = backend.register(connection, "embeddings", EMBEDDED)
    fates = backend.create_view(connection, "fates", fate_view(folds, there))
    split = split_view(fates, 1)
    slides = backend.register(connection, "slides", SLIDES)
    sides = fates.select(*KEY, side=fates.fold.cast("string"), content=fates.target)
    return {
        "labels": labels.select(*KEY, "tissue_prop", "dominant", "label", "target"),
        "coverages": coverage_view(tiles, CLASSES),
        "thresholds": thresholds.select(*KEY, "dropped_by"),
        "fates": fates.select(*KEY, "fold", "dropped_by"),
        "funnel": funnel_view(fates),
        "split": split.select(*KEY, "split"),
        "shared_groups": shared_groups(split, "slide_id"),
        "spread": spread_view(fates, "slide_id"),
        "common": common_view(fates, fates.filter(fates.x > 8), "slide_id"),
        "overlap": overlap_view(fates, slides),
        "twins": twin_view(sides),
    }


def rows(view: Any) -> list[tuple]:
    return sorted((tuple(row.values()) for row in view.to_pyarrow().to_pylist()), key=repr)


TWINS = ["labels", "coverages", "thresholds", "fates", "funnel", "split", "shared_groups"]
GUARD = ["spread", "common", "overlap", "twins"]


@pytest.mark.parametrize("name", TWINS + GUARD)
def test_views_agree_with_their_sql_twins_on_every_engine(connection: Any, name: str):
    """The twins run on DuckDB: plain SQL, written by hand, is the oracle of both."""
    view = views(connection)[name]
    oracle = backend.connect(threads=1)
    views(oracle)
    text = (ROOT / "tests" / "sql" / f"{name}.sql").read_text()
    used = {key: value for key, value in TWIN.items() if f"${key}" in text}
    expected = sorted(oracle.con.execute(text, used).fetchall(), key=repr)
    assert len(expected) > 0
    assert rows(view) == expected


@pytest.mark.parametrize("rule", ["dominant", "any_passing"])
def test_both_rules_give_the_same_rows_on_both_engines(connection: Any, rule: str):
    here, there = views(connection, rule), views(backend.connect(threads=1), rule)
    for name in here:
        assert rows(here[name]) == rows(there[name]), name


@pytest.fixture
def spec(tmp_path: Path) -> StoreSpec:
    """Return a store over the same tiles; each slide divided over folds by StratifiedKFold."""
    pq.write_table(TILES, tmp_path / "tiles.parquet")
    vectors = pa.FixedSizeListArray.from_arrays(pa.array([float(n) for n in range(24)]), 2)
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

    there = materialise(FeatureStore(replace(spec, backend="pyspark")))
    tiles, manifest = pq.read_table(there.file()), there.manifest
    there.held.lock.close()
    shutil.rmtree(".featurestore")
    here = materialise(FeatureStore(spec))
    assert here.manifest == manifest
    assert pq.read_table(here.file()).equals(tiles)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("drop view fates", ["Only one SELECT", "DROP"]),
        ("select 1; select 2", ["2 statements"]),
        ("create table t as select 1", ["Only one SELECT", "CREATE"]),
        ("select nope from fates", ["Spark could not run", "nope"]),
        ("select 1 +", ["Spark could not run the query"]),
    ],
)
def test_sql_on_spark_takes_one_select(spec: StoreSpec, query: str, words: list[str]):
    with pytest.raises(QueryError) as refusal:
        FeatureStore(replace(spec, backend="pyspark")).sql(query).to_pyarrow()
    for word in words:
        assert word in str(refusal.value)


def test_sql_on_spark_answers(spec: StoreSpec):
    store = FeatureStore(replace(spec, backend="pyspark"))
    answer = store.sql("with kept as (select * from fates where dropped_by is null) "
                       "select count(*) as n from kept").to_pyarrow()  # fmt: skip
    assert answer.to_pylist() == [{"n": FeatureStore(spec).funnel()[-1]["tiles"]}]
