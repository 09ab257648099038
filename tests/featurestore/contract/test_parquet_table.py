"""Artifacts as people have them: any layout says what one well-typed file says, or is refused.

Two readers that share nothing with the product's are the oracle: plain DuckDB on one file with the
same rows, and the rows themselves.
"""

import contextlib
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore import FeatureStore, StoreSpec
from featurestore.embeddings.batches import embedding_batches, read_keys, row_groups
from featurestore.errors import ArtifactError, FeatureStoreError, FeatureStoreWarning
from featurestore.io.parquet import dataset
from featurestore.snapshots.build import materialise
from featurestore.validation import violations
from featurestore.views.leakage import group_counts, groups_in_train_and_test

DIM = 3
SLIDES = ["1", "01", "001", "S é", "a/b", "=", "%20", "__x", "NULL"]
ROOTS = ["plain", "fold=3", "slide_id=7", "roi_coverage_Fat=1", "a b", "it's *[x]?", "run #3"]
SUFFIXES = [".parquet", ".PARQUET", ".pq", ".parq", ".snappy.parquet"]
TEXT = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
INTEGERS = [pa.int64(), pa.int32(), pa.uint16()]
LISTS = [
    pa.list_(pa.float32()), pa.list_(pa.float64()), pa.large_list(pa.float32()),
    pa.list_(pa.float32(), DIM), pa.list_(pa.float16()), pa.list_(pa.int32()),
    pa.fixed_shape_tensor(pa.float32(), [DIM]),
]  # fmt: skip
# Columns that no rule reads, some of them named like those that views and joins make.
OTHERS = ["organ", "embedded", "row", "content", "Label", "SPLIT", "slide_id_embedding", "x_right",
          "fold_value", "embedded_", "Dropped_By", "geometry"]  # fmt: skip
RULES = {"class_indices": {"Fat": 0, "Muscle": 1}, "thresholds": {"Fat": 0.5, "Muscle": 0.25},
         "tissue_prop_min": 0.25}  # fmt: skip
FATES = """
select slide_id, x, y, fold, case
    when fat = 0 and muscle = 0 then 'background'
    when fat + muscle < 0.25 then 'tissue'
    when fat > 0 and muscle > 0 then 'multi_class'
    when fat >= muscle and fat < 0.5 then 'class_threshold'
    when fat < muscle and muscle < 0.25 then 'class_threshold'
    when not embedded then 'no_embedding'
end as dropped_by
from (select *, roi_coverage_Fat as fat, roi_coverage_Muscle as muscle from read_parquet(?))
"""


@dataclass(frozen=True)
class Layout:
    """How the rows of an artifact lie on disk."""

    root: str
    file_of: tuple[int, ...]  # of each row
    partition: str | None  # column that folders give
    places: tuple[str, ...]  # folder of each file, below the root
    suffix: str
    text: pa.DataType
    integer: tuple[pa.DataType, ...]  # of each file
    others: tuple[str, ...]
    leftovers: bool
    linked: bool
    empty: bool
    single: bool
    decomposed: bool  # Unicode's normal form D, as some disks and writers have it


@st.composite
def layouts(draw: Any, rows: int) -> Layout:
    """Draw a layout for some rows."""
    files = draw(st.integers(1, 3))
    place = st.sampled_from(["", "deep", "part.parquet", "Δ"])
    return Layout(
        root=draw(st.sampled_from(ROOTS)),
        file_of=tuple(draw(st.lists(st.integers(0, files - 1), min_size=rows, max_size=rows))),
        partition=draw(st.sampled_from([None, None, "slide_id", "fold", "x"])),
        places=tuple(draw(st.tuples(*[place] * files))),
        suffix=draw(st.sampled_from(SUFFIXES)),
        text=draw(st.sampled_from(TEXT)),
        integer=tuple(draw(st.tuples(*[st.sampled_from(INTEGERS)] * files))),
        others=tuple(draw(st.lists(st.sampled_from(OTHERS), max_size=3, unique=True))),
        leftovers=draw(st.booleans()),
        linked=draw(st.booleans()),
        empty=draw(st.booleans()),
        single=draw(st.booleans()),
        decomposed=draw(st.booleans()),
    )


@st.composite
def cohorts(draw: Any) -> dict[str, Any]:
    """Draw tiles, embeddings of some of them, and how both lie on disk."""
    rows = draw(st.integers(2, 7))
    share = st.integers(0, 8).map(lambda n: n / 8)
    column = lambda kind: draw(st.lists(kind, min_size=rows, max_size=rows))  # noqa: E731
    tiles = {
        "slide_id": column(st.sampled_from(SLIDES)),
        "x": list(range(rows)),
        "y": column(st.integers(0, 3)),
        "roi_coverage_Fat": column(st.sampled_from([0.0, 0.0, 0.25, 0.5, 1.0])),
        "roi_coverage_Muscle": column(share.map(lambda s: s if s in (0, 0.125, 0.25, 1) else 0.0)),
        "fold": column(st.integers(0, 2)),
    }
    tiles["roi_coverage_Fat"][0], tiles["roi_coverage_Muscle"][0] = 1.0, 0.0  # one is kept
    embedded = [True, *column(st.booleans())[1:]]
    return {
        "tiles": tiles,
        "embedded": embedded,
        "coverage": draw(st.sampled_from([pa.float64(), pa.float32()])),
        "list": draw(st.sampled_from(LISTS)),
        "tiles layout": draw(layouts(rows)),
        "embeddings layout": draw(layouts(sum(embedded))),
    }


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Yield an empty folder; hypothesis runs many examples in one test."""
    place = Path(tempfile.mkdtemp())
    try:
        yield place
    finally:
        shutil.rmtree(place)


def scatter(table: pa.Table, layout: Layout, base: Path) -> Path:
    """Write a table as a layout says; return what names the artifact."""
    root = base / layout.root
    root.mkdir(parents=True)
    if layout.decomposed:
        names = [unicodedata.normalize("NFD", name) for name in table["slide_id"].to_pylist()]
        table = table.set_column(0, "slide_id", pa.array(names))
    file_of = np.array(layout.file_of)
    if layout.single:
        file = root / f"all{layout.suffix}"
        pq.write_table(typed(table, layout, 0), file)
        return file
    partition = layout.partition if layout.partition in table.column_names else None
    for number, place in enumerate(layout.places):
        rows = table.filter(pa.array(file_of == number))
        parts = {"": rows}
        if partition:
            parts = {
                f"{partition}={quoted(value)}": rows.filter(
                    pa.array([v == value for v in rows[partition].to_pylist()])
                ).drop_columns([partition])
                for value in dict.fromkeys(rows[partition].to_pylist())
            }
        for name, part in parts.items():
            if len(part):
                target = root / place / name / f"{number}{layout.suffix}"
                target.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(typed(part, layout, number), target)
    if layout.linked and not partition:
        link(root, base / "elsewhere")
    if layout.leftovers:
        litter(root, table)
    if layout.empty and not partition:
        pd.DataFrame({name: [] for name in table.column_names}).astype(object).to_parquet(
            root / "nothing.parquet"
        )
    return root


def quoted(value: object) -> str:
    """Spell a partition's value as Hive does."""
    return "".join(f"%{ord(c):02X}" if c in "/=%" else c for c in str(value))


def typed(table: pa.Table, layout: Layout, number: int) -> pa.Table:
    """Return the types in which a file's writer writes text and whole numbers."""
    for index, field in enumerate(table.schema):
        if field.type == pa.string():
            table = table.set_column(index, field.name, table[index].cast(layout.text))
        elif field.type == pa.int64():
            table = table.set_column(index, field.name, table[index].cast(layout.integer[number]))
    return table


def link(root: Path, target: Path) -> None:
    """Move a folder of the artifact elsewhere, and leave a link."""
    inner = [entry for entry in root.iterdir() if entry.is_dir()]
    if inner:
        inner[0].rename(target)
        inner[0].symlink_to(target)


def litter(root: Path, table: pa.Table) -> None:
    """Leave what file systems, Spark, Jupyter and people leave beside the data."""
    (root / "_temporary" / "0").mkdir(parents=True)
    pq.write_table(table, root / "_temporary" / "0" / "part-0.parquet")
    (root / ".ipynb_checkpoints").mkdir()
    pq.write_table(table, root / ".ipynb_checkpoints" / "0-checkpoint.parquet")
    (root / "._0.parquet").write_bytes(b"\0\5\26\7" * 20)
    (root / "_SUCCESS").touch()
    (root / "notes.txt").write_text("not data")
    pq.write_table(table, root / "0.parquet.bak")
    (root / "up").symlink_to(root)  # a link that leads up


def other(name: str, rows: int) -> pa.Array:
    """Return the values of a column that no rule reads."""
    if name == "geometry":
        return pa.array([b"\1\1\0\0\0" + b"\0" * 16] * rows)
    return pa.array([f"{name} {n}" for n in range(rows)])


def written(cohort: dict[str, Any], base: Path) -> tuple[FeatureStore, Path]:
    """Write a cohort twice: as its layouts say, and as one well-typed file for the oracle."""
    truth = pa.table(cohort["tiles"])
    embedded = pa.array(cohort["embedded"])
    pq.write_table(truth.append_column("embedded", embedded), base / "truth.parquet")
    tiles = truth
    for index, name in enumerate(tiles.column_names):
        if name.startswith("roi_coverage_"):
            tiles = tiles.set_column(index, name, tiles[name].cast(cohort["coverage"]))
    for name in cohort["tiles layout"].others:
        tiles = tiles.append_column(name, other(name, len(tiles)))
    keys = truth.select(["slide_id", "x", "y"]).filter(embedded)
    vectors = keys.append_column("embedding", lists(keys, cohort["list"]))
    places = [
        scatter(tiles, cohort["tiles layout"], base / "t"),
        scatter(vectors, cohort["embeddings layout"], base / "e"),
    ]
    spec = StoreSpec(tiles=str(places[0]), embeddings=str(places[1]), **RULES)
    return FeatureStore(spec, threads=1), base / "truth.parquet"


def lists(keys: pa.Table, kind: pa.DataType) -> pa.Array:
    """Return an embedding for each key that tells which key it is of."""
    values = [
        vector(x, y) for x, y in zip(keys["x"].to_pylist(), keys["y"].to_pylist(), strict=True)
    ]
    if isinstance(kind, pa.FixedShapeTensorType):
        flat = pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(values), pa.float32()), DIM)
        return pa.ExtensionArray.from_storage(kind, flat)
    if pa.types.is_float16(kind.value_type):
        return pa.array([np.array(value, np.float16) for value in values], kind)
    return pa.array(values, kind)


def vector(x: int, y: int) -> list[int]:
    return [x, y, x + y]


def compare(cohort: dict[str, Any], base: Path, views: bool = True) -> None:
    """Hold the product's rows, fates, folds and embeddings to the oracle's."""
    store, truth = written(cohort, base)
    rows = [tuple(row.values()) for row in pa.table(cohort["tiles"]).to_pylist()]
    names = list(cohort["tiles"])
    assert unordered(store.table("tiles").select(*names)) == sorted(rows, key=repr)
    embeddings = store.sources.dataset("embeddings")
    keys = [tuple(row.values()) for row in read_keys(embeddings.filled).to_pylist()]
    embedded = zip(rows, cohort["embedded"], strict=True)
    assert sorted(keys) == sorted(row[:3] for row, has_embedding in embedded if has_embedding)
    vectors = [
        row.as_py()
        for piece in row_groups(embeddings.filled)
        for batch in embedding_batches(piece, DIM)
        for row in batch
    ]
    assert vectors == [vector(x, y) for _, x, y in keys]
    if views:
        expected = duckdb.sql(FATES, params=[str(truth)]).fetchall()
        fates = store.view("fates").select("slide_id", "x", "y", "fold", "dropped_by")
        assert unordered(fates) == sorted(expected, key=repr)


def unordered(table: Any) -> list[tuple]:
    return sorted((tuple(row.values()) for row in table.to_pyarrow().to_pylist()), key=repr)


CHECKED = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::featurestore.errors.FeatureStoreWarning")
@settings(CHECKED, max_examples=20)
@given(cohorts())
def test_any_layout_says_what_one_file_says(cohort: dict[str, Any]):
    with folder() as base:
        compare(cohort, base)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::featurestore.errors.FeatureStoreWarning")
@settings(CHECKED, max_examples=80)
@given(cohorts(), st.integers(0, 7).map(lambda number: number == 0))
def test_many_artifacts_say_what_one_file_says(cohort: dict[str, Any], views: bool):
    """Tiles and embeddings of eighty cohorts; of some the fates as well, which cost more."""
    with folder() as base:
        compare(cohort, base, views)


# -- what has no one meaning is refused -----------------------------------------------------------

TILES = pa.table(
    {
        "slide_id": ["s0", "s0", "s1", "s1"],
        "x": [0, 1, 2, 3],
        "y": [0] * 4,
        "roi_coverage_Fat": [1.0, 0.0, 1.0, 0.0],
        "roi_coverage_Muscle": [0.0, 1.0, 0.0, 1.0],
        "fold": [0, 0, 1, 1],
    }
)
FIRST, LATER = TILES.slice(0, 2), TILES.slice(2)


def retyped(table: pa.Table, name: str, kind: pa.DataType) -> pa.Table:
    index = table.schema.get_field_index(name)
    return table.set_column(index, name, table[name].cast(kind))


def renamed(table: pa.Table, old: str, new: str) -> pa.Table:
    return table.rename_columns([new if name == old else name for name in table.column_names])


REFUSED: dict[str, tuple[dict[str, pa.Table | None], list[str]]] = {
    # name: (files, or folders where None; words of the message)
    "a class that the first file lacks": (
        {"0.parquet": FIRST.drop_columns(["roi_coverage_Muscle"]), "1.parquet": LATER},
        ["'roi_coverage_Muscle'", "0.parquet has no such column", "1.parquet has double"],
    ),
    "a class that a later file lacks": (
        {"0.parquet": FIRST, "1.parquet": LATER.drop_columns(["roi_coverage_Muscle"])},
        ["'roi_coverage_Muscle'", "1.parquet has no such column"],
    ),
    "a fold that the first file lacks": (
        {"0.parquet": FIRST.drop_columns(["fold"]), "1.parquet": LATER},
        ["'fold'", "0.parquet has no such column"],
    ),
    "coverages of whole numbers in the first file": (
        {"0.parquet": retyped(FIRST, "roi_coverage_Fat", pa.int64()), "1.parquet": LATER},
        ["'roi_coverage_Fat'", "0.parquet has int64", "1.parquet has double"],
    ),
    "coverages in two precisions": (
        {"0.parquet": retyped(FIRST, "roi_coverage_Fat", pa.float32()), "1.parquet": LATER},
        ["'roi_coverage_Fat'", "float", "double"],
    ),
    "x of two kinds": (
        {"0.parquet": FIRST, "1.parquet": retyped(LATER, "x", pa.float64())},
        ["'x'", "int64", "double"],
    ),
    "coverages in another order": (
        {
            "0.parquet": FIRST,
            "1.parquet": LATER.select(
                ["slide_id", "x", "y", "roi_coverage_Muscle", "roi_coverage_Fat", "fold"]
            ),
        },
        ["different orders", "equal coverages"],
    ),
    "a fold in other letters": ({"0.parquet": renamed(TILES, "fold", "Fold")}, ["'Fold'"]),
    "a class in other letters": (
        {"0.parquet": renamed(TILES, "roi_coverage_Fat", "ROI_Coverage_Fat")},
        ["'ROI_Coverage_Fat'", "'roi_coverage_Fat'"],
    ),
    "two columns in other letters": (
        {"0.parquet": TILES.append_column("organ", TILES["x"]).append_column("Organ", TILES["x"])},
        ["'organ', 'Organ'"],
    ),
    "a folder against its file": (
        {"fold=0/0.parquet": FIRST, "fold=0/1.parquet": LATER},
        ["'fold'", "1.parquet holds 1"],
    ),
    "files below different partitions": (
        {"fold=0/0.parquet": FIRST.drop_columns(["fold"]), "1.parquet": LATER},
        ["different partitions", "1.parquet: none"],
    ),
    "two folders of one name": (
        {"fold=0/fold=1/0.parquet": TILES.drop_columns(["fold"])}, ["fold two values"],
    ),
    "two columns of one name": (
        {"0.parquet": TILES.append_column("x", TILES["x"])},
        ["without a name of their own", "'x'"],
    ),
    "a column without a name": (
        {"0.parquet": TILES.append_column("", TILES["x"])}, ["without a name of their own"],
    ),
    "a folder that is no fold": (
        {"fold=one/0.parquet": TILES.drop_columns(["fold"])}, ["fold"],
    ),
    "Delta Lake": ({"0.parquet": TILES, "_delta_log/": None}, ["Delta Lake", "log"]),
    "Hudi": ({"2026/0.parquet": TILES, ".hoodie/": None}, ["Apache Hudi"]),
    "Iceberg": ({"data/0.parquet": TILES, "metadata/v1.metadata.json/": None}, ["Apache Iceberg"]),
    "a stream": ({"0.parquet": TILES, "_spark_metadata/": None}, ["Spark Structured Streaming"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_disagree_are_refused_and_listed(name: str, tmp_path: Path):
    files, words = REFUSED[name]
    for file, table in files.items():
        (tmp_path / "t" / file).parent.mkdir(parents=True, exist_ok=True)
        if table is None:
            (tmp_path / "t" / file).mkdir()
        else:
            pq.write_table(table, tmp_path / "t" / file)
    store = FeatureStore(StoreSpec(tiles=str(tmp_path / "t"), **RULES), threads=1)
    with pytest.raises(FeatureStoreError) as refusal:
        store.classes()
    for word in words:
        assert word in str(refusal.value)
    listed = violations(FeatureStore(store.spec, threads=1))
    assert "error" in listed["severity"].to_pylist()


def test_a_folder_equal_to_its_file_and_one_above_the_artifact_mean_nothing(tmp_path: Path):
    """Some writers leave a partition's column in the file; names above are but names."""
    root = tmp_path / "fold=7" / "patient_id=1"
    for fold, rows in ((0, FIRST), (1, LATER)):
        (root / f"fold={fold}").mkdir(parents=True)
        pq.write_table(rows, root / f"fold={fold}" / "part.parquet")
    tiles = FeatureStore(StoreSpec(tiles=str(root), **RULES)).view("tiles").order_by("x")
    assert tiles.to_pyarrow().to_pylist() == TILES.to_pylist()


def test_a_column_that_no_rule_reads_may_be_lacking(tmp_path: Path):
    pq.write_table(FIRST, tmp_path / "0.parquet")
    pq.write_table(LATER.append_column("organ", pa.array(["a", "b"])), tmp_path / "1.parquet")
    store = FeatureStore(StoreSpec(tiles=str(tmp_path), **RULES))
    with pytest.warns(FeatureStoreWarning, match="'organ' alike: it is null where they lack it"):
        tiles = store.view("tiles").order_by("x").to_pyarrow()
    assert tiles["organ"].to_pylist() == [None, None, "a", "b"]


def test_what_is_left_out_is_said(tmp_path: Path):
    for name in ("0.parquet", "_hidden.parquet", "1.parquet.bak"):
        pq.write_table(TILES, tmp_path / name)
    with pytest.warns(FeatureStoreWarning, match=r"2: 1\.parquet\.bak, _hidden\.parquet"):
        assert len(FeatureStore(StoreSpec(tiles=str(tmp_path))).view("tiles").to_pyarrow()) == 4


def test_a_decomposed_name_meets_the_composed_one_and_is_said(tmp_path: Path):
    """A tile of 'Ü' (one character) and an embedding of 'Ü' (two) are of one slide."""
    composed, decomposed = (unicodedata.normalize(form, "Ü") for form in ("NFC", "NFD"))
    keys = {"x": [0], "y": [0]}
    tiles = pa.table({"slide_id": [composed], **keys, "roi_coverage_Fat": [1.0],
                      "roi_coverage_Muscle": [0.0], "fold": [0]})  # fmt: skip
    pq.write_table(tiles, tmp_path / "t.parquet")
    vectors = pa.table({"slide_id": [decomposed], **keys, "embedding": [[1.0]]})
    pq.write_table(vectors, tmp_path / "e.parquet")
    files = {"tiles": "t.parquet", "embeddings": "e.parquet"}
    spec = StoreSpec(**{key: str(tmp_path / file) for key, file in files.items()}, **RULES)
    with pytest.warns(FeatureStoreWarning, match="embeddings have values of slide_id .* normal"):
        assert FeatureStore(spec).funnel()[-1]["tiles"] == 1


@pytest.mark.parametrize("pattern", ["*", "**", "*.parquet", "**/*.parquet"])
def test_what_a_glob_matches_is_left_out_as_below_a_folder(pattern: str, tmp_path: Path):
    """A name that the URI writes out is asked for."""
    (tmp_path / "_temporary").mkdir()
    pq.write_table(FIRST, tmp_path / "0.parquet")
    pq.write_table(LATER, tmp_path / "_hidden.parquet")
    pq.write_table(LATER, tmp_path / "_temporary" / "1.parquet")
    names = [fragment.name for fragment in dataset(str(tmp_path / pattern)).fragments]
    assert names == ["0.parquet"]
    assert [f.rows for f in dataset(str(tmp_path / "_hidden.parquet")).fragments] == [2]


def test_links_that_lead_nowhere_or_into_a_table_are_refused(tmp_path: Path):
    (tmp_path / "delta" / "_delta_log").mkdir(parents=True)
    pq.write_table(TILES, tmp_path / "delta" / "0.parquet")
    (tmp_path / "tiles").mkdir()
    pq.write_table(FIRST, tmp_path / "tiles" / "0.parquet")
    (tmp_path / "tiles" / "more").symlink_to(tmp_path / "gone")
    with pytest.raises(ArtifactError, match="more: a link to what is not there"):
        dataset(str(tmp_path / "tiles"))
    (tmp_path / "tiles" / "more").unlink()
    (tmp_path / "tiles" / "1.parquet").symlink_to(tmp_path / "delta" / "0.parquet")
    with pytest.raises(ArtifactError, match="Delta Lake"):
        dataset(str(tmp_path / "tiles"))


def test_shapes_of_parquet_itself_are_left_out(tmp_path: Path):
    pq.write_table(TILES, tmp_path / "plain.parquet")
    shaped = f"select *, 'POINT(1 2)'::geometry as shape from '{tmp_path}/plain.parquet'"
    try:
        duckdb.sql(f"copy ({shaped}) to '{tmp_path}/t.parquet' (geoparquet_version 'V2')")
    except duckdb.Error as error:
        pytest.skip(f"this DuckDB writes none: {error}")
    tiles = FeatureStore(StoreSpec(tiles=str(tmp_path / "t.parquet"), **RULES)).view("tiles")
    assert tiles.order_by("x").to_pyarrow().to_pylist() == TILES.to_pylist()


@pytest.mark.parametrize("sign", ["#", "?"])
def test_a_file_uri_is_never_cut(sign: str, tmp_path: Path):
    (tmp_path / "run").mkdir()
    pq.write_table(FIRST, tmp_path / "run" / "0.parquet")
    with pytest.raises(ArtifactError, match="is cut by"):
        dataset(f"file://{tmp_path}/run{sign}1/t.parquet")


def test_a_patient_is_one_whether_a_number_or_text(tmp_path: Path):
    """Tiles of folders have text, a file of test tiles its numbers: the leak is found."""
    root = tmp_path / "t" / "patient_id=7"
    root.mkdir(parents=True)
    pq.write_table(TILES, root / "0.parquet")
    numbered = TILES.append_column("patient_id", pa.array([7, 7, 8, 8]))
    pq.write_table(numbered, tmp_path / "test.parquet")
    vectors = TILES.select(["slide_id", "x", "y"]).append_column("embedding", pa.array([[1.0]] * 4))
    pq.write_table(vectors, tmp_path / "e.parquet")
    files = {"tiles": "t", "test_tiles": "test.parquet", "embeddings": "e.parquet"}
    spec = StoreSpec(**{key: str(tmp_path / file) for key, file in files.items()}, **RULES)
    store = FeatureStore(spec)
    counts = (group_counts(store.view(name), ["patient_id"]) for name in ("fates", "test_fates"))
    shared = groups_in_train_and_test(*counts, "patient_id").to_pyarrow()
    assert shared.to_pylist() == [{"patient_id": "7", "tiles": 4, "test_tiles": 2}]


# -- types ----------------------------------------------------------------------------------------

NUMBERS = [pa.int8(), pa.uint64(), pa.float16(), pa.float32(), pa.decimal128(5, 2), pa.bool_(),
           pa.string(), pa.null(), pa.date32(), pa.binary(), pa.list_(pa.int64())]  # fmt: skip
VECTORS = {
    "decimals": pa.array([[Decimal("1.5")] * DIM] * 4, pa.list_(pa.decimal128(4, 1))),
    "text": pa.array([["a"]] * 4),
    "binary": pa.array([b"\0" * 12] * 4),
    "lists of lists": pa.array([[[1.0]]] * 4),
    "nothing": pa.nulls(4),
    "a null list": pa.array([[1.0] * DIM, None, *[[1.0] * DIM] * 2], pa.list_(pa.float32())),
    "a null list of fixed length": pa.array(
        [[1.0] * DIM, None, *[[1.0] * DIM] * 2], pa.list_(pa.float32(), DIM)
    ),
    "a null among whole numbers": pa.array([[1, None, 3], *[[1, 2, 3]] * 3]),
    "a null among fixed lists": pa.array(
        [[1.0, None, 3.0], *[[1.0] * DIM] * 3], pa.list_(pa.float64(), DIM)
    ),
    "booleans": pa.array([[True] * DIM] * 4),
    "lists of nothing": pa.array([[None]] * 4),
    "lists of no length": pa.array([[]] * 4, pa.list_(pa.float32(), 0)),
    "structs": pa.array([{"a": 1.0}] * 4),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", VECTORS)
def test_embeddings_that_are_no_vectors_are_refused_and_listed(name: str, tmp_path: Path):
    pq.write_table(TILES, tmp_path / "t.parquet")
    vectors = TILES.select(["slide_id", "x", "y"]).append_column("embedding", VECTORS[name])
    pq.write_table(vectors, tmp_path / "e.parquet")
    spec = StoreSpec(
        tiles=str(tmp_path / "t.parquet"), embeddings=str(tmp_path / "e.parquet"), **RULES
    )
    with pytest.raises(FeatureStoreError) as refusal, contextlib.chdir(tmp_path):
        materialise(FeatureStore(spec))
    if "null" in name:
        assert "slide_id='s0'" in str(refusal.value)
    listed = violations(FeatureStore(spec))
    assert "error" in listed["severity"].to_pylist()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::featurestore.errors.FeatureStoreWarning")
@pytest.mark.parametrize("kind", NUMBERS, ids=str)
@pytest.mark.parametrize("name", ["slide_id", "x", "roi_coverage_Fat", "fold", "patient_id"])
def test_a_column_of_any_type_is_read_or_refused(name: str, kind: pa.DataType, tmp_path: Path):
    """What numbers can be written as is read as those numbers; all else is one error."""
    values = TILES["x"].to_pylist() if name in ("x", "patient_id") else TILES[name].to_pylist()
    try:
        column = pa.array(values).cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        column = pa.nulls(4, kind)
    table = TILES.drop_columns([name]) if name in TILES.column_names else TILES
    pq.write_table(table.append_column(name, column), tmp_path / "t.parquet")
    store = FeatureStore(StoreSpec(tiles=str(tmp_path / "t.parquet"), **RULES), threads=1)
    assert len(violations(FeatureStore(store.spec, threads=1))) >= 0  # it lists, and does not die
    try:
        fates = store.view("folds").order_by("y", "x").to_pyarrow()
    except FeatureStoreError:
        return
    assert fates["dropped_by"].to_pylist() == [None] * 4
    assert fates["label"].to_pylist() == ["Fat", "Muscle"] * 2
