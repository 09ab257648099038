"""What each tool writes comes in as it is: a test a row of docs/formats.md."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tools_output as tools
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.importing.cohort import Imported, import_slides
from featurestore.importing.formats import eva
from featurestore.importing.slide import Request

NAMES = ("slide_id", "x", "y", "embedding")


def imported(format: str, source: Path, **options: Any) -> tuple[tools.Tiles, list[dict[str, Any]]]:
    """Import; return what was written, by slide, and the rows of the slides."""
    to = source.parent / "artifacts"
    bring(format, source, **options)
    made: tools.Tiles = {}
    for file in sorted((to / "embeddings").iterdir()):
        table = pq.read_table(file)
        assert tuple(table.column_names) == NAMES
        [slide] = set(table["slide_id"].to_pylist())
        vectors = table["embedding"].combine_chunks()
        assert isinstance(vectors.type, pa.FixedSizeListType)
        embeddings = vectors.flatten().to_numpy().reshape(len(table), -1)
        made[slide] = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1), embeddings
    return made, pq.read_table(to / "slides.parquet").to_pylist()


def bring(format: str, source: Path, **options: Any) -> Imported:
    return import_slides(Request(format, source, **options), source.parent / "artifacts")


def same(made: tools.Tiles, cohort: tools.Tiles) -> None:
    assert set(made) == set(cohort)
    for slide, (places, embeddings) in cohort.items():
        np.testing.assert_array_equal(made[slide][0], places)
        np.testing.assert_array_equal(made[slide][1], embeddings)
        assert made[slide][1].dtype == embeddings.dtype


# -- TRIDENT --------------------------------------------------------------------------------------


def test_trident_h5(tmp_path: Path):
    cohort = tools.tiles()
    made, slides = imported("trident", tools.trident(tmp_path / "features_uni_v1", cohort))
    same(made, cohort)
    assert slides[0] == {
        "id": "A", "level": 0, "magnification": 40, "extent_x": 100_000, "extent_y": 80_000,
        "tile_extent_x": 512, "tile_extent_y": 512, "stride_x": 448, "stride_y": 448,
        "source": "trident", "encoder": "uni_v1",
    }  # fmt: skip


def test_trident_h5_of_half_floats(tmp_path: Path):
    cohort = tools.tiles()
    made, _ = imported("trident", tools.trident(tmp_path / "h5", cohort, "float16"))
    same(made, {slide: (p, e.astype(np.float16)) for slide, (p, e) in cohort.items()})


def test_trident_h5_with_an_axis_of_one_slide(tmp_path: Path):
    """As published sets of features have it."""
    cohort = tools.tiles()
    for slide, (places, features) in cohort.items():
        datasets = {"features": features[None], "coords": places[None]}
        tools.h5(tmp_path / "h5" / f"{slide}.h5", datasets, 1)
    made, slides = imported("trident", tmp_path / "h5", mpp=0.25)
    same(made, cohort)
    assert slides[0] == {"id": "A", "level": 0, "mpp_x": 0.25, "mpp_y": 0.25, "source": "trident"}


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_chunks_of_any_size_are_read_in_blocks_of_any_size(
    chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from featurestore.importing import parquet_file

    monkeypatch.setattr(parquet_file, "BLOCK_BYTES", 4 * 4 * tools.DIM)
    cohort = tools.tiles(("A",), 17)
    places, features = cohort["A"]
    tools.h5(tmp_path / "h5" / "A.h5", {"features": features, "coords": places}, chunk)
    same(imported("trident", tmp_path / "h5")[0], cohort)
    groups = pq.read_metadata(tmp_path / "artifacts" / "embeddings" / "A.parquet").num_row_groups
    assert groups == -(-17 // (max(4 // chunk, 1) * min(chunk, 17)))


# -- CLAM -----------------------------------------------------------------------------------------


def test_clam_h5(tmp_path: Path):
    cohort = tools.tiles()
    made, slides = imported("clam", tools.clam(tmp_path / "features", cohort))
    same(made, cohort)
    assert slides[0] == {"id": "A", "level": 0, "source": "clam"}


def test_clam_h5_with_patches(tmp_path: Path):
    source = tools.clam(tmp_path / "features", tools.tiles())
    _, slides = imported("clam", source, coordinates=source / "patches")
    assert slides[1] == {
        "id": "B", "level": 0, "extent_x": 10_000, "extent_y": 8_000, "tile_extent_x": 512,
        "tile_extent_y": 512, "source": "clam",
    }  # fmt: skip


def test_clam_pt_with_patches(tmp_path: Path):
    cohort = tools.tiles()
    source = tools.clam(tmp_path / "features", cohort, "pt")
    made, _ = imported("clam", source / "pt_files", coordinates=source / "patches")
    same(made, cohort)


# -- STAMP ----------------------------------------------------------------------------------------

HALVES = {slide: (p, e.astype(np.float16)) for slide, (p, e) in tools.tiles(step=256).items()}


def test_stamp_h5(tmp_path: Path):
    """256 micrometres are a tile of 224 pixels: x and y are pixels of the tiles' own."""
    made, slides = imported("stamp", tools.stamp(tmp_path / "uni", HALVES))
    same(made, {slide: (p // 256 * 224, e) for slide, (p, e) in HALVES.items()})
    assert slides[0] == {
        "id": "A", "tile_extent_x": 224, "tile_extent_y": 224, "mpp_x": 256 / 224,
        "mpp_y": 256 / 224, "source": "stamp", "encoder": "uni", "source_version": "2.5.0",
    }  # fmt: skip


def test_stamp_h5_at_level_0(tmp_path: Path):
    made, slides = imported("stamp", tools.stamp(tmp_path / "uni", HALVES), level=0, mpp=0.25)
    same(made, {slide: (p * 4, e) for slide, (p, e) in HALVES.items()})
    assert (slides[0]["level"], slides[0]["tile_extent_x"], slides[0]["mpp_x"]) == (0, 1024, 0.25)


def test_stamp_h5_at_level_0_of_slides_of_two_scanners(tmp_path: Path):
    source = tools.stamp(tmp_path / "uni", HALVES)
    made, _ = imported("stamp", source, level=0, mpp={"A": 0.25, "B": 0.5})
    same(made, {s: (p * (4 if s == "A" else 2), e) for s, (p, e) in HALVES.items()})


def test_stamp_h5_of_version_2_0(tmp_path: Path):
    """It said ``tile_size`` where later ones say ``tile_size_um``, and not how many pixels."""
    import h5py

    source = tools.stamp(tmp_path / "uni", HALVES)
    for file in source.iterdir():
        with h5py.File(file, "r+") as content:
            del content.attrs["tile_size_um"], content.attrs["tile_size_px"]
            content.attrs["tile_size"] = 256.0
    made, slides = imported("stamp", source, level=0, mpp=0.5)
    same(made, {slide: (p * 2, e) for slide, (p, e) in HALVES.items()})
    assert slides[0]["tile_extent_x"] == 512


def test_stamp_h5_from_before_version_2(tmp_path: Path):
    """Coordinates were pixels of tiles of 224, and no attribute said so."""
    cohort = {slide: (p // 256 * 224, e) for slide, (p, e) in HALVES.items()}
    for slide, (places, features) in cohort.items():
        tools.h5(tmp_path / "uni" / f"{slide}.h5", {"coords": places, "feats": features}, 32)
    made, slides = imported("stamp", tmp_path / "uni")
    same(made, cohort)
    assert slides[0]["mpp_x"] == 256 / 224


def test_stamp_h5_of_patch_embeddings(tmp_path: Path):
    for slide, (places, features) in HALVES.items():
        datasets = {"coords": places.astype(np.float32), "patch_embeddings": features}
        root = {"tile_size_um": 256.0, "tile_size_px": 256}
        tools.h5(tmp_path / "kronos" / f"{slide}.h5", datasets, 32, root=root)
    made, _ = imported("stamp", tmp_path / "kronos")
    same(made, HALVES)


# -- slide2vec ------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["pt", "npz"])
def test_slide2vec(suffix: str, tmp_path: Path):
    cohort = tools.tiles()
    made, slides = imported("slide2vec", tools.slide2vec(tmp_path / "run", cohort, suffix))
    same(made, cohort)
    assert slides[0] == {
        "id": "A", "level": 0, "extent_x": 50_000, "extent_y": 40_000, "tile_extent_x": 448,
        "tile_extent_y": 448, "stride_x": 448, "stride_y": 448, "mpp_x": 0.25, "mpp_y": 0.25,
        "source": "slide2vec", "encoder": "uni", "path": "/data/A.svs",
    }  # fmt: skip


def test_slide2vec_of_bfloat16(tmp_path: Path):
    import torch

    cohort = tools.tiles()
    source = tools.slide2vec(tmp_path / "run", cohort)
    rounded = {}
    for slide, (places, features) in cohort.items():
        tensor = torch.from_numpy(features).to(torch.bfloat16)
        torch.save(tensor, source / "tile_embeddings" / f"{slide}.pt")
        rounded[slide] = places, tensor.float().numpy()
    same(imported("slide2vec", source)[0], rounded)


# -- eva ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 3, 4, 100])
def test_eva_of_whole_slides(every: int, tmp_path: Path):
    """Every tile is found where it was, in whichever order eva has saved them."""
    cohort = tools.tiles(("A", "B", "C"), 7)
    source = tools.eva(tmp_path / "embeddings", cohort, every)
    made, slides = imported("eva", source, save_every=every)
    same({slide: by_place(*tiles) for slide, tiles in made.items()}, cohort)
    assert slides[0] == {"id": "A", "level": 0, "tile_extent_x": 224, "tile_extent_y": 224,
                         "source": "eva"}  # fmt: skip


def by_place(places: tools.Array, embeddings: tools.Array) -> tuple[tools.Array, tools.Array]:
    """Return tiles row after row of their grid."""
    order = np.lexsort((places[:, 0], places[:, 1]))
    return places[order], embeddings[order]


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(1, 15))
def test_eva_order_is_that_of_its_writer(rows: list[int], every: int):
    """Its loop, over numbers in place of tensors."""
    queue = [(slide, tile) for slide, count in enumerate(rows) for tile in range(count)]
    saved: dict[int, list[int]] = {}
    waiting: dict[int, list[int]] = {}
    for number, (slide, tile) in enumerate(queue):
        waiting.setdefault(slide, []).append(tile)
        if (number > 0 and number % every == 0) or number == len(queue) - 1:
            for name, some in waiting.items():
                saved[name] = some + saved.get(name, [])
            waiting = {}
    start = 0
    for slide, count in enumerate(rows):
        assert eva.order(start, count, every).tolist() == saved[slide]
        start += count


def test_eva_of_cut_tiles(tmp_path: Path):
    cohort = tools.tiles()
    made, slides = imported("eva", tools.eva_tiles(tmp_path / "embeddings", cohort))
    same(made, cohort)
    assert slides[0] == {"id": "A", "source": "eva"}


# -- tables ---------------------------------------------------------------------------------------


def table(cohort: tools.Tiles, shuffled: bool = False, kind: pa.DataType | None = None) -> pa.Table:
    """Return tiles with columns of other names, one slide after another or in no order."""
    names = [slide for slide, (places, _) in cohort.items() for _ in places]
    places = np.concatenate([places for places, _ in cohort.values()])
    features = np.concatenate([embeddings for _, embeddings in cohort.values()]).tolist()
    kind = kind or pa.list_(pa.float32(), tools.DIM)
    rows = pa.table({"case": names, "left": places[:, 0].copy(), "top": places[:, 1].copy(),
                     "features": pa.array(features, kind)})  # fmt: skip
    order = np.random.default_rng(0).permutation(len(rows)) if shuffled else np.arange(len(rows))
    return rows.take(order)


COLUMNS = {"slide_id": "case", "x": "left", "y": "top", "embedding": "features"}


@pytest.mark.parametrize("shuffled", [False, True], ids=["by slide", "in no order"])
@pytest.mark.parametrize("group", [2, 100])
def test_parquet_with_columns_of_other_names(shuffled: bool, group: int, tmp_path: Path):
    cohort = tools.tiles(("B", "A", "C"))
    (tmp_path / "own").mkdir()
    pq.write_table(
        table(cohort, shuffled), tmp_path / "own" / "tiles.parquet", row_group_size=group
    )
    made, slides = imported("arrow", tmp_path / "own", columns=COLUMNS)
    same({slide: by_place(*tiles) for slide, tiles in made.items()}, cohort)
    assert slides == [{"id": slide, "source": "arrow"} for slide in "ABC"]


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float16(), tools.DIM)]
)
def test_parquet_of_each_type_of_list(kind: pa.DataType, tmp_path: Path):
    cohort = tools.tiles()
    pq.write_table(table(cohort, kind=kind), tmp_path / "tiles.parquet")
    made, _ = imported("arrow", tmp_path / "tiles.parquet", columns=COLUMNS)
    half = kind.value_type == pa.float16()
    dtype = np.float16 if half else np.float32
    same(made, {slide: (p, e.astype(dtype)) for slide, (p, e) in cohort.items()})


def test_parquet_of_a_slide_a_file(tmp_path: Path):
    cohort = tools.tiles()
    (tmp_path / "own").mkdir()
    for slide in cohort:
        rows = table({slide: cohort[slide]}).drop_columns(["case"])
        pq.write_table(rows, tmp_path / "own" / f"{slide}.parquet")
    columns = {name: COLUMNS[name] for name in ("x", "y", "embedding")}
    same(imported("arrow", tmp_path / "own", columns=columns)[0], cohort)


def test_parquet_below_folders_that_name_the_slides(tmp_path: Path):
    cohort = tools.tiles()
    for slide in cohort:
        (tmp_path / "own" / f"case={slide}").mkdir(parents=True)
        rows = table({slide: cohort[slide]}).drop_columns(["case"])
        pq.write_table(rows, tmp_path / "own" / f"case={slide}" / "part-0.parquet")
    same(imported("arrow", tmp_path / "own", columns=COLUMNS)[0], cohort)


def test_parquet_at_level_0(tmp_path: Path):
    cohort = tools.tiles()
    pq.write_table(table(cohort), tmp_path / "tiles.parquet")
    made, slides = imported(
        "arrow", tmp_path / "tiles.parquet", columns=COLUMNS, level=0, downsample=4.0, mpp=0.25
    )
    same(made, {slide: (4 * places, e) for slide, (places, e) in cohort.items()})
    assert slides[0] == {"id": "A", "level": 0, "mpp_x": 0.25, "mpp_y": 0.25, "source": "arrow"}


@pytest.mark.parametrize("stream", [False, True])
def test_arrow_ipc(stream: bool, tmp_path: Path):
    cohort, write = tools.tiles(), pa.ipc.new_stream if stream else pa.ipc.new_file
    rows = table(cohort)
    with write(tmp_path / "tiles.arrow", rows.schema) as writer:
        writer.write_table(rows, max_chunksize=3)
    same(imported("arrow", tmp_path / "tiles.arrow", columns=COLUMNS)[0], cohort)


@pytest.mark.slow
def test_hugging_face_data_set(tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    cohort = tools.tiles()
    source = tmp_path / "own"
    datasets.Dataset(table(cohort)).save_to_disk(source, num_shards=2)
    pq_cache = source / "cache-0123.arrow"  # what `map` leaves there is no part of it
    pq_cache.write_bytes((source / "data-00000-of-00002.arrow").read_bytes())
    same(imported("arrow", source, columns=COLUMNS)[0], cohort)


def test_a_folder_of_hugging_face_is_what_its_state_lists(tmp_path: Path):
    """The same without the library."""
    cohort, source = tools.tiles(), tmp_path / "own"
    source.mkdir()
    for name, slide in (("data-0.arrow", "A"), ("data-1.arrow", "B"), ("cache-1.arrow", "B")):
        rows = table({slide: cohort[slide]})
        with pa.ipc.new_stream(source / name, rows.schema) as writer:
            writer.write_table(rows)
    listed = [{"filename": f"data-{n}.arrow"} for n in (0, 1)]
    (source / "state.json").write_text(json.dumps({"_data_files": listed}))
    same(imported("arrow", source, columns=COLUMNS)[0], cohort)


@pytest.mark.parametrize("shuffled", [False, True], ids=["by slide", "in no order"])
def test_lance(shuffled: bool, tmp_path: Path):
    lance = pytest.importorskip("lance")
    cohort = tools.tiles(("B", "A"))
    lance.write_dataset(table(cohort, shuffled), tmp_path / "own.lance", max_rows_per_file=4)
    made, _ = imported("lance", tmp_path / "own.lance", columns=COLUMNS)
    same({slide: by_place(*tiles) for slide, tiles in made.items()}, cohort)


@settings(max_examples=examples(20), deadline=None)
@given(
    names=st.lists(st.sampled_from(["A", "b/c", "ü.x", ".h", "_u"]), min_size=1, max_size=40),
    group=st.integers(1, 20),
)
def test_rows_of_a_table_in_any_order(
    names: list[str], group: int, tmp_path_factory: pytest.TempPathFactory
):
    """Each comes out once, below its slide, whatever lies beside it and whatever that is called."""
    folder = tmp_path_factory.mktemp("own")
    number = np.arange(len(names))
    features = pa.FixedSizeListArray.from_arrays(pa.array(number.astype(np.float32)), 1)
    rows = {"slide_id": pa.array(names).dictionary_encode(), "x": number, "y": -number,
            "embedding": features}  # fmt: skip
    pq.write_table(pa.table(rows), folder / "tiles.parquet", row_group_size=group)
    made, slides = imported("arrow", folder / "tiles.parquet")
    found = sorted((int(p[0]), int(-p[1]), float(e[0]), s)
                   for s, tiles in made.items() for p, e in zip(*tiles, strict=True))  # fmt: skip
    assert found == [(n, n, float(n), names[n]) for n in number.tolist()]
    assert {row["id"] for row in slides} == set(names)
