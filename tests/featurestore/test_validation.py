"""`check` and `describe`: every violation at once; numbers against pandas and NumPy."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CLASSES, TABLES

from featurestore import FeatureStore, StoreSpec
from featurestore.console import cli
from featurestore.console.describe import description
from featurestore.errors import FeatureStoreWarning, JoinError
from featurestore.examples import digits_spec
from featurestore.io.mlflow_artifacts import use_tracking
from featurestore.snapshots.build import materialise
from featurestore.validation import check_join, joins, violations

FAT = [0.9 if n % 2 else 0.0 for n in range(12)]
VECTORS = [[float(n % 2), 1.0, float(n)] for n in range(12)]


def with_(column: list, **values: object) -> list:
    """Replace elements, named n0, n1, ..."""
    return [values.get(f"n{n}", old) for n, old in enumerate(column)]


def found(named: dict[str, str], **more: Any) -> list[tuple[str, str, str, int | None]]:
    """Return severity, artifact, the words of the violation, and its rows."""
    places = {key.removeprefix("data."): value for key, value in named.items()}
    table = violations(FeatureStore(StoreSpec(**{**CLASSES, **places, **more})))
    names = ("severity", "artifact", "wrong", "rows")
    return [tuple(row[name] for name in names) for row in table.to_pylist()]  # type: ignore[misc]


def test_a_sound_store_has_nothing_to_list(artifacts: TABLES):
    assert found(artifacts()) == []


BROKEN: dict[str, tuple[dict, dict, dict, list[tuple[str, str, str, int | None]]]] = {
    # name: (tiles, embeddings, rules, violations: severity, artifact, words, rows)
    "null key": (
        {"slide_id": with_([f"s{n // 3}" for n in range(12)], n3=None)}, {}, {},
        [("error", "tiles", "without a whole key", 1), ("error", "embeddings", "whole key", 1),
         ("warning", "all", "without an embedding", 1), ("warning", "all", "of no tile", 1)],
    ),
    "duplicate key": (
        {"x": with_(list(range(12)), n1=0)}, {}, {},
        [("error", "tiles", "more than once", 1), ("warning", "all", "of no tile", 1)],
    ),
    "missing key column": ({"y": None}, {}, {}, [("error", "tiles", "key column y", None)]),
    "key in other words": (
        {"slide_id": None, "x": None, "Slide": ["s"] * 12, "X": [0] * 12},
        {"slide_id": ["s"] * 12}, {},
        [("error", "tiles", "'X' that differs from 'x' in case alone", None),
         ("error", "tiles", "lack the key column slide_id", None)],
    ),
    "coverage out of range, in two columns": (
        {"roi_coverage_Fat": with_(FAT, n1=1.5, n3=math.nan),
         "roi_coverage_Muscle": with_([0.0 if n % 2 else 0.8 for n in range(12)], n4=-1.0)},
        {}, {},
        [("error", "tiles", "roi_coverage_Fat", 2), ("error", "tiles", "roi_coverage_Muscle", 1),
         ("warning", "tiles", "sum to more than 1", 1)],
    ),
    "class without a threshold": (
        {"roi_coverage_Nerve": [0.0] * 12}, {}, {}, [("error", "tiles", "'Nerve'", None)],
    ),
    "no coverage column": (
        {"roi_coverage_Fat": None, "roi_coverage_Muscle": None}, {}, {},
        [("error", "tiles", "no roi_coverage_<Class>", None)],
    ),
    "fold with a null": (
        {"fold": with_([0] * 12, n2=None)}, {}, {}, [("error", "tiles", "without a fold", 1)],
    ),
    "fold below zero": (
        {"fold": with_([0] * 12, n2=-1)}, {}, {}, [("error", "tiles", "negative fold", 1)],
    ),
    "group missing": (
        {}, {}, {"kfold_strategy": "stratified_group", "kfold_group": "patient_id"},
        [("error", "tiles", "no column patient_id", None)],
    ),
    "bad embeddings of two kinds": (
        {}, {"embedding": with_(VECTORS, n2=[1.0], n4=[math.inf, 0.0, 0.0], n7=[math.nan] * 3)}, {},
        [("error", "embeddings", "not all of one length", 1),
         ("error", "embeddings", "NaN, null or infinite", 2)],
    ),
    "embedding that is text": (
        {}, {"embedding": ["a"] * 12}, {}, [("error", "embeddings", "list of numbers", None)],
    ),
    "tiles without embeddings and the reverse": (
        {}, {"x": [*range(10), 98, 99]}, {},
        [("error", "tiles", "1 of 4 slides lack embeddings of their surviving tiles", 2),
         ("warning", "all", "tiles without an embedding", 2),
         ("warning", "all", "embeddings of no tile", 2)],
    ),
    "coverages in half floats": (
        {"roi_coverage_Fat": pa.array(FAT, pa.float16())}, {}, {},
        [("error", "tiles", "coverages in half floats", None)],
    ),
    "names that differ in case alone": (
        {"Y": [0] * 12}, {}, {}, [("error", "tiles", "differ in case alone", None)],
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_each_breakage_is_listed_with_its_rows(name: str, artifacts: TABLES):
    tiles, embeddings, rules, expected = BROKEN[name]
    seen = found(artifacts(tiles, embeddings), **rules)
    assert [(s, a, n) for s, a, _, n in seen] == [(s, a, n) for s, a, _, n in expected]
    for (_, _, wrong, _), (_, _, words, _) in zip(seen, expected, strict=True):
        assert words in wrong


@pytest.mark.slow
def test_the_check_has_the_verdict_of_the_trainer_for_every_cohort(
    artifacts: TABLES, tmp_path: Path
):
    """Coordinates of another level: the same refusal, of tiles, test tiles and tiles to predict."""
    named = artifacts({"x": [4 * n for n in range(12)]})
    pq.write_table(pq.read_table(named["data.tiles"]), tmp_path / "more.parquet")
    more = str(tmp_path / "more.parquet")
    places = {key.removeprefix("data."): value for key, value in named.items()}
    both = {**CLASSES, **places, "test_tiles": more, "predict_tiles": more}
    store = FeatureStore(StoreSpec(**both))
    listed = {name: refusal for name, _, refusal in joins(store)}
    assert list(listed) == ["tiles", "test_tiles", "predict_tiles"]
    rows = violations(store).to_pylist()
    for name, refusal in listed.items():
        with pytest.raises(JoinError) as error:
            check_join(store, name)
        assert str(error.value) == str(refusal.refusal)
        assert "4 times those of the embeddings: so 12 of 12 would have one" in error.value.found
        [row] = [row for row in rows if (row["artifact"], row["severity"]) == (name, "error")]
        assert row["found"] == error.value.found
    with pytest.raises(JoinError, match="12 of 12 surviving tiles have no embedding"):
        materialise(store)
    with pytest.raises(JoinError, match="12 of 12 surviving test tiles have no embedding"):
        materialise(FeatureStore(StoreSpec(**{**both, "tiles": None})))


@pytest.mark.slow
def test_a_training_set_that_was_let_pass_is_refused_to_others(artifacts: TABLES):
    """Its name is the same, whatever is let pass: the verdict is about its use."""
    named = artifacts(None, {"x": [*range(10), 98, 99]})
    places = {key.removeprefix("data."): value for key, value in named.items()}
    spec = StoreSpec(**{**CLASSES, **places}, allow_missing=0.7)
    with pytest.warns(FeatureStoreWarning, match="without an embedding"):
        made = materialise(FeatureStore(spec))
    assert made.manifest["joins"] == {
        "tiles": {
            "tiles": 12, "missing": 2, "worst": {"slide_id": "s3", "tiles": 3, "missing": 2}
        }
    }  # fmt: skip
    with pytest.warns(FeatureStoreWarning, match="without an embedding"):
        assert materialise(FeatureStore(replace(spec, allow_missing=1))).digest == made.digest
    with pytest.raises(JoinError, match="1 of 4 slides lack"):
        materialise(FeatureStore(replace(spec, allow_missing=0.6)))


def test_a_missing_and_a_corrupt_artifact_are_lines_like_others(artifacts: TABLES, tmp_path: Path):
    named = artifacts({"fold": with_([0] * 12, n2=None)})
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    seen = found(named, test_tiles="nope.parquet", test_embeddings=str(tmp_path / "cut.parquet"))
    assert [artifact for _, artifact, _, _ in seen] == ["tiles", "test_tiles", "test_embeddings"]
    assert "no Parquet file at nope.parquet" in seen[1][2]
    assert "not a whole Parquet file" in seen[2][2]


def test_a_column_that_is_not_there_is_an_error_however_often_it_is_asked_for(artifacts: TABLES):
    """The embeddings have a column of the usual name as well, which is not what was asked for."""
    data = {name.removeprefix("data."): uri for name, uri in artifacts().items()}
    store = FeatureStore(StoreSpec(**data, **CLASSES, columns={"embedding": "uni"}))
    for _ in range(2):
        table = violations(store, joined=list(joins(store)))
        wrong = [row["wrong"] for row in table.to_pylist() if row["severity"] == "error"]
        assert "The embeddings have no column 'uni', which data.columns.embedding names" in wrong


def test_slides_and_cohorts_that_do_not_fit(artifacts: TABLES, tmp_path: Path):
    named = artifacts()
    pq.write_table(pa.table({"id": ["s0", "s1", "s1", "s3"]}), tmp_path / "slides.parquet")
    table = pq.read_table(named["data.tiles"]).drop_columns(["fold"])
    pq.write_table(table.slice(0, 4), tmp_path / "test.parquet")
    seen = found(named, slides=str(tmp_path / "slides.parquet"),
                 test_tiles=str(tmp_path / "test.parquet"))  # fmt: skip
    assert seen == [
        ("error", "slides", "slides have ids that stand more than once", 1),
        (
            "warning",
            "slides",
            "slides lack tile_extent_x and tile_extent_y: tiles are taken to fill their grid",
            None,
        ),
        ("warning", "all", "slides of the tiles that the slides artifact lacks", 1),
        ("warning", "all", "slides among both tiles and test tiles", 2),
    ]


def test_folds_that_training_would_refuse_are_errors_and_rare_classes_warnings(artifacts: TABLES):
    """Two patients make no three folds; a class in one tile is in too few groups."""
    named = artifacts({"fold": None, "patient_id": [f"p{n // 6}" for n in range(12)]})
    patients = {"kfold_strategy": "stratified_group", "kfold_group": "patient_id"}
    [row] = found(named, **patients, k=3)
    assert row == ("error", "tiles", "3 folds cannot be assigned: no class has 3 different values "
                   "of patient_id", None)  # fmt: skip
    assert found(named, **patients, k=2) == []
    named = artifacts({"fold": None, "roi_coverage_Fat": with_([0.0] * 12, n1=0.9)})
    [row] = found(named, k=3)
    assert row[:2] == ("warning", "tiles")
    assert "'Fat' is in 1 of the 3 groups" in row[2]


def test_a_patient_in_two_folds_is_an_error_where_none_is_promised(
    artifacts: TABLES, capsys: pytest.CaptureFixture[str]
):
    arguments = [f"{key}={uri}" for key, uri in artifacts({"fold": [0, 1] * 6}).items()]
    arguments += [f"{key}.{c}={n}" for key, values in CLASSES.items() for c, n in values.items()]
    assert cli.main(["check", *arguments]) == 0
    assert cli.main(["check", *arguments, "kfold_strategy=stratified_group"]) == 2
    assert "There are values of slide_id in several folds" in capsys.readouterr().out


def test_what_is_to_be_done_about_a_column_names_the_key_or_the_type(artifacts: TABLES):
    """A name in another case, one that is near, and whole numbers in floats."""
    named = artifacts({"slide_id": None, "x": None, "Slide": ["s"] * 12, "X": [0] * 12,
                       "y": [0.0] * 12}, {"slide_id": ["s"] * 12})  # fmt: skip
    places = {key.removeprefix("data."): value for key, value in named.items()}
    fixes = violations(FeatureStore(StoreSpec(**CLASSES, **places)))["to do"].to_pylist()
    assert [fix.partition("data.columns.")[2] for fix in fixes] == ["x=X", "slide_id=Slide"]
    artifacts({"y": [0.0] * 12})  # in the same place
    table = violations(FeatureStore(StoreSpec(**CLASSES, **places)))
    assert table["to do"].to_pylist() == [
        "write it as an integer, by pandas: .astype({'y': 'int64'})"
    ]


def test_tiles_without_a_row_are_said_to_have_none(artifacts: TABLES):
    named = artifacts()
    pq.write_table(pq.read_table(named["data.tiles"]).slice(0, 0), named["data.tiles"])
    assert ("error", "tiles", "There is no tile: the artifact has no rows", None) in found(named)


def test_no_artifact_is_refused_alike_by_all_who_ask(capsys: pytest.CaptureFixture[str]):
    Path("empty.yaml").touch()
    for command in ("check", "describe", "funnel"):
        assert cli.main([command, "data=empty.yaml"]) == 2
        assert "the artifact tiles, and none is configured" in capsys.readouterr().err


def test_first_keys_are_named_in_order(artifacts: TABLES):
    fat = with_(FAT, n11=2.0, n5=2.0, n3=2.0, n9=2.0)
    spec = {key.removeprefix("data."): v for key, v in artifacts({"roi_coverage_Fat": fat}).items()}
    table = violations(FeatureStore(StoreSpec(**{**CLASSES, **spec})))
    assert table["found"][0].as_py() == (
        "4 of them, the first at slide_id='s1', x=3, y=0; slide_id='s1', x=5, y=0; "
        "slide_id='s3', x=9, y=0"
    )


def test_training_warns_of_what_is_no_error(artifacts: TABLES):
    named = artifacts(None, {"x": [*range(11), 99]})
    places = {key.removeprefix("data."): value for key, value in named.items()}
    for _ in range(2):  # written, then found
        with pytest.warns(FeatureStoreWarning, match="tiles without an embedding: 1 of them"):
            materialise(FeatureStore(StoreSpec(**{**CLASSES, **places})))


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, pa.Table], pd.DataFrame]:
    use_tracking(f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}")
    store = FeatureStore(digits_spec())
    tables = dict(description(store))
    return tables, store.view("fates").to_pandas()


@pytest.mark.slow
def test_description_counts_what_pandas_counts(described):
    tables, fates = described
    assert tables["tiles"].to_pylist() == [{"tiles": 1430, "kept": 1430, "slides": 11}]
    classes = {row["label"]: row for row in tables["tiles: classes"].to_pylist()}
    for label, part in fates.groupby("label"):
        assert classes[label]["tiles"] == len(part)
        assert classes[label]["slides"] == part.slide_id.nunique()
    folds = next(table for title, table in tables.items() if title.startswith("tiles: folds"))
    for row in folds.to_pylist():
        part = fates[fates.fold == row["fold"]]
        assert (row["tiles"], row["classes"]) == (len(part), 10)
        assert row["fewest"] == part.label.value_counts().min()
    assert tables["tiles: what is dropped"].to_pylist()[-1] == {
        "reason": "kept", "tiles": 1430, "share": 1.0,
    }  # fmt: skip


@pytest.mark.slow
def test_quantiles_are_numpys(described):
    tables, fates = described
    rows = {row["class"]: row for row in tables["tiles: coverages"].to_pylist()}
    for digit in "0123456789":
        shares = fates[f"roi_coverage_{digit}"]
        shares = shares[shares > 0].to_numpy()
        expected = np.quantile(shares, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1])
        ours = [rows[digit][n] for n in ("min", "q05", "q25", "q50", "q75", "q95", "max")]
        np.testing.assert_allclose(ours, expected)


def test_description_of_artifacts_tells_type_and_length(described):
    tables, _ = described
    rows = {row["artifact"]: row for row in tables["artifacts"].to_pylist()}
    assert rows["embeddings"]["rows"] == 1797
    assert rows["embeddings"]["embedding"] == "64 float64"
    assert len(rows["tiles"]["sha256"]) == 12
