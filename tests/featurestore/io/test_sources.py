"""Artifacts of several URIs, one a split: the union, its digest, and slides that both have."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CLASSES, TABLES

from featurestore import FeatureStore, StoreSpec
from featurestore.errors import ArtifactError, ConfigError, SchemaError
from featurestore.io import digests, parquet
from featurestore.io.sources import united
from featurestore.snapshots.build import materialise
from featurestore.validation import violations

SLIDES = {"id": ["s0", "s1"], "path": ["a", "b"], "tile_extent_x": [1, 1], "tile_extent_y": [1, 1]}


@pytest.fixture
def split(artifacts: TABLES) -> StoreSpec:
    """Return a store whose slides s0 and s1 are of one split and s2 and s3 of the other."""
    named = artifacts()
    for name in ("tiles", "embeddings"):
        table = pq.read_table(named[f"data.{name}"])
        for number, half in enumerate((table.slice(0, 6), table.slice(6))):
            Path(f"{number}/{name}").mkdir(parents=True)
            pq.write_table(half, f"{number}/{name}/part-0.parquet")
    pq.write_table(pa.table(SLIDES), "0/slides.parquet")
    pq.write_table(pa.table({**SLIDES, "id": ["s2", "s3"]}), "1/slides.parquet")
    return StoreSpec(
        **CLASSES,  # type: ignore[arg-type]
        tiles=["0/tiles", "1/tiles"],
        embeddings=["0/embeddings", "1/embeddings"],
        slides=["0/slides.parquet", "1/slides.parquet"],
    )


@pytest.mark.slow
def test_files_of_several_uris_are_one_artifact(split: StoreSpec, artifacts: TABLES):
    """The same fates as of one file; a split's files of one name are told apart."""
    store, named = FeatureStore(split), artifacts()
    whole = FeatureStore(
        replace(split, tiles=named["data.tiles"], embeddings=named["data.embeddings"])
    )
    keys = ["slide_id", "x"]
    for name in ("fates", "slides"):
        order = keys if name == "fates" else ["id"]
        one, other = (each.view(name).order_by(order).to_pyarrow() for each in (store, whole))
        assert one.equals(other)
    made = materialise(store)
    assert made.manifest["cohorts"]["tiles"]["rows"] == 12
    assert made.manifest["sources"]["embeddings"][0] == "0/embeddings, 1/embeddings"
    assert list(store.sources.dataset("tiles").named) == ["1/part-0.parquet", "2/part-0.parquet"]
    assert violations(store).to_pylist() == []


def test_one_uri_in_a_list_is_that_uri(split: StoreSpec):
    assert united(["0/tiles"]) == parquet.dataset("0/tiles")


def test_the_digest_is_of_content_and_order_not_of_places(split: StoreSpec, tmp_path: Path):
    def digest(*uris: str) -> str:
        return digests.digest(united(list(uris)).named)

    (tmp_path / "0").rename(tmp_path / "moved")
    assert digest("moved/tiles", "1/tiles") == digest(str(tmp_path / "moved/tiles"), "1/tiles")
    assert digest("moved/tiles", "1/tiles") != digest("1/tiles", "moved/tiles")
    assert digest("moved/tiles", "1/tiles") != digest("moved/tiles")


@pytest.mark.slow
def test_a_slide_that_both_files_have_alike_is_one(split: StoreSpec):
    both = {name: [*values, values[0]] for name, values in SLIDES.items()}
    pq.write_table(pa.table({**both, "id": ["s2", "s3", "s0"]}), "1/slides.parquet")
    store = FeatureStore(split)
    ids = store.view("slides").id.to_pyarrow().to_pylist()
    assert sorted(ids) == ["s0", "s1", "s2", "s3"]
    assert violations(store).to_pylist() == []


@pytest.mark.slow
def test_a_slide_that_they_have_otherwise_is_refused_by_name(split: StoreSpec):
    pq.write_table(pa.table({**SLIDES, "id": ["s1", "s2"], "path": ["z", "b"]}), "1/slides.parquet")
    with pytest.raises(SchemaError, match="more than once") as refusal:
        FeatureStore(split).view("slides")
    assert "id='s1'" in str(refusal.value)
    [row] = [row for row in violations(FeatureStore(split)).to_pylist() if row["rows"] == 1][:1]
    assert (row["artifact"], row["wrong"]) == (
        "slides",
        "slides have ids that stand more than once",
    )


@pytest.mark.parametrize("uris", [[], ["0/tiles", ""]])
def test_a_list_without_a_uri_is_refused(uris: list[str]):
    with pytest.raises(ConfigError, match=r"data\.tiles has no value"):
        StoreSpec(tiles=uris)


def test_a_split_that_is_not_there_is_named(split: StoreSpec):
    with pytest.raises(ArtifactError, match="There is no Parquet file at 2/tiles"):
        FeatureStore(replace(split, tiles=["0/tiles", "2/tiles"])).view("tiles")


def test_what_folders_say_in_one_place_is_a_column_in_another(artifacts: TABLES):
    """Two deliveries: pandas writes the site into its file, Spark into the names of folders."""
    named = artifacts({"site": ["Brno"] * 6 + ["Olomouc"] * 6})
    table = pq.read_table(named["data.tiles"])
    pq.write_table(table.slice(0, 6), "september.parquet")
    Path("october/site=Olomouc").mkdir(parents=True)
    part = "october/site=Olomouc/part-0.parquet"
    pq.write_table(table.slice(6).drop_columns(["site"]), part)
    spec = StoreSpec(
        **CLASSES,  # type: ignore[arg-type]
        tiles=["september.parquet", "october"],
        embeddings=named["data.embeddings"],
    )
    whole = FeatureStore(replace(spec, tiles=named["data.tiles"]))
    store = FeatureStore(spec)
    assert list(violations(store)["wrong"]) == []
    both = [each.view("tiles").order_by("slide_id", "x").to_pyarrow() for each in (store, whole)]
    assert both[0].select(both[1].column_names).equals(both[1])
    Path("october/part-1.parquet").write_bytes(Path("september.parquet").read_bytes())
    with pytest.raises(SchemaError, match="different partitions"):
        FeatureStore(spec).view("tiles")
