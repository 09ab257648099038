"""Predictions of runs as views, and how much of each slide a class is."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CLASSES, ROOT, TABLES

from featurestore import FeatureStore, StoreSpec
from featurestore.console import cli
from featurestore.errors import ArtifactError, SchemaError

ONE = {
    "slide_id": ["s0", "s0", "s1"], "x": [0, 1, 3], "y": [0, 0, 0], "target": [1, 0, None],
    "pred": [1, 1, 0], "prob_Fat": [0.25, 0.375, 0.75], "prob_Muscle": [0.75, 0.625, 0.25],
}  # fmt: skip
OTHER = {"slide_id": ["s2"], "x": [6], "y": [0], "target": [0], "pred": [0], "prob_Ö'l": [1.0]}
SLIDES = {
    "id": ["s0", "s1", "s2"], "tile_extent_x": [500, 500, 500], "tile_extent_y": [500, 500, 500],
    "stride_x": [250, 1000, None], "mpp_x": [0.5, 0.5, None], "mpp_y": [2.0, 2.0, 2.0],
}  # fmt: skip


@pytest.fixture
def store(artifacts: TABLES) -> FeatureStore:
    places = {key.removeprefix("data."): value for key, value in artifacts().items()}
    schema = pa.schema([("stride_x", pa.int64()), ("mpp_x", pa.float64())])
    slides = pa.table(SLIDES)
    for field in schema:
        place = slides.column_names.index(field.name)
        slides = slides.set_column(place, field, slides[field.name].cast(field.type))
    pq.write_table(slides, "slides.parquet")
    pq.write_table(pa.table(ONE), "one.parquet")
    Path("oof").mkdir()
    pq.write_table(pa.table(OTHER), "oof/oof_predictions.parquet")
    spec = StoreSpec(**{**CLASSES, **places}, slides="slides.parquet")
    return FeatureStore(spec).add_runs("one.parquet", "oof/oof_predictions.parquet")


def test_predictions_say_what_is_predicted_by_name_beside_the_label(store: FeatureStore):
    """Of runs of different classes; the probability of a class that a run lacks is null."""
    store.seal()
    rows = store.sql("from predictions order by slide_id, x").to_pyarrow().to_pylist()
    keys = ("run", "part", "label", "predicted", "probability", "label_probability")
    assert [[row[key] for key in keys] for row in rows] == [
        ["one.parquet", "held_out", "Muscle", "Muscle", 0.75, 0.75],
        ["one.parquet", "held_out", "Fat", "Muscle", 0.625, 0.375],
        ["one.parquet", "held_out", None, "Fat", 0.75, None],
        ["oof/oof_predictions.parquet", "out_of_fold", "Ö'l", "Ö'l", 1.0, 1.0],
    ]
    assert [row["prob_Ö'l"] for row in rows] == [None, None, None, 1.0]
    assert [row["prob_Fat"] for row in rows] == [0.25, 0.375, 0.75, None]
    errors = store.sql("select slide_id, x, label, predicted from errors").to_pyarrow().to_pylist()
    assert errors == [{"slide_id": "s0", "x": 1, "label": "Fat", "predicted": "Muscle"}]


def test_slides_are_summed_up_labelled_or_not(store: FeatureStore):
    """Tiles that overlap stand for their stride; without a size there is no area."""
    rows = store.sql("from slide_classes order by all").to_pyarrow().to_pylist()
    twin = (ROOT / "tests" / "sql" / "slide_classes.sql").read_text()
    assert rows == store.sql(f"from ({twin}) order by all").to_pyarrow().to_pylist()
    of_run = [row for row in rows if row["source"] == "one.parquet"]
    # 250 px of 0.5 um by 500 px of 2 um: 0.125 mm2 a tile; with gaps the tile itself, 0.25 mm2.
    assert of_run == [
        {"source": "one.parquet", "slide_id": "s0", "class": "Muscle", "tiles": 2, "share": 1.0,
         "mm2": 0.25},
        {"source": "one.parquet", "slide_id": "s1", "class": "Fat", "tiles": 1, "share": 1.0,
         "mm2": 0.25},
    ]  # fmt: skip
    assert [row["mm2"] for row in rows if row["slide_id"] in ("s2", "s3")] == [None] * 5


def test_areas_are_not_known_without_slides(artifacts: TABLES):
    places = {key.removeprefix("data."): value for key, value in artifacts().items()}
    rows = FeatureStore(StoreSpec(**{**CLASSES, **places}))["slide_classes"].to_pyarrow()
    assert rows["mm2"].null_count == len(rows) == 8


@pytest.mark.slow
def test_runs_are_named_on_the_command_line(
    store: FeatureStore, capsys: pytest.CaptureFixture[str]
):
    Path("store.yaml").write_text(
        f"data: {{tiles: {store.spec.tiles}, embeddings: {store.spec.embeddings}}}\n"
        "class_indices: {Fat: 0, Muscle: 1}\nthresholds: {Fat: 0.5, Muscle: 0.5}\n"
    )
    ask = ["sql", "data=store.yaml", "select count(*) as n from errors", "--format", "csv"]
    assert cli.main([*ask, "runs=one.parquet"]) == 0
    assert capsys.readouterr().out == '"n"\n1\n'
    assert cli.main([*ask, "runs=[one.parquet,oof/oof_predictions.parquet]"]) == 0
    assert cli.main(["catalog", "views.duckdb", "data=store.yaml", "runs=one.parquet"]) == 0
    with duckdb.connect("views.duckdb", read_only=True) as con:
        assert con.sql("select run, label from errors").fetchall() == [("one.parquet", "Fat")]
        counted = "select tiles from slide_classes where source = 'one.parquet' order by slide_id"
        assert con.sql(counted).fetchall() == [(2,), (1,)]
    assert capsys.readouterr().out
    assert cli.main([*ask, "runs=in/tiles.parquet"]) == 2
    assert "in/tiles.parquet are no predictions" in capsys.readouterr().err


def test_what_holds_no_predictions_is_refused(store: FeatureStore):
    with pytest.raises(ArtifactError, match=r"nope\.parquet"):
        FeatureStore(store.spec).add_runs("nope.parquet").view("errors")
    with pytest.raises(SchemaError, match="no predictions"):
        FeatureStore(store.spec).add_runs("slides.parquet").view("errors")
