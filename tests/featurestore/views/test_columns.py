"""More columns of chosen tiles: the tiles' own, and those of their slides."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CLASSES, TABLES

from featurestore.errors import SchemaError
from featurestore.snapshots.build import materialise
from featurestore.spec.store_spec import StoreSpec
from featurestore.store import FeatureStore
from train.inference.cohort import prediction_set

ORGAN = ["lung"] * 6 + ["skin"] * 3 + [None] * 3


def store(artifacts: TABLES, slides: dict | None = None) -> FeatureStore:
    """Open a store on twelve tiles of four slides with organs, and on slides."""
    named = artifacts(tiles={"organ": ORGAN, "number": list(range(12))})
    places = {key.removeprefix("data."): value for key, value in named.items()}
    if slides:
        pq.write_table(pa.table(slides), "slides.parquet")
        places["slides"] = "slides.parquet"
    return FeatureStore(StoreSpec(**CLASSES, **places, predict_tiles=places["tiles"]))


SLIDES = {"id": ["s0", "s2", "s3"], "stain": ["HE", "IHC", "HE"], "organ": ["x", "y", "z"]}


@pytest.mark.slow
def test_tiles_go_before_slides_and_unknown_slides_have_none(artifacts: TABLES):
    snapshot = materialise(store(artifacts, SLIDES))
    keys = snapshot.fit_set(1, ["organ", "stain", "number"]).keys.sort_by("number")
    assert keys["organ"].to_pylist() == ORGAN
    assert keys["stain"].to_pylist() == ["HE"] * 3 + [None] * 3 + ["IHC"] * 3 + ["HE"] * 3
    assert keys.column_names == [
        "slide_id", "x", "y", "target", "split", "row", "organ", "stain", "number",
    ]  # fmt: skip
    assert keys.drop_columns(["organ", "stain", "number"]).equals(
        snapshot.fit_set(1).keys.take(pa.array(range(12)))
    )


@pytest.mark.slow
def test_a_snapshot_keeps_the_slides(artifacts: TABLES):
    """It answers for them when the artifact is gone."""
    snapshot = materialise(store(artifacts, SLIDES))
    Path("slides.parquet").unlink()
    assert set(snapshot.fold_set(["stain"]).keys["stain"].to_pylist()) == {"HE", "IHC", None}


def test_tiles_to_predict_bring_columns_too(artifacts: TABLES):
    tiles = prediction_set(store(artifacts, SLIDES), "checkpoint", ["stain", "organ"]).tiles
    assert tiles is not None
    keys = tiles.to_pyarrow()
    assert keys["stain"].null_count == 3
    assert keys["organ"].null_count == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slides", "name", "words"),
    [
        (SLIDES, "stian", "slides: id, stain, organ; did you mean 'stain'"),
        (None, "stain", "tiles: organ, number; slides: no artifact"),
        (SLIDES, "target", "tiles: organ, number"),
        (SLIDES, "roi_coverage_Fat", "tiles: organ, number"),
    ],
)
def test_a_column_that_is_not_there_is_refused(artifacts: TABLES, slides, name, words):
    snapshot = materialise(store(artifacts, slides))
    with pytest.raises(SchemaError, match=name) as refused:
        snapshot.fit_set(1, [name])
    assert words in str(refused.value)
