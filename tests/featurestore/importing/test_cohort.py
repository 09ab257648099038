"""Imports as a whole: resumed by slide, joined by tiles, refused with one error and no rest."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tools_output as tools
from conftest import CLASSES

from featurestore.console import cli
from featurestore.errors import FeatureStoreError
from featurestore.importing.cohort import Imported, import_slides
from featurestore.importing.slide import Request
from featurestore.snapshots.build import materialise
from featurestore.spec.store_spec import StoreSpec
from featurestore.store import FeatureStore

TO = Path("artifacts")


def bring(source: Path, format: str = "trident", **options: object) -> Imported:
    return import_slides(Request(format, source), TO, **options)


def files() -> dict[str, tuple[int, int]]:
    """Return the inode and time of each file of the artifacts: another one was made anew."""
    return {
        file.relative_to(TO).as_posix(): (file.stat().st_ino, file.stat().st_mtime_ns)
        for file in TO.rglob("*")
        if file.is_file()
    }


# -- what comes of it -----------------------------------------------------------------------------


@pytest.mark.slow
def test_what_was_imported_is_a_training_set(tmp_path: Path):
    """Tiles of the same places find each its own embedding."""
    cohort = tools.tiles(("A", "B", "C"), 9)
    bring(tools.trident(tmp_path / "h5", cohort))
    names = [slide for slide, (places, _) in cohort.items() for _ in places]
    places = np.concatenate([places for places, _ in cohort.values()])
    fat = np.arange(len(names)) % 2
    tiles = pa.table({"slide_id": names, "x": places[:, 0].copy(), "y": places[:, 1].copy(),
                      "roi_coverage_Fat": fat * 1.0, "roi_coverage_Muscle": 1.0 - fat})  # fmt: skip
    pq.write_table(tiles, "tiles.parquet")
    spec = StoreSpec(tiles="tiles.parquet", embeddings="artifacts/embeddings", k=2,
                     slides="artifacts/slides.parquet", **CLASSES)  # fmt: skip
    store = FeatureStore(spec)
    assert store.sql("select count(*) as n from slides").to_pyarrow().to_pylist() == [{"n": 3}]
    snapshot = materialise(store)
    kept = snapshot.fates("").filter(lambda t: t.dropped_by.isnull()).to_pyarrow()
    assert len(kept) == len(names)
    read = snapshot.matrices[""].read_rows(kept["row"].to_numpy())
    keys = zip(*(kept[name].to_pylist() for name in ("slide_id", "x", "y")), strict=True)
    expected = {
        (slide, *place): row
        for slide, tiles_of_it in cohort.items()
        for place, row in zip(tiles_of_it[0].tolist(), tiles_of_it[1], strict=True)
    }
    np.testing.assert_array_equal(read, np.stack([expected[(s, x, y)] for s, x, y in keys]))


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = tools.trident(tmp_path / "h5", tools.tiles())
    for written in (2, 0):
        assert cli.main(["import", "trident", str(source), "--to", "artifacts"]) == 0
        assert capsys.readouterr().out == (
            f"2 slides, 11 tiles: {written} written, {2 - written} there already\n"
            "x and y: pixels of level 0\n"
            "data.embeddings=artifacts/embeddings data.slides=artifacts/slides.parquet\n"
        )


def test_a_pattern_names_the_slides(tmp_path: Path):
    cohort = {"TCGA-01.feat": tools.tiles()["A"]}
    import_slides(
        Request("trident", tools.trident(tmp_path / "h5", cohort), slide_id=r"(\w+-\d+)"),
        TO,
    )
    assert pq.read_table(TO / "slides.parquet")["id"].to_pylist() == ["TCGA-01"]


# -- resumed --------------------------------------------------------------------------------------


def test_a_slide_that_is_there_is_not_made_again(tmp_path: Path):
    source = tools.trident(tmp_path / "h5", tools.tiles())
    assert bring(source).written == 2
    before = files()
    tools.trident(source, {"C": tools.tiles(("C",))["C"]})
    assert bring(source).written == 1
    after = files()
    assert {name: after[name] for name in before if "embeddings" in name} == {
        name: value for name, value in before.items() if "embeddings" in name
    }
    assert pq.read_table(TO / "slides.parquet")["id"].to_pylist() == ["A", "B", "C"]


def test_a_slide_of_other_bytes_or_options_is_made_again(tmp_path: Path):
    source = tools.stamp(tmp_path / "h5", tools.tiles())
    assert bring(source, "stamp").written == 2
    tools.stamp(source, {"A": tools.tiles(("A",), 3)["A"]})
    assert bring(source, "stamp").written == 1
    at_level_0 = replace(Request("stamp", source), level=0, mpp=0.25)
    assert import_slides(at_level_0, TO).written == 2
    assert import_slides(at_level_0, TO).written == 0
    (TO / "embeddings" / "B.parquet").write_bytes(b"PAR1 cut off")
    assert import_slides(at_level_0, TO).written == 1


def test_what_only_the_table_of_slides_says_leaves_their_files_as_they_are(tmp_path: Path):
    """Embeddings keep their digests, and later imports of other slides what was said."""
    source = tools.clam(tmp_path / "first", tools.tiles(("A", "B")))
    import_slides(Request("clam", source, level=0), TO)
    before = files()
    assert "mpp_x" not in pq.read_schema(TO / "slides.parquet").names
    assert import_slides(Request("clam", source, level=0, mpp=0.25), TO).written == 0
    second = tools.clam(tmp_path / "second", tools.tiles(("C",)))
    assert import_slides(Request("clam", second, level=0, mpp=0.5), TO).written == 1
    after = files()
    assert {name: after[name] for name in before if "embeddings" in name} == {
        name: value for name, value in before.items() if "embeddings" in name
    }
    slides = pq.read_table(TO / "slides.parquet", columns=["id", "mpp_x", "mpp_y"])
    assert [*map(tuple, zip(*slides.to_pydict().values(), strict=True))] == [
        ("A", 0.25, 0.25), ("B", 0.25, 0.25), ("C", 0.5, 0.5)
    ]  # fmt: skip


def test_an_import_that_is_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The slides that were whole stay, nothing of the one at work."""
    source = tools.trident(tmp_path / "h5", tools.tiles(("A", "B", "C")))
    from featurestore.importing import hdf5

    read = hdf5.blocks

    def interrupted(file: Path, *arguments: object) -> object:
        if file.name == "C.h5":
            raise KeyboardInterrupt
        return read(file, *arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(hdf5, "blocks", interrupted)
        bring(source)
    assert sorted(files()) == ["embeddings/A.parquet", "embeddings/B.parquet"]
    assert not list(TO.rglob(".building*"))
    assert bring(source).written == 1
    assert len(pq.read_table(TO / "slides.parquet")) == 3


def test_what_a_killed_import_left_is_removed(tmp_path: Path):
    (TO / ".building-x").mkdir(parents=True)
    bring(tools.trident(tmp_path / "h5", tools.tiles()))
    assert sorted(path.name for path in TO.iterdir()) == ["embeddings", "slides.parquet"]


# -- refused --------------------------------------------------------------------------------------

Break = Callable[[Path], object]


def cut(folder: Path) -> None:
    file = folder / "B.h5"
    file.write_bytes(file.read_bytes()[:-1000])


def lengthened(folder: Path) -> None:
    places, features = tools.tiles()["B"]
    tools.trident(folder, {"B": (places[:-1], features)})


def widened(folder: Path) -> None:
    places, features = tools.tiles()["B"]
    tools.trident(folder, {"B": (places, np.hstack([features, features]))})


def not_finite(folder: Path) -> None:
    places, features = tools.tiles()["B"]
    features[2, 1], features[4, 0] = np.nan, np.inf
    tools.trident(folder, {"B": (places, features)})


def emptied(folder: Path) -> None:
    places, features = tools.tiles()["B"]
    tools.trident(folder, {"B": (places[:0], features[:0])})


def doubled(folder: Path) -> None:
    tools.trident(folder / "again", {"B": tools.tiles()["B"]})


def overlaid(folder: Path) -> None:
    places, features = tools.tiles()["B"]
    places[3] = places[1]
    tools.trident(folder, {"B": (places, features)})


def of_another_encoder(folder: Path) -> None:
    tools.trident(folder, {"B": tools.tiles()["B"]}, encoder="conch_v1")


def of_patches(folder: Path) -> None:
    tools.h5(folder / "B.h5", {"coords": tools.tiles()["B"][0]}, 1)


def of_slides(folder: Path) -> None:
    tools.h5(folder / "B.h5", {"features": np.zeros(3), "coords": tools.tiles()["B"][0]}, 1)


def of_text(folder: Path) -> None:
    places = tools.tiles()["B"][0]
    tools.h5(folder / "B.h5", {"features": np.full((6, 4), b"x"), "coords": places}, 1)


def of_no_length(folder: Path) -> None:
    import h5py

    with h5py.File(folder / "B.h5", "r+") as content:
        del content["features"]
        content["features"] = np.zeros((6, 0))


def between_pixels(folder: Path) -> None:
    places, features = tools.tiles()["B"]
    tools.trident(folder, {"B": (places + 0.5, features)})


def is_text(folder: Path) -> None:
    (folder / "B.h5").write_text("not at all")


@pytest.mark.parametrize(
    ("damage", "wrong", "found"),
    [
        (cut, "B.h5 is not a whole HDF5 file", "truncated file"),
        (is_text, "B.h5 is not a whole HDF5 file", "file signature not found"),
        (lengthened, "B.h5 has another number of embeddings", "6 embeddings, 5 coordinates"),
        (widened, "B.h5 has embeddings of another length", "8 and 4"),
        (not_finite, "Embeddings hold values that are NaN, null or infinite", "2 of 6 rows"),
        (emptied, "B.h5 has no tiles", "1 of 2 slides"),
        (doubled, "Two files are of one slide, B", "again"),
        (overlaid, "B.h5 has two tiles at one place", "2 at x=512, y=0, of 6 tiles at 5 places"),
        (of_another_encoder, "B.h5 has embeddings of another encoder", "conch_v1 and uni_v1"),
        (of_patches, "B.h5 has no dataset features", "coords"),
        (of_slides, "B.h5 does not hold one embedding a tile", "(3,)"),
        (of_text, "B.h5 does not hold embeddings", "of type |S1"),
        (of_no_length, "B.h5 does not hold embeddings", "0 values a tile"),
        (between_pixels, "B.h5 has x and y that are no whole pixels", "[0.5, 0.5]"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_fault_is_one_error_that_names_file_and_cause(
    damage: Break, wrong: str, found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source = tools.trident(tmp_path / "h5", tools.tiles())
    damage(source)
    assert cli.main(["import", "trident", str(source), "--to", "artifacts"]) == 2
    said = capsys.readouterr().err
    assert wrong in said
    assert found in said
    assert "B.h5" in said
    assert "Traceback" not in said
    read = damage is not_finite  # before a value is read, the first slide is whole
    assert list(files()) == (["embeddings/A.parquet"] if read else [])
    assert TO.exists() == read


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [0, 2, 1, 3]], ids=["sorted", "mixed"])
def test_coordinates_of_a_table_are_looked_at_before_anything_is_written(
    order: list[int], tmp_path: Path
):
    columns = {"slide_id": ["A", "A", "B", "B"], "x": [0, 1, 5, 5], "y": [0, 0, 7, 7]}
    table = pa.table({**columns, "embedding": [[float(n)] for n in range(4)]}).take(order)
    pq.write_table(table, tmp_path / "all.parquet")
    with pytest.raises(FeatureStoreError, match="2 at x=5, y=7, of 2 tiles at 1 places"):
        bring(tmp_path / "all.parquet", "arrow")
    assert not TO.exists()


def test_empty_slides_are_left_out_when_asked(tmp_path: Path):
    source = tools.trident(tmp_path / "h5", tools.tiles())
    emptied(source)
    with pytest.warns(match="1 slides have no tiles and are left out: B"):
        assert bring(source, skip_empty=True).slides == 1


def test_an_encoder_does_not_join_another_one(tmp_path: Path):
    bring(tools.trident(tmp_path / "h5", {"A": tools.tiles()["A"]}))
    of_another_encoder(tmp_path / "other")
    with pytest.raises(FeatureStoreError, match="another encoder"):
        bring(tmp_path / "other")


def test_slides_of_another_tool_or_encoder_are_not_replaced_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Nor a file that no import has made; what another one writes of other slides may join."""
    bring(tools.trident(tmp_path / "h5", tools.tiles()))
    before = files()
    clam = ["import", "clam", str(tools.clam(tmp_path / "features", tools.tiles(("B", "C"))))]
    assert cli.main([*clam, "--to", "artifacts"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "1 of the slides are in artifacts/embeddings already" in said
    assert (
        "1 slide of trident (embeddings of uni_v1: 4 numbers a tile); the first: B.parquet" in said
    )
    assert "--to FOLDER, or replace them: --replace" in said
    with pytest.raises(FeatureStoreError, match="not of this tool and encoder"):
        bring(tools.trident(tmp_path / "virchow", tools.tiles(), encoder="virchow"))
    assert files() == before
    assert cli.main([*clam, "--to", "artifacts", "--replace"]) == 0
    assert bring(tmp_path / "features", "clam").written == 0  # which is its own now
    Path("own/embeddings").mkdir(parents=True)
    pq.write_table(pa.table({"a": [1]}), "own/embeddings/B.parquet")
    assert cli.main([*clam, "--to", "own"]) == 2
    assert "1 slide of no import" in capsys.readouterr().err
    Path("own/embeddings/B.parquet").write_bytes(b"PAR1")  # what is not whole is nobody's loss
    assert cli.main([*clam, "--to", "own"]) == 0


def test_a_level_that_nobody_said_is_told_and_can_be_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    cohort = tools.tiles(("A",))
    places, features = cohort["A"]
    tools.h5(tmp_path / "h5" / "A.h5", {"features": features, "coords": places}, 1)
    for tool in ("trident", "clam"):
        argv = ["import", tool, str(tmp_path / "h5"), "--to", tool]
        assert cli.main(argv) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "pixels taken for those of level 0, which the files do not say; say it by" in said
        assert cli.main([*argv, "--level", "0", "--downsample", "4"]) == 0
        assert "x and y: pixels of level 0\n" in capsys.readouterr().out
        x = pq.read_table(f"{tool}/embeddings/A.parquet")["x"].to_numpy()
        np.testing.assert_array_equal(x, 4 * places[:, 0])


PICKLED = {"features": np.zeros(3)}


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["trident", "nowhere"], "There is no .h5 or .hdf5 of trident at nowhere"),
        (["trident", "h5", "--slide-id", "(x+)"], "--slide-id finds no slide"),
        (["trident", "h5", "--slide-id", "("], "--slide-id is no regular expression"),
        (["stamp", "stamp", "--level", "0"], "does not say how many are a pixel of level 0"),
        (["stamp", "stamp", "--level", "0", "--mpp", "0"], "is not how many micrometres"),
        (["stamp", "stamp", "--level", "0", "--mpp", "x.csv"], "neither a number nor a table"),
        (["clam", "clam/pt_files"], "holds embeddings without coordinates"),
        (["clam", "pickled", "--coords", "clam/patches"], "is no file of tensors alone"),
        (["eva", "eva"], "in which order eva wrote"),
        (["slide2vec", "clam/pt_files"], "has no coordinates beside it"),
        (["arrow", "tiles.parquet"], "has no column 'embedding' for embedding"),
        (["arrow", "tiles.parquet", "--columns", "a=b"], "--columns does not know a=b"),
        (["arrow", "tiles.parquet", "--columns", "embedding=name"], "does not hold embeddings"),
        (["arrow", "tiles.parquet", "--columns", "embedding=features", "--level", "0"],
         "does not say of which level"),
        (["arrow", "tiles.parquet", "--columns", "embedding=features", "--downsample", "4"],
         "which nobody asked for"),
        (["lance", "h5"], "is no table of Lance"),
        (["arrow", "."], "artifacts lies within ."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_cannot_be_read_is_refused(
    arguments: list[str], wrong: str, sources: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.chdir(sources)
    assert cli.main(["import", *arguments, "--to", "artifacts"]) == 2
    assert wrong in capsys.readouterr().err
    assert not Path("artifacts").exists()


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what some tools wrote."""
    import torch

    folder, cohort = tmp_path_factory.mktemp("sources"), tools.tiles()
    tools.trident(folder / "h5", cohort)
    tools.clam(folder / "clam", cohort)
    tools.stamp(folder / "stamp", cohort)
    tools.eva(folder / "eva", cohort)
    (folder / "pickled").mkdir()
    torch.save(PICKLED, folder / "pickled" / "A.pt")
    rows = {"slide_id": ["A"], "x": [0], "y": [0], "features": [[1.0]], "name": ["tile"]}
    pq.write_table(pa.table(rows), folder / "tiles.parquet")
    return folder


@pytest.mark.parametrize(
    ("library", "extra", "format"),
    [("h5py", "h5", "trident"), ("torch", "pt", "slide2vec"), ("lance", "lance", "lance")],
)
def test_a_library_that_is_missing_is_named_with_its_extra(
    library: str, extra: str, format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = {"trident": tools.trident, "slide2vec": tools.slide2vec}.get(format, tools.trident)(
        tmp_path / "own", tools.tiles()
    )
    monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(FeatureStoreError, match=rf"pip install 'tissue-probe\[{extra}\]'"):
        bring(source, format)


def test_a_pickle_is_never_run(tmp_path: Path):
    class Ran:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "ran",)

    import torch

    source = tools.clam(tmp_path / "clam", tools.tiles(), "pt")
    torch.save(Ran(), source / "pt_files" / "A.pt")
    request = Request("clam", source / "pt_files", coordinates=source / "patches")
    with pytest.raises(FeatureStoreError, match="could run code"):
        import_slides(request, TO)
    assert not (tmp_path / "ran").exists()


def test_a_source_that_changes_meanwhile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = tools.trident(tmp_path / "h5", tools.tiles())
    from featurestore.importing.parquet_file import SlideFile

    write = SlideFile.write

    def changing(self: SlideFile, *arguments: object) -> None:
        write(self, *arguments)
        self.slide.files[0].touch()

    with monkeypatch.context() as patch:
        patch.setattr(SlideFile, "write", changing)
        with pytest.raises(FeatureStoreError, match="changed while it was read"):
            bring(source)
    there = len(list(TO.rglob("*.parquet")))
    assert there
    assert bring(source).written == 2  # what came of it is not believed


def test_a_disk_that_fills_up_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(FeatureStoreError, match="No space left on device"):
        bring(tools.trident(tmp_path / "h5", tools.tiles()))
    assert not TO.exists()
