"""FeatureStore: choosing tiles, rare classes, folds found again, columns that clash,
and where a store may be asked."""

import os
import pickle
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import ibis
import pyarrow.parquet as pq
import pytest
from conftest import TABLES
from ibis.common.exceptions import IbisError

from featurestore import FeatureStore, StoreSpec
from featurestore.errors import FeatureStoreWarning, QueryError, UnknownClassError
from featurestore.folds import artifact
from featurestore.io import digests, mlflow_artifacts
from featurestore.io.mlflow_artifacts import use_tracking
from featurestore.io.uris import local_path
from featurestore.snapshots.build import materialise
from featurestore.spec.literals import Strategy

RULES = {"class_indices": {"Fat": 1, "Muscle": 0}, "thresholds": {"Fat": 0.5, "Muscle": 0.5}}


def spec(named: dict[str, str], **rules: object) -> StoreSpec:
    places = {key.removeprefix("data."): value for key, value in named.items()}
    return StoreSpec(**{**RULES, **places, **rules})  # type: ignore[arg-type]


@pytest.mark.slow
def test_fit_set_names_target_and_split_in_the_order_of_keys(artifacts: TABLES):
    tiles = materialise(FeatureStore(spec(artifacts()))).fit_set(1)
    assert tiles.keys.column_names == ["slide_id", "x", "y", "target", "split", "row"]
    assert tiles.keys["x"].to_pylist() == list(range(12))
    assert tiles.keys["target"].to_pylist() == [0, 1] * 6
    assert tiles.keys["split"].to_pylist() == ["train"] * 6 + ["validation"] * 6
    assert tiles.matrix.dim == 3


def test_rare_class_is_dropped_with_a_warning_that_names_it(artifacts: TABLES):
    share = [0.8 if n != 4 else 0.0 for n in range(12)]
    named = artifacts(
        {"fold": None, "roi_coverage_Fat": [0.9 if n == 4 else 0.0 for n in range(12)],
         "roi_coverage_Muscle": share}
    )  # fmt: skip
    store = FeatureStore(spec(named, k=2))
    with pytest.warns(FeatureStoreWarning, match="'Fat' is in 1 of the 2 groups"):
        funnel = {row["reason"]: row["tiles"] for row in store.funnel()}
    assert (funnel["rare_class"], funnel["kept"]) == (1, 11)


@pytest.mark.slow
def test_assigned_folds_are_logged_once_and_found_again(artifacts: TABLES, tmp_path):
    use_tracking(f"sqlite:///{tmp_path / 'mlflow.db'}")
    wanted = spec(artifacts({"fold": None}), k=3)
    first = FeatureStore(wanted, remember=True)
    uri = materialise(first).keep_folds()
    shutil.rmtree(".featurestore")  # another machine
    again = FeatureStore(wanted, remember=True)
    assert again.assignment.table == first.assignment.table == pq.read_table(local_path(uri))
    assert materialise(again).keep_folds() == uri
    other = FeatureStore(replace(wanted, seed=1), remember=True)
    assert materialise(other).keep_folds() != uri


@pytest.mark.slow
@pytest.mark.parametrize("method", [1, 2])
@pytest.mark.parametrize("strategy", ["stratified", "stratified_group"])
def test_folds_that_an_earlier_version_has_logged_are_read(
    method: int, strategy: Strategy, artifacts: TABLES, tmp_path: Path
):
    """Tile by tile; groups by a method that has changed are for the replay of their run alone."""
    use_tracking(f"sqlite:///{tmp_path / 'mlflow.db'}")
    wanted = spec(artifacts({"fold": None}), k=2, kfold_strategy=strategy)
    kept = materialise(FeatureStore(wanted)).fates().order_by("slide_id", "x").to_pyarrow()
    turned = [1 - fold for fold in kept["fold"].to_pylist()]
    table = kept.select(["slide_id", "x", "y"]).append_column("fold", [turned])
    tiles = digests.digest(FeatureStore(wanted).sources.dataset("tiles").named)
    root = mlflow_artifacts.logged(
        artifact.NAME,
        artifact.content(wanted, tiles, method),
        lambda folder: pq.write_table(table, folder / artifact.FILE),
    )
    shutil.rmtree(".featurestore")

    def folds(*logged: str) -> list[int]:
        store = FeatureStore(wanted, remember=True, folds=logged)
        return materialise(store).fates().order_by("slide_id", "x").to_pyarrow()["fold"].to_pylist()

    assert folds(f"{root}/{artifact.FILE}") == turned
    is_found = strategy == "stratified" or method == artifact.METHOD
    assert (folds() == turned) == is_found


def test_columns_that_the_views_make_are_not_taken_from_the_tiles(artifacts: TABLES):
    store = FeatureStore(spec(artifacts({"label": ["wrong"] * 12, "organ": ["colon"] * 12})))
    with pytest.warns(FeatureStoreWarning, match="label"):
        labels = store.view("labels").to_pyarrow()
    assert set(labels["label"].to_pylist()) == {"Fat", "Muscle"}
    assert set(labels["organ"].to_pylist()) == {"colon"}


def test_order_of_columns_breaks_ties_not_the_order_of_indices(artifacts: TABLES):
    half = {"roi_coverage_Fat": [0.5] * 12, "roi_coverage_Muscle": [0.5] * 12}
    store = FeatureStore(spec(artifacts(half), single_class=False))
    assert set(store.view("labels").to_pyarrow()["label"].to_pylist()) == {"Fat"}


def test_tiles_of_a_test_cohort_must_have_the_same_classes(artifacts: TABLES, tmp_path):
    named = artifacts()
    table = pq.read_table(named["data.tiles"])
    pq.write_table(table.drop_columns(["roi_coverage_Fat"]), tmp_path / "test.parquet")
    with pytest.raises(UnknownClassError, match="'Fat'"):
        materialise(FeatureStore(replace(spec(named), test_tiles=str(tmp_path / "test.parquet"))))
    assert not list(tmp_path.rglob("*.npy"))


def test_views_are_lazy_and_named_for_sql(artifacts: TABLES):
    store = FeatureStore(spec(artifacts()))
    with warnings.catch_warnings():
        warnings.simplefilter("error", FeatureStoreWarning)
        names = [name for name, _ in store.name_views()]
    assert {"tiles", "labels", "coverages", "thresholds", "folds", "fates", "funnel", "embeddings",
            "classes"} <= set(names)  # fmt: skip
    kept = store.sql("select fold, count(*) as n from fates where dropped_by is null group by fold")
    assert sorted(kept.to_pyarrow().to_pylist(), key=lambda r: r["fold"]) == [
        {"fold": 0, "n": 6}, {"fold": 1, "n": 6},
    ]  # fmt: skip


def test_tables_of_two_stores_are_never_taken_for_each_other(artifacts: TABLES):
    """Their views bear the same names: Ibis refuses to join them, and takes their rows."""
    strict = {"thresholds": {"Fat": 0.85, "Muscle": 0.85}}
    one, other = FeatureStore(spec(artifacts())), FeatureStore(spec(artifacts(), **strict))
    kept = [table.filter(table.dropped_by.isnull()) for table in (one["fates"], other["fates"])]
    key = ["slide_id", "x", "y"]
    with pytest.raises(IbisError, match="Multiple backends"):
        kept[0].anti_join(kept[1], key).count().execute()
    rows = ibis.memtable(kept[1].select(key).to_pyarrow())
    assert kept[0].anti_join(rows, key).x.to_pyarrow().to_pylist() == [0, 2, 4, 6, 8, 10]


def test_a_store_belongs_to_the_thread_and_process_that_opened_it(
    artifacts: TABLES, monkeypatch: pytest.MonkeyPatch
):
    """Engines hang elsewhere; a store is opened there, of the same spec."""
    store = FeatureStore(spec(artifacts()))
    count = store["fates"].count().execute()
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(QueryError, match="the thread that opened it"):
            pool.submit(store.sql, "select 1").result()
        own = pool.submit(lambda: FeatureStore(store.spec)["fates"].count().execute())
        assert own.result() == count
    with pytest.raises(QueryError, match=r"send store\.spec"):
        pickle.dumps(store)
    assert pickle.loads(pickle.dumps(store.spec)) == store.spec
    monkeypatch.setattr(os, "getpid", lambda: -1)  # as in a process that was forked
    with pytest.raises(QueryError, match="process -1"):
        store.view("fates")


def test_a_store_whose_engine_was_closed_is_to_be_opened_again(artifacts: TABLES):
    store = FeatureStore(spec(artifacts()))
    store.connection.disconnect()
    with pytest.raises(QueryError, match=r"FeatureStore\(store\.spec\)"):
        store.sql("select 1")
