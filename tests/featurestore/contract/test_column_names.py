"""Columns of other names are read under those of the contract, by every reader alike."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CLASSES

from featurestore.console import cli
from featurestore.errors import ConfigError, SchemaError
from featurestore.snapshots.build import materialise
from featurestore.spec.store_spec import StoreSpec
from featurestore.store import FeatureStore
from featurestore.validation import violations
from train.config.load import load

USUAL = {"slide_id": "slide_id", "x": "x", "y": "y", "embedding": "embedding"}
OTHER = {"slide_id": "case", "x": "left", "y": "top", "embedding": "features"}


def rows(names: Mapping[str, str], **more: object) -> tuple[pa.Table, pa.Table]:
    """Return tiles and embeddings of two slides, with columns of some names."""
    number = np.arange(8)
    keys = {names["slide_id"]: [f"s{n % 2}" for n in number], names["x"]: number,
            names["y"]: 10 * number}  # fmt: skip
    fat = (number // 2 % 2).astype(float)
    tiles = pa.table(keys | {"roi_coverage_Fat": fat, "roi_coverage_Muscle": 1 - fat} | more)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(16, dtype=np.float32)), 2)
    return tiles, pa.table(keys | {names["embedding"]: vectors} | more)


def store(folder: Path, tiles: pa.Table, embeddings: pa.Table, **spec: object) -> FeatureStore:
    folder.mkdir(exist_ok=True)
    pq.write_table(tiles, folder / "tiles.parquet")
    pq.write_table(embeddings, folder / "embeddings.parquet")
    uris = {name: str(folder / f"{name}.parquet") for name in ("tiles", "embeddings")}
    return FeatureStore(StoreSpec(**uris, k=2, **CLASSES, **spec))


def kept(of: FeatureStore) -> tuple[list[dict[str, object]], np.ndarray]:
    """Return the kept tiles by key, and their embeddings in that order."""
    snapshot = materialise(of)
    tiles = snapshot.fates("").order_by("slide_id", "x").to_pyarrow()
    return (
        tiles.select(["slide_id", "x", "y", "label"]).to_pylist(),
        snapshot.matrices[""].read_rows(tiles["row"].to_numpy()),
    )


@pytest.mark.slow
def test_columns_of_other_names_make_the_same_training_set(tmp_path: Path):
    usual, vectors = kept(store(tmp_path / "usual", *rows(USUAL)))
    other, others_vectors = kept(store(tmp_path / "other", *rows(OTHER), columns=OTHER))
    assert other == usual
    assert len(usual) == 8
    np.testing.assert_array_equal(others_vectors, vectors)


@pytest.mark.slow
def test_tiles_and_embeddings_may_differ(tmp_path: Path):
    """A name is looked for where it is: one artifact has the usual columns."""
    mixed = store(tmp_path, rows(USUAL)[0], rows(OTHER)[1], columns=OTHER)
    assert mixed.sql("select count(*) as n from embeddings").to_pyarrow()["n"].to_pylist() == [8]
    assert "error" not in violations(mixed)["severity"].to_pylist()


@pytest.mark.slow
def test_a_column_that_bears_the_name_gives_way(tmp_path: Path):
    tiles, embeddings = rows(USUAL)
    doubled = pa.FixedSizeListArray.from_arrays(pa.array(2 * np.arange(16, dtype=np.float32)), 2)
    both = store(tmp_path, tiles, embeddings.append_column("uni", doubled))
    _, first = kept(both)
    _, second = kept(FeatureStore(replace(both.spec, columns={"embedding": "uni"})))
    np.testing.assert_array_equal(second, 2 * first)  # nor is one taken for the other


def test_x_and_y_that_are_swapped_are_swapped_back(tmp_path: Path):
    tiles, embeddings = rows(USUAL)
    swapped = embeddings.rename_columns(["slide_id", "y", "x", "embedding"])
    both = FeatureStore(
        replace(store(tmp_path, swapped, swapped).spec, columns={"x": "y", "y": "x"})
    )
    keys = both.view("embeddings").order_by("slide_id", "x").to_pyarrow()
    expected = tiles.sort_by([("slide_id", "ascending"), ("x", "ascending")])
    assert keys.select(["x", "y"]).to_pylist() == expected.select(["x", "y"]).to_pylist()


@pytest.mark.slow
def test_folders_may_be_the_column(tmp_path: Path):
    tiles, embeddings = rows(OTHER)
    for slide in ("s0", "s1"):
        of_slide = embeddings.filter(pa.compute.equal(embeddings["case"], slide)).drop_columns(
            "case"
        )
        (tmp_path / "e" / f"case={slide}").mkdir(parents=True)
        pq.write_table(of_slide, tmp_path / "e" / f"case={slide}" / "0.parquet")
    made = store(tmp_path, tiles, embeddings, columns=OTHER)
    divided = FeatureStore(replace(made.spec, embeddings=str(tmp_path / "e")))
    rows_of_both = [kept(one) for one in (made, divided)]
    assert rows_of_both[0][0] == rows_of_both[1][0]
    np.testing.assert_array_equal(rows_of_both[0][1], rows_of_both[1][1])


def test_the_names_are_part_of_what_an_artifact_is(tmp_path: Path):
    usual = store(tmp_path, *rows(USUAL, other=np.arange(8)))
    swapped = FeatureStore(replace(usual.spec, columns={"x": "other"}))
    digests = [one.sources.dataset("embeddings").named.keys() for one in (usual, swapped)]
    assert digests[0] != digests[1]


def test_a_name_that_no_file_has_is_refused(tmp_path: Path):
    wrong = store(tmp_path, *rows(OTHER), columns=OTHER | {"embedding": "featurs"})
    with pytest.raises(SchemaError, match="did you mean 'features'"):
        wrong.view("embeddings")
    with pytest.raises(SchemaError, match="lack the key column x"):
        store(tmp_path, *rows(OTHER), columns=OTHER | {"x": "lefft"}).view("embeddings")


def test_an_unknown_column_of_the_contract_is_refused():
    with pytest.raises(ConfigError, match="did you mean 'embedding'"):
        StoreSpec(columns={"embeding": "features"})


@pytest.mark.slow
def test_a_configuration_names_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    made = store(tmp_path, *rows(OTHER))
    Path("store.yaml").write_text(
        f"data: {{tiles: {made.spec.tiles}, embeddings: {made.spec.embeddings}, "
        "columns: {slide_id: case, x: left, y: top, embedding: features}}\n"
        "class_indices: {Fat: 0, Muscle: 1}\nthresholds: {Fat: 0.5, Muscle: 0.5}\nk: 2\n"
    )
    assert cli.main(["--config", "store.yaml", "funnel"]) == 0
    assert "kept" in capsys.readouterr().out


@pytest.mark.slow
def test_a_suffix_of_slides_is_taken_away_by_every_reader(tmp_path: Path):
    """Of tiles, embeddings, slides and folders; at the end alone, and part of the digests."""
    tiles, embeddings = rows(USUAL)
    suffixed = [f"{name}.svs" for name in embeddings["slide_id"].to_pylist()]
    for slide in ("s0", "s1"):
        of_slide = embeddings.filter(pa.compute.equal(embeddings["slide_id"], slide))
        (tmp_path / "e" / f"slide_id={slide}.svs").mkdir(parents=True)
        file = tmp_path / "e" / f"slide_id={slide}.svs" / "0.parquet"
        pq.write_table(of_slide.drop_columns("slide_id"), file)
    pq.write_table(pa.table({"id": ["s0.svs", "s1.svsx"]}), tmp_path / "slides.parquet")
    usual = store(tmp_path / "usual", tiles, embeddings)
    written = store(tmp_path / "other", tiles, embeddings.set_column(0, "slide_id", [suffixed]))
    spec = replace(written.spec, slide_id_strip=".svs", slides=str(tmp_path / "slides.parquet"))
    expected, vectors = kept(usual)
    stripped = [FeatureStore(spec), FeatureStore(replace(spec, embeddings=str(tmp_path / "e")))]
    for one in stripped:
        tiles_kept, others = kept(one)
        assert tiles_kept == expected
        np.testing.assert_array_equal(others, vectors)
        assert one.view("slides").order_by("id").to_pyarrow()["id"].to_pylist() == ["s0", "s1.svsx"]
    digests = {one.sources.dataset("embeddings").digest() for one in (written, stripped[0])}
    assert len(digests) == 2


def test_a_configuration_takes_a_suffix_away():
    assert load(["fold=1", "data.slide_id_strip=.svs"]).data.slide_id_strip == ".svs"
