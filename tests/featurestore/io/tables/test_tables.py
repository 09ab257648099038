"""Tables that deltalake and pyiceberg have written: read as they read them, or refused."""

import json
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore, StoreSpec
from featurestore.errors import ArtifactError, FeatureStoreWarning
from featurestore.io.names import resolved_once
from featurestore.io.parquet import dataset
from featurestore.snapshots.build import materialise

SLIDES = ["S é", "a/b", "%20", "a+b"]
TILES = pa.table(
    {
        "slide_id": SLIDES * 2,
        "x": range(8),
        "y": [0] * 8,
        "roi_coverage_Fat": [1.0, 0.0] * 4,
        "roi_coverage_Muscle": [0.0, 1.0] * 4,
        "fold": [0, 1, 1, 0] * 2,
    }
)
VECTORS = TILES.select(["slide_id", "x", "y"]).append_column(
    "embedding", pa.array([[float(x), 1.0] for x in range(8)], pa.list_(pa.float32()))
)
RULES = {"class_indices": {"Fat": 0, "Muscle": 1}, "thresholds": {"Fat": 0.5, "Muscle": 0.5}}


class Delta:
    """A table of Delta Lake, as its own library writes and reads it."""

    log = "_delta_log"

    def __init__(self, place: Path, rows: pa.Table, by: str | None = None) -> None:
        self.deltalake = pytest.importorskip("deltalake", reason="the extra delta")
        self.place = place
        self.deltalake.write_deltalake(place, rows, partition_by=by)

    @property
    def table(self) -> Any:
        return self.deltalake.DeltaTable(self.place)

    def append(self, rows: pa.Table) -> None:
        self.deltalake.write_deltalake(self.place, rows, mode="append", schema_mode="merge")

    def overwrite(self, rows: pa.Table) -> None:
        self.deltalake.write_deltalake(self.place, rows, mode="overwrite")

    def delete(self, condition: str) -> None:
        self.table.delete(condition)

    def version(self) -> int:
        return self.table.version()

    def rows(self) -> pa.Table:
        return self.table.to_pyarrow_table()


class Iceberg:
    """A table of Iceberg, as its own library writes and reads it through a catalog."""

    log = "metadata"

    def __init__(self, place: Path, rows: pa.Table, by: str | None = None) -> None:
        pytest.importorskip("pyiceberg", reason="the extra iceberg")
        from pyiceberg.catalog.sql import SqlCatalog

        self.place = place
        place.parent.mkdir(parents=True, exist_ok=True)
        catalog = SqlCatalog("c", uri=f"sqlite:///{place}.db", warehouse=place.parent.as_uri())
        catalog.create_namespace("n")
        self.table = catalog.create_table("n.t", rows.schema, location=str(place))
        if by:
            with self.table.update_spec() as spec:
                spec.add_identity(by)
        self.table.append(rows)

    def append(self, rows: pa.Table) -> None:
        self.table.append(rows)

    def overwrite(self, rows: pa.Table) -> None:
        self.table.overwrite(rows)

    def delete(self, condition: str) -> None:
        self.table.delete(condition)

    def version(self) -> int:
        return self.table.current_snapshot().snapshot_id

    def rows(self) -> pa.Table:
        return self.table.scan().to_arrow()


FORMATS = pytest.mark.parametrize("make", [Delta, Iceberg], ids=["delta", "iceberg"])
Make = Callable[..., Delta | Iceberg]


def read(uri: Path | str) -> pa.Table:
    """Return an artifact's rows as the store reads them."""
    rows = FeatureStore(StoreSpec(tiles=str(uri), **RULES), threads=1).table("tiles")
    return alike(rows.select(*TILES.column_names).to_pyarrow())


def alike(rows: pa.Table) -> pa.Table:
    """Return rows in one order and in the types of `TILES`."""
    return rows.select(TILES.column_names).cast(TILES.schema).sort_by("x").combine_chunks()


@pytest.mark.slow
@FORMATS
@pytest.mark.parametrize("by", [None, "slide_id", "fold"])
def test_a_table_is_read_as_its_own_library_reads_it(make: Make, by: str | None, tmp_path: Path):
    """What was deleted or replaced does not come back, whatever files still lie there."""
    table = make(tmp_path / "t", TILES.slice(0, 5), by)
    table.append(TILES.slice(5))
    assert read(tmp_path / "t") == TILES == alike(table.rows())
    first = table.version()
    table.delete("x = 2 or x = 7")
    kept = TILES.filter(pc.invert(pc.is_in(TILES["x"], pa.array([2, 7]))))
    assert read(tmp_path / "t") == kept == alike(table.rows())
    table.overwrite(TILES.slice(0, 3))
    assert read(tmp_path / "t") == TILES.slice(0, 3) == alike(table.rows())
    files = [path for path in (tmp_path / "t").rglob("*.parquet") if path.is_file()]
    assert len(dataset(str(tmp_path / "t")).fragments) < len(files)
    assert read(f"{tmp_path}/t@v{first}") == TILES


@FORMATS
def test_the_version_is_part_of_what_is_recorded(make: Make, tmp_path: Path):
    """The same rows in two versions are two artifacts, each recorded by a URI that names it."""
    table = make(tmp_path / "t", TILES)
    digests = []
    for _ in range(2):
        store = FeatureStore(StoreSpec(tiles=str(tmp_path / "t"), **RULES), threads=1)
        store.view("tiles")
        uri, digest = store.sources.digests()["tiles"]
        assert uri == f"{tmp_path}/t@v{table.version()}"
        digests.append(digest)
        assert dataset(uri).named.keys() == store.sources.dataset("tiles").named.keys()
        table.overwrite(TILES)
    assert len(set(digests)) == 2


@FORMATS
def test_a_command_reads_one_version_whatever_is_written_meanwhile(make: Make, tmp_path: Path):
    table = make(tmp_path / "t", TILES)
    with resolved_once():
        before = dataset(str(tmp_path / "t"))
        table.append(TILES)
        assert dataset(str(tmp_path / "t")).uri == before.uri
    assert dataset(str(tmp_path / "t")).uri != before.uri


@pytest.mark.slow
@FORMATS
def test_tables_go_all_the_way_to_a_snapshot(make: Make, tmp_path: Path):
    """Tiles and embeddings, both partitioned by slide, one row deleted on either side."""
    tiles = make(tmp_path / "tiles", TILES, "slide_id")
    vectors = make(tmp_path / "embeddings", VECTORS, "slide_id")
    tiles.delete("x = 2")
    vectors.delete("x = 3")
    spec = StoreSpec(str(tmp_path / "tiles"), embeddings=str(tmp_path / "embeddings"), **RULES)
    with pytest.warns(FeatureStoreWarning, match="without an embedding|of no tile"):
        made = materialise(FeatureStore(spec, threads=1))
    kept = made.fold_set()
    rows = kept.keys.sort_by("x")
    assert rows["x"].to_pylist() == [0, 1, 4, 5, 6, 7]
    values = kept.matrix.read_rows(rows["row"].to_numpy())
    assert values.tolist() == [[float(x), 1.0] for x in rows["x"].to_pylist()]


@FORMATS
def test_a_column_that_was_added_later_is_null_before(make: Make, tmp_path: Path):
    table = make(tmp_path / "t", TILES.slice(0, 4))
    later = TILES.slice(4).append_column("organ", pa.array(["skin"] * 4))
    if isinstance(table, Iceberg):
        with table.table.update_schema() as schema:
            schema.union_by_name(later.schema)
    table.append(later)
    with pytest.warns(FeatureStoreWarning, match="'organ' alike: it is null"):
        store = FeatureStore(StoreSpec(tiles=str(tmp_path / "t"), **RULES), threads=1)
        rows = store.view("tiles").order_by("x").to_pyarrow()
    assert rows["organ"].to_pylist() == [None] * 4 + ["skin"] * 4


@FORMATS
def test_a_table_that_was_moved_is_read_where_it_lies(make: Make, tmp_path: Path):
    """Iceberg records whole paths: a download lies elsewhere."""
    make(tmp_path / "t", TILES, "fold")
    (tmp_path / "t").rename(tmp_path / "moved")
    assert read(tmp_path / "moved") == TILES


# -- what is refused ------------------------------------------------------------------------------


@FORMATS
def test_a_part_of_a_table_is_refused_and_the_table_named(make: Make, tmp_path: Path):
    make(tmp_path / "t", TILES, "fold")
    part = next((tmp_path / "t").rglob("*.parquet"))
    for uri in (part, part.parent, f"{tmp_path}/t/**/*.parquet"):
        with pytest.raises(ArtifactError, match=f"name the table itself: {tmp_path}/t"):
            dataset(str(uri))


@FORMATS
def test_a_version_that_is_not_there_is_refused(make: Make, tmp_path: Path):
    table = make(tmp_path / "t", TILES)
    with pytest.raises(ArtifactError, match=r"has no version 77") as refusal:
        dataset(f"{tmp_path}/t@v77")
    assert str(table.version()) in refusal.value.found
    pq.write_table(TILES, tmp_path / "t.parquet")
    with pytest.raises(ArtifactError, match="no table that has versions"):
        dataset(f"{tmp_path}/t.parquet@v0")


@FORMATS
def test_a_file_that_was_vacuumed_is_refused(make: Make, tmp_path: Path):
    table = make(tmp_path / "t", TILES)
    first, old = table.version(), dataset(str(tmp_path / "t")).files[0]
    table.overwrite(TILES)
    old.unlink()
    assert read(tmp_path / "t") == TILES
    with pytest.raises(ArtifactError, match="is not there"):
        dataset(f"{tmp_path}/t@v{first}")


@FORMATS
def test_a_damaged_log_is_refused(make: Make, tmp_path: Path):
    table = make(tmp_path / "t", TILES)
    for file in (tmp_path / "t" / table.log).iterdir():
        file.write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match=r"log of the table .* cannot be read"):
        dataset(str(tmp_path / "t"))


@FORMATS
def test_a_table_without_rows_is_refused(make: Make, tmp_path: Path):
    table = make(tmp_path / "t", TILES)
    table.delete("x >= 0")
    with pytest.raises(ArtifactError, match="has no row"):
        dataset(str(tmp_path / "t"))


@pytest.mark.parametrize(("make", "package"), [(Delta, "deltalake"), (Iceberg, "pyiceberg")])
def test_without_its_library_a_table_is_refused_with_what_to_install(
    make: Make, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    make(tmp_path / "t", TILES)
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    extra = {"deltalake": "delta", "pyiceberg": "iceberg"}[package]
    with pytest.raises(ArtifactError, match=rf"pip install 'tissue-probe\[{extra}\]'"):
        dataset(str(tmp_path / "t"))


def commit(table: Path, *actions: dict[str, Any]) -> None:
    """Append a version to the log of a table of Delta Lake."""
    log = table / "_delta_log"
    number = len(list(log.glob("*.json")))
    (log / f"{number:020}.json").write_text("\n".join(map(json.dumps, actions)))


def first(table: Path, name: str) -> dict[str, Any]:
    """Return the first action of a name in the log of a table of Delta Lake."""
    log = table / "_delta_log" / f"{0:020}.json"
    return next(of[name] for of in map(json.loads, log.read_text().splitlines()) if name in of)


def protocol(*features: str) -> dict[str, Any]:
    asked = {"readerFeatures": list(features), "writerFeatures": list(features)}
    return {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **asked}}


def vector(row: int) -> dict[str, Any]:
    """Return the deletion vector of one row, within the log, as the protocol writes it."""
    pyroaring = pytest.importorskip("pyroaring")
    data = struct.pack("<iqi", 1681511377, 1, 0) + pyroaring.BitMap([row]).serialize()
    signs = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    text, padded = "", data + b"\0" * (-len(data) % 4)
    for start in range(0, len(padded), 4):
        number = int.from_bytes(padded[start : start + 4], "big")
        text += "".join(signs[number // 85**power % 85] for power in (4, 3, 2, 1, 0))
    return {"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(data), "cardinality": 1}


def test_rows_that_delta_deletes_in_its_log_alone_are_refused(tmp_path: Path):
    Delta(tmp_path / "t", TILES)
    add = first(tmp_path / "t", "add")
    commit(tmp_path / "t", protocol("deletionVectors"))
    assert read(tmp_path / "t") == TILES  # the feature is on, no row is deleted by it
    remove = {"path": add["path"], "deletionTimestamp": 1, "dataChange": True}
    commit(tmp_path / "t", {"remove": remove}, {"add": add | {"deletionVector": vector(1)}})
    with pytest.raises(ArtifactError, match=r"deletion vectors(.|\n)*APPLY \(PURGE\)"):
        dataset(str(tmp_path / "t"))


def test_columns_that_delta_names_in_its_log_alone_are_refused(tmp_path: Path):
    Delta(tmp_path / "t", TILES)
    meta = first(tmp_path / "t", "metaData")
    schema = json.loads(meta["schemaString"])
    for number, column in enumerate(schema["fields"], 1):
        mapped = {"id": number, "physicalName": column["name"]}
        column["metadata"] = {f"delta.columnMapping.{key}": of for key, of in mapped.items()}
    meta["schemaString"] = json.dumps(schema)
    meta["configuration"] = {"delta.columnMapping.mode": "name"}
    commit(tmp_path / "t", protocol("columnMapping"), {"metaData": meta})
    with pytest.raises(ArtifactError, match="column mapping by name"):
        dataset(str(tmp_path / "t"))


def test_a_feature_of_delta_that_is_not_known_is_refused(tmp_path: Path):
    Delta(tmp_path / "t", TILES)
    commit(tmp_path / "t", protocol("somethingNew"))
    with pytest.raises(ArtifactError, match="somethingNew"):
        dataset(str(tmp_path / "t"))


@pytest.mark.parametrize("content", ["POSITION_DELETES", "EQUALITY_DELETES"])
def test_rows_that_iceberg_deletes_in_files_of_their_own_are_refused(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """pyiceberg writes no such files; its writer of manifests is told that it does."""
    table = Iceberg(tmp_path / "t", TILES).table
    from pyiceberg.manifest import (
        DataFile,
        DataFileContent,
        FileFormat,
        ManifestContent,
        ManifestWriterV2,
    )
    from pyiceberg.typedef import Record

    path = str(tmp_path / "t" / "data" / "deletes.parquet")
    target = dataset(str(tmp_path / "t")).files[0]
    pq.write_table(pa.table({"file_path": [str(target)], "pos": [1]}), path)
    deletes = DataFile.from_args(
        content=DataFileContent[content], file_path=path, file_format=FileFormat.PARQUET,
        partition=Record(), record_count=1, file_size_in_bytes=Path(path).stat().st_size,
        equality_ids=[2] if content == "EQUALITY_DELETES" else None,
    )  # fmt: skip
    deletes.spec_id = 0
    with monkeypatch.context() as patch:
        patch.setattr(ManifestWriterV2, "content", lambda _: ManifestContent.DELETES)
        with table.transaction() as work, work.update_snapshot().fast_append() as append:
            append.append_data_file(deletes)
    words = "position deletes" if content == "POSITION_DELETES" else "equality deletes"
    with pytest.raises(ArtifactError, match=rf"{words}(.|\n)*rewrite_data_files"):
        dataset(str(tmp_path / "t"))


def test_iceberg_finds_columns_by_their_ids(tmp_path: Path):
    """One that was dropped does not come back, nor under a later column of its name."""
    table = Iceberg(tmp_path / "t", TILES.append_column("organ", pa.array(["skin"] * 8))).table
    from pyiceberg.types import StringType

    with table.update_schema() as schema:
        schema.delete_column("organ")
    assert dataset(str(tmp_path / "t")).columns == TILES.column_names
    with table.update_schema() as schema:
        schema.add_column("organ", StringType())
    assert dataset(str(tmp_path / "t")).columns == TILES.column_names
    with table.update_schema() as schema:
        schema.rename_column("roi_coverage_Fat", "roi_coverage_Tumour")
    with pytest.raises(ArtifactError, match=r"renamed column: .*'roi_coverage_Tumour'"):
        dataset(str(tmp_path / "t"))


def test_of_two_newest_metadata_files_the_catalog_knows_which(tmp_path: Path):
    table = Iceberg(tmp_path / "t", TILES)
    newest = Path(table.table.metadata_location.removeprefix("file://"))
    number = newest.name.partition("-")[0]
    first, *rest = newest.name.partition("-")[2]
    other = "1" if first == "0" else "0"
    shutil.copy(newest, newest.with_name(f"{number}-{other}{''.join(rest)}"))
    with pytest.raises(ArtifactError, match="several newest metadata files"):
        dataset(str(tmp_path / "t"))
    assert read(newest) == TILES
