"""A class whose column some files lack: refused, or declared to cover none of their tiles."""

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, examples
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore import FeatureStore, StoreSpec
from featurestore.backend import engine
from featurestore.errors import FeatureStoreWarning, SchemaError, UnknownClassError
from featurestore.folds.artifact import Wanted
from featurestore.validation import violations

NAMES = ["Connective-Tissue", 'O\'Brien; drop "x" --', "Öl & Fett"]
COLUMNS = [f"roi_coverage_{name}" for name in NAMES]
SPEC = StoreSpec(
    class_indices=dict(zip(NAMES, [2, 0, 1], strict=True)),
    thresholds=dict(zip(NAMES, [0.5, 0.0, 0.25], strict=True)),
    absent_coverage="zero",
)


@st.composite
def files(draw: Any) -> list[pa.Table]:
    """Draw tiles in files, each of which has some of three classes; one that has the others."""
    kind = draw(st.sampled_from([pa.float64(), pa.float32(), pa.decimal128(9, 4)]))
    has = draw(st.lists(st.sets(st.sampled_from(COLUMNS)), min_size=1, max_size=3))
    has.append(set(COLUMNS) - set.union(*has) or {COLUMNS[0]})
    tables = []
    for number, names in enumerate(draw(st.permutations(has))):
        rows = draw(st.integers(1, 3))
        shares = st.lists(st.integers(0, 4).map(lambda n: n / 4), min_size=rows, max_size=rows)
        coverages = {
            name: pa.array(draw(shares), pa.float64()).cast(kind)
            for name in COLUMNS if name in names
        }  # fmt: skip
        keys = {"slide_id": [f"s{number}"] * rows, "x": range(rows), "y": [number] * rows}
        tables.append(pa.table(keys | coverages))
    return tables


@pytest.mark.filterwarnings("ignore::featurestore.errors.FeatureStoreWarning")
@settings(deadline=None, max_examples=examples(10))
@given(files())
def test_labels_are_those_of_a_zero_in_plain_sql(tables: list[pa.Table]):
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{number}.parquet" for number in range(len(tables))]
        for path, table in zip(paths, tables, strict=True):
            pq.write_table(table, path)
        labels = store(folder).view("labels").to_pyarrow()
        oracle = engine.connect(threads=1).con
        sql = ROOT / "tests" / "sql"
        tiles = oracle.execute((sql / "absent.sql").read_text(), {"files": paths}).arrow()
        oracle.register("tiles", pa.table(tiles))
        expected = oracle.sql((sql / "labels.sql").read_text())
        names = expected.columns
        rows = [tuple(row.values()) for row in labels.select(names).to_pylist()]
        assert sorted(rows, key=repr) == sorted(expected.fetchall(), key=repr)


def store(folder: Path | str, **rules: Any) -> FeatureStore:
    spec = {**vars(SPEC), "tiles": str(folder), **rules}
    return FeatureStore(StoreSpec(**spec), threads=1)


def table(*names: str, kind: pa.DataType | None = None) -> pa.Table:
    """Return one tile of a slide of its own, with a coverage of each class."""
    keys = {"slide_id": ["".join(names)], "x": [0], "y": [0]}
    return pa.table(keys | {f"roi_coverage_{n}": pa.array([0.5], kind) for n in names})


RULES = {"class_indices": {"A": 0, "B": 1, "C": 2}, "thresholds": {"A": 0, "B": 0, "C": 0}}


def test_it_is_refused_unless_declared_and_said_where_it_is(tmp_path: Path):
    pq.write_table(table("A", "B", "C"), tmp_path / "0.parquet")
    pq.write_table(table("A", "C"), tmp_path / "1.parquet")
    with pytest.raises(SchemaError, match="'roi_coverage_B' alike") as refusal:
        store(tmp_path, **RULES, absent_coverage="refuse").view("tiles")
    assert "absent_coverage=zero" in refusal.value.fix
    declared = store(tmp_path, **RULES)
    with pytest.warns(FeatureStoreWarning, match=r"'roi_coverage_B' alike: it is 0\.0 where"):
        tiles = declared.view("tiles").order_by("slide_id").to_pyarrow()
    assert tiles["roi_coverage_B"].to_pylist() == [0.5, 0.0]
    listed = violations(declared).filter(pc.equal(violations(declared)["artifact"], "tiles"))
    assert "error" not in listed["severity"].to_pylist()
    assert "'roi_coverage_B' alike: it is 0.0" in listed["wrong"][0].as_py()


def test_a_class_that_no_file_has_is_still_refused(tmp_path: Path):
    """It is a class of the configuration that the data lack, misspelt for example."""
    pq.write_table(table("A", "B"), tmp_path / "0.parquet")
    with pytest.raises(UnknownClassError, match="'C'"):
        store(tmp_path, **RULES).classes()


def test_what_a_file_has_in_another_precision_is_not_absent(tmp_path: Path):
    """One file lacks the column and another has it in floats: the second is refused."""
    pq.write_table(table("A", "B"), tmp_path / "0.parquet")
    pq.write_table(table("A"), tmp_path / "1.parquet")
    pq.write_table(table("A", "B", kind=pa.float32()), tmp_path / "2.parquet")
    with pytest.raises(SchemaError, match=r"2\.parquet has float"):
        store(tmp_path, **RULES).view("tiles")


def test_columns_stand_in_an_order_that_all_files_have(tmp_path: Path):
    """The first of equal coverages is the label, whichever file comes first."""
    for number, names in enumerate(["AC", "BC", "AB"]):
        pq.write_table(table(*names), tmp_path / f"{number}.parquet")
    with pytest.warns(FeatureStoreWarning):
        tiles = store(tmp_path, **RULES).view("tiles")
    assert [c[-1] for c in tiles.columns if c.startswith("roi_coverage_")] == ["A", "B", "C"]
    pq.write_table(table("C", "A"), tmp_path / "3.parquet")
    with pytest.raises(SchemaError, match="different orders") as refusal:
        store(tmp_path, **RULES).view("tiles")
    assert "3.parquet: roi_coverage_C, roi_coverage_A" in refusal.value.found


def test_it_is_part_of_what_names_folds(tmp_path: Path):
    pq.write_table(table("A", "B", "C"), tmp_path / "0.parquet")
    stores = [store(tmp_path, **RULES, absent_coverage=a) for a in ("refuse", "zero")]
    wanted = [Wanted(one.spec, one.sources.dataset("tiles")) for one in stores]
    assert wanted[0].cohort != wanted[1].cohort
    assert wanted[0].rules != wanted[1].rules
