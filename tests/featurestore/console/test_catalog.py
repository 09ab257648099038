"""The catalog: a DuckDB file of views that any client opens, and a view in a notebook."""

import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from conftest import CLASSES, TABLES
from programs import fork_server

from featurestore import FeatureStore, StoreSpec
from featurestore.console import catalog
from featurestore.errors import ArtifactError

READ = """
import sys, duckdb
con = duckdb.connect(sys.argv[1], read_only=True)
for _ in range(20):
    n, = con.sql("select count(*) from fates where dropped_by is null").fetchone()
    assert n == 12, n
"""


@pytest.fixture
def store(artifacts: TABLES) -> FeatureStore:
    places = {key.removeprefix("data."): value for key, value in artifacts().items()}
    return FeatureStore(StoreSpec(**{**CLASSES, **places}))


@pytest.mark.slow
def test_a_plain_client_reads_what_the_store_reads(store: FeatureStore, tmp_path: Path):
    names = catalog.write(store, tmp_path / "feature_views.duckdb").views
    with duckdb.connect(str(tmp_path / "feature_views.duckdb"), read_only=True) as con:
        views = {
            row[0]
            for row in con.sql("select view_name from duckdb_views() where not internal").fetchall()
        }
        assert views == set(names) >= {"fates", "funnel", "labels", "coverages", "classes"}
        for name in names:
            ours = store.sql(f"select * from {name} order by all").to_pyarrow()
            assert con.sql(f"select * from {name} order by all").to_arrow_table() == ours.cast(
                con.sql(f"select * from {name} limit 0").to_arrow_table().schema
            )


def test_every_view_and_column_is_documented(store: FeatureStore, tmp_path: Path):
    catalog.write(store, tmp_path / "v.duckdb")
    with duckdb.connect(str(tmp_path / "v.duckdb"), read_only=True) as con:
        views = con.sql(
            "select view_name, comment from duckdb_views() where not internal"
        ).fetchall()
        columns = con.sql(
            "select table_name, column_name, comment from duckdb_columns() where not internal"
        ).fetchall()
    assert all("Grain: one row per" in comment for _, comment in views)
    assert all(comment for *_, comment in columns)
    said = {(view, column): comment for view, column, comment in columns}
    assert said["fates", "roi_coverage_Fat"] == "share of the tile that Fat covers, in [0, 1]"
    assert {view for view, _ in said} == {view for view, _ in views}


def test_it_holds_no_data(store: FeatureStore, tmp_path: Path):
    """Its views read the Parquet files at the time of the question."""
    import pyarrow.parquet as pq

    catalog.write(store, tmp_path / "v.duckdb")
    tiles = tmp_path / "in" / "tiles.parquet"
    pq.write_table(pq.read_table(tiles).slice(0, 5), tiles)
    with duckdb.connect(str(tmp_path / "v.duckdb"), read_only=True) as con:
        assert con.sql("select count(*) from duckdb_tables() where not internal").fetchone() == (0,)
        assert con.sql("select count(*) from fates").fetchone() == (5,)
    assert (tmp_path / "v.duckdb").stat().st_size < 2**20


def build(spec: StoreSpec, path: Path) -> None:
    for _ in range(5):
        catalog.write(FeatureStore(spec), path)


@pytest.mark.slow
def test_several_readers_at_once_while_another_process_builds(store: FeatureStore, tmp_path: Path):
    path = tmp_path / "v.duckdb"
    catalog.write(store, path)
    builder = fork_server().Process(target=build, args=(store.spec, path))
    builder.start()
    readers = [subprocess.Popen([sys.executable, "-c", READ, str(path)]) for _ in range(3)]
    assert [reader.wait() for reader in readers] == [0, 0, 0]
    builder.join()
    assert builder.exitcode == 0
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".building")] == []


def test_a_place_that_cannot_be_written(store: FeatureStore, tmp_path: Path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ArtifactError, match="could not be written"):
        catalog.write(store, tmp_path / "taken" / "v.duckdb")


def test_neither_an_artifact_nor_a_strange_file_is_replaced(store: FeatureStore, tmp_path: Path):
    tiles = tmp_path / "in" / "tiles.parquet"
    (tmp_path / "notes.txt").write_text("by hand")
    before = tiles.read_bytes()
    for path, wrong in [
        (tiles, "artifacts that are asked"),
        (tmp_path / "in" / ".." / "in" / "tiles.parquet", "artifacts that are asked"),
        (tmp_path / "notes.txt", "no DuckDB file"),
    ]:
        with pytest.raises(ArtifactError, match=wrong):
            catalog.write(store, path)
    assert tiles.read_bytes() == before
    assert (tmp_path / "notes.txt").read_text() == "by hand"
    assert {p.name for p in tmp_path.iterdir()} == {"in", "notes.txt"}
    catalog.write(store, tmp_path / "v.duckdb")
    assert catalog.write(store, tmp_path / "v.duckdb")


def test_a_notebook_shows_grain_rows_and_sql(store: FeatureStore):
    shown = store["thresholds"]._repr_html_()
    assert "Grain: one row per tile" in shown
    assert shown.count("<tr>") == 1 + 10
    assert "<pre>SELECT" in shown
    assert "s0" in shown
    assert "dropped_by" in repr(store["thresholds"])


def test_a_notebook_never_prints_an_embedding(store: FeatureStore):
    assert "<th>embedding</th>" not in store["embeddings"]._repr_html_()


def test_hostile_names_are_escaped_in_a_notebook(artifacts: TABLES):
    places = {key.removeprefix("data."): value for key, value in artifacts(
        {"slide_id": ["<script>alert(1)</script>"] * 12, "fold": None}).items()}  # fmt: skip
    store = FeatureStore(StoreSpec(**{**CLASSES, **places}))
    shown = store["tiles"]._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
