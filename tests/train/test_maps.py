"""Maps of predictions: what is written, read back by other programs' rules."""

import json
import re
import sys
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import shapely
import tifffile
from conftest import ROOT, launch
from mlflow.utils.uri import validate_path_is_safe
from PIL import Image

from featurestore.console import cli
from train import maps, probe
from train.overlays import checks, write
from train.overlays.label_map import NONE
from train.overlays.slides import classes_of, read_slides, read_tiles, slides_artifact
from train.plots.palette import ANSWERS, colours, rgb
from train.predictions.files import dataset
from train.predictions.partitions import file_name

NAMES = ["Fat", "Connective-Tissue", 'ä "b"/<c>']
EDGE = 'a/b "ü" %2F'  # a slide's name


def predicted(slide: str, x, y, pred, target=None) -> pa.Table:
    pred = np.array(pred)
    shares = np.full((len(pred), 3), 0.25, dtype=np.float32)
    shares[np.arange(len(pred)), pred] = 0.5
    columns = {"slide_id": [slide] * len(pred), "x": x, "y": y,
               "target": pa.array(target or [None] * len(pred), pa.int64()),
               "pred": pred}  # fmt: skip
    return pa.table(columns | {f"prob_{n}": shares[:, i].copy() for i, n in enumerate(NAMES)})


def slides(rows: dict[str, dict], name: str = "slides.parquet") -> str:
    usual = {"path": "x.svs", "extent_x": 70, "extent_y": 50, "tile_extent_x": 20, "mpp_x": 0.5,
             "tile_extent_y": 20, "stride_x": 20, "stride_y": 20, "mpp_y": 0.25,
             "level": 0}  # fmt: skip
    pq.write_table(pa.Table.from_pylist([{"id": i, **usual, **r} for i, r in rows.items()]), name)
    return name


def one(pred=(0, 0, 2, 1), target=(0, 1, 2, None), slide: str = EDGE) -> str:
    """Write a slide of 2 x 2 tiles that begins at 20, 0."""
    table = predicted(slide, [20, 40, 20, 40], [0, 0, 20, 20], pred, list(target))
    pq.write_table(table, "predictions.parquet")
    return "predictions.parquet"


def made(*argv: str) -> Path:
    assert maps.main([*argv, "output=maps"]) == 0
    return Path("maps")


def features(folder: Path) -> list[dict]:
    [file] = folder.glob("*.geojson")
    content = json.loads(file.read_text())
    assert content["type"] == "FeatureCollection"
    return content["features"]


@pytest.mark.slow
def test_a_region_is_an_annotation_that_qupath_reads(capsys):
    """Class with name and colour, locked, measurements as a map of numbers: QuPath's own form."""
    folder = made(f"predictions={one()}", f"data.slides={slides({EDGE: {}})}")
    polygons = features(folder)
    assert [f["properties"]["classification"]["name"] for f in polygons] == NAMES
    first = polygons[0]
    assert first["type"] == "Feature"
    assert shapely.from_geojson(json.dumps(first["geometry"])).equals(shapely.box(20, 0, 60, 20))
    colour = list(rgb(colours(3)[0]))
    assert first["properties"] == {
        "objectType": "annotation",
        "classification": {"name": "Fat", "color": colour}, "color": colour,
        "isLocked": True,
        "measurements": {"Mean probability": 0.5, "Least probability": 0.5, "Tiles": 2,
                         "Region area µm²": 40 * 20 * 0.5 * 0.25},
    }  # fmt: skip
    assert {f["geometry"]["type"] for f in polygons} == {"Polygon"}
    assert "checked against the tiles" in capsys.readouterr().out


@pytest.mark.slow
def test_each_tile_has_its_own_polygon_with_all_probabilities():
    """Overlapping or not: the box that its row stands for."""
    table = predicted(EDGE, [3, 13], [0, 5], [1, 2], [2, None])
    pq.write_table(table, "predictions.parquet")
    folder = made("predictions=predictions.parquet", f"data.slides={slides({EDGE: {}})}",
                  "maps.regions=false")  # fmt: skip
    shapes = [shapely.from_geojson(json.dumps(f["geometry"])) for f in features(folder)]
    assert [shape.bounds for shape in shapes] == [(3, 0, 23, 20), (13, 5, 33, 25)]
    first, second = (f["properties"] for f in features(folder))
    assert first["objectType"] == "detection"
    assert first["measurements"] == {
        "Probability": 0.5, "Probability: Fat": 0.25, "Probability: Connective-Tissue": 0.5,
        f"Probability: {NAMES[2]}": 0.25, "Right": 0,
    }  # fmt: skip
    assert first["metadata"] == {"label": NAMES[2]}
    assert "Right" not in second["measurements"] and "metadata" not in second


@pytest.mark.slow
def test_tiles_of_another_level_are_written_in_full_resolution():
    content = slides({EDGE: {"level": 2}})
    folder = made(f"predictions={one()}", f"data.slides={content}", "maps.downsample=4.5")
    shape = shapely.from_geojson(json.dumps(features(folder)[0]["geometry"]))
    assert shape.bounds == (90, 0, 270, 90)
    assert features(folder)[0]["properties"]["measurements"]["Region area µm²"] == 100


@pytest.mark.slow
def test_a_map_has_the_slides_extent_and_pixel_size():
    """70 x 50 pixels in steps of 20: 4 x 3, reaching 10 over either border; 10 and 5 µm a pixel."""
    folder = made(f"predictions={one()}", f"data.slides={slides({EDGE: {}})}")
    [file] = folder.glob("*.classes.ome.tif")
    with tifffile.TiffFile(file) as tiff:
        assert tiff.is_bigtiff and tiff.is_ome
        page, [series] = tiff.pages[0], tiff.series
        assert page.is_tiled and page.compression.name == "ADOBE_DEFLATE"
        assert [level.shape for level in series.levels] == [(3, 4, 3), (2, 2, 3)]
        assert page.tags["ResolutionUnit"].value == 3  # centimetres
        assert page.get_resolution("MICROMETER") == pytest.approx((1 / 10, 1 / 5))
        assert 'PhysicalSizeX="10.0" PhysicalSizeXUnit="µm" PhysicalSizeY="5.0"' in (
            tiff.ome_metadata
        )
        notes = tifffile.xml2dict(tiff.ome_metadata)["OME"]["StructuredAnnotations"]
        assert f"colour of {NAMES[2]}" in str(notes)
        assert "10 pixels of that level on the right, 10 below" in str(notes)
    white, fat, tissue, other = ((255, 255, 255), *map(rgb, colours(3)))
    assert tifffile.imread(file).tolist() == [
        [list(colour) for colour in row]
        for row in ([white, fat, fat, white], [white, other, tissue, white], [white] * 4)
    ]


def test_the_error_map_tells_right_wrong_and_unknown():
    folder = made(f"predictions={one()}", f"data.slides={slides({EDGE: {}})}")
    [file] = folder.glob("*.errors.ome.tif")
    right, wrong, unknown = (list(rgb(colour)) for colour in ANSWERS.values())
    pixels = tifffile.imread(file).tolist()
    assert [row[1:3] for row in pixels[:2]] == [[right, wrong], [right, unknown]]
    assert pixels[2] == [[255, 255, 255]] * 4


def noisy(stride: int, seed: int = 0) -> tuple[str, str]:
    """Write a slide of 400 tiles of 24 pixels in random classes."""
    rng = np.random.default_rng(seed)
    place = rng.permutation(900)[:400]
    shares = rng.dirichlet(np.ones(3), 400).astype(np.float32)
    table = predicted("s", place % 30 * stride, place // 30 * stride, shares.argmax(axis=1))
    for index, name in enumerate(NAMES):
        at = table.column_names.index(f"prob_{name}")
        table = table.set_column(at, f"prob_{name}", pa.array(shares[:, index].copy()))
    pq.write_table(table, "predictions.parquet")
    size = {"extent_x": 1000, "extent_y": 900, "tile_extent_x": 24, "tile_extent_y": 24}
    return "predictions=predictions.parquet", f"data.slides={slides({'s': size})}"


@pytest.mark.slow
@pytest.mark.parametrize("stride", [24, 12, 10, 30])
def test_regions_and_pixels_say_the_same(stride):
    """Beside each other, overlapping evenly or not, with gaps: in the middle of every pixel."""
    folder = made(*noisy(stride))
    image = tifffile.imread(folder / "s.classes.ome.tif", level=0)
    pixel = pq.read_table(folder / "index.parquet")["map_pixel"][0].as_py()
    assert pixel == np.gcd(24, stride)
    row, column = np.mgrid[: image.shape[0], : image.shape[1]]
    drawn = np.full(image.shape, 255)
    for polygon in features(folder):
        shape = shapely.from_geojson(json.dumps(polygon["geometry"]))
        inside = shapely.contains_xy(shape, (column + 0.5) * pixel, (row + 0.5) * pixel)
        drawn[inside] = polygon["properties"]["classification"]["color"]
    np.testing.assert_array_equal(image, drawn)


@pytest.mark.slow
def test_levels_hold_no_colour_that_the_map_does_not_hold():
    folder = made(*noisy(10))
    with tifffile.TiffFile(folder / "s.classes.ome.tif") as tiff:
        levels = [level.asarray().reshape(-1, 3) for level in tiff.series[0].levels]
    assert len(levels) > 2
    known = set(map(tuple, levels[0].tolist()))
    assert all(set(map(tuple, level.tolist())) <= known for level in levels)


def test_openslide_and_libvips_read_the_pixel_size():
    openslide, vips = pytest.importorskip("openslide"), pytest.importorskip("pyvips")
    folder = made(*noisy(24))
    file = folder / "s.classes.ome.tif"
    properties = openslide.OpenSlide(file).properties
    assert float(properties["openslide.mpp-x"]) == pytest.approx(12)
    assert 1000 / vips.Image.new_from_file(file).xres == pytest.approx(12)


@pytest.mark.parametrize("form", ["regions", "tiles of another level"])
def test_maps_come_back_in_as_annotations_and_give_the_labels(form: str):
    """`featurestore cover` on what was drawn: each tile is its class, wholly, and nothing else."""
    argv = noisy(24)
    level = {"level": 1, "downsample": 3.7} if form != "regions" else {}
    size = {"extent_x": 1000, "extent_y": 900, "tile_extent_x": 24, "tile_extent_y": 24}
    slides({"s": size | level})
    folder = made(*argv, f"maps.regions={str(form == 'regions').lower()}")
    indices = {name: index for index, name in enumerate(NAMES)}
    Path("classes.yaml").write_text(json.dumps({"class_indices": indices}))
    command = ["cover", "--tiles", "predictions.parquet", "--slides", "slides.parquet",
               "--annotations", str(folder), "--classes", "classes.yaml", "--detections",
               "--to", "tiles.parquet"]  # fmt: skip
    predictions = pq.read_table("predictions.parquet").sort_by(
        [("x", "ascending"), ("y", "ascending")]
    )
    assert cli.main(command) == 0
    table = pq.read_table("tiles.parquet")
    assert table.select(["x", "y"]).equals(predictions.select(["x", "y"]))
    coverages = np.stack([table[f"roi_coverage_{name}"] for name in NAMES], axis=1)
    np.testing.assert_array_equal(coverages, np.eye(3)[predictions["pred"].to_numpy()])


def test_names_of_files_give_the_slides_back():
    folder = made(f"predictions={one()}", f"data.slides={slides({EDGE: {}})}")
    [row] = pq.read_table(folder / "index.parquet").to_pylist()
    assert row["slide_id"] == EDGE
    for kind in ("geojson", "classes", "errors", "overview"):
        assert (folder / row[kind]).is_file()
        assert unquote(row[kind].split(".")[0].replace("=", "%")) == EDGE
    assert (row["tiles"], row["labelled"], row["accuracy"]) == (4, 3, pytest.approx(2 / 3))
    assert Image.open(folder / row["overview"]).size[0] > 500


def test_names_of_files_are_short_and_unique_on_every_disk():
    """Names that are long, that differ in case alone, and one that needs nothing.

    MLflow's server finds them in URLs as they are.
    """
    names = ["ü" * 300, "ü" * 299 + "o", "a", "A", "é", "e\u0301", "plain", "a=2Fb", "a/b", "#1?"]
    stems = write.file_stems(names)
    assert len({stem.casefold() for stem in stems.values()}) == len(names)
    assert max(map(len, stems.values())) <= 200
    assert stems["plain"] == "plain"
    for stem in stems.values():
        assert unquote(stem) == validate_path_is_safe(stem) == stem


def test_a_slide_without_labels_has_no_error_map():
    file = one(target=[None] * 4)
    folder = made(f"predictions={file}", f"data.slides={slides({EDGE: {}})}")
    [row] = pq.read_table(folder / "index.parquet").to_pylist()
    assert (row["errors"], row["accuracy"]) == (None, None)
    assert not list(folder.glob("*errors*"))


def several() -> tuple[str, str]:
    """Write four slides: half right, all wrong with one tile, all wrong with two, no label."""
    tables = [
        predicted("half", [0, 20], [0, 0], [0, 0], [0, 1]),
        predicted("one", [0], [0], [0], [1]),
        predicted("two", [0, 20], [0, 0], [0, 0], [1, 1]),
        predicted("unknown", [0], [0], [0]),
    ]
    pq.write_table(pa.concat_tables(tables), "predictions.parquet")
    file = slides({name: {} for name in ("half", "one", "two", "unknown")})
    return "predictions=predictions.parquet", f"data.slides={file}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("worst:2", ["two", "one"]),
        ("worst:20", ["two", "one", "half"]),
        ("all", ["half", "one", "two", "unknown"]),
        ("unknown, half", ["unknown", "half"]),
    ],
)
def test_the_worst_come_first_and_those_with_more_tiles_before_others(asked, expected):
    folder = made(*several(), f"maps.slides={asked}")
    assert pq.read_table(folder / "index.parquet")["slide_id"].to_pylist() == expected


@pytest.mark.slow
def test_a_folder_of_partitions_is_read_by_its_quoted_names():
    """Names that look like numbers stay names."""
    table = pa.concat_tables([predicted(EDGE, [0], [0], [0]), predicted("0012", [20], [0], [2])])
    ds.write_dataset(table, "parts", format="parquet", partitioning=ds.partitioning(
        pa.schema([("slide_id", pa.string())]), flavor="hive"))  # fmt: skip
    folder = made("predictions=parts", f"data.slides={slides({EDGE: {}, '0012': {}})}")
    assert pq.read_table(folder / "index.parquet")["slide_id"].to_pylist() == ["0012", EDGE]
    tiles = read_tiles(
        dataset("parts", None), read_slides(slides_artifact("slides.parquet"), None)["0012"], NAMES
    )  # fmt: skip
    assert (tiles.x.tolist(), tiles.pred.tolist(), tiles.target.tolist()) == ([20], [2], [NONE])


def test_of_a_folder_with_a_file_a_slide_one_file_is_read_for_a_slide():
    folder = Path("parts")
    folder.mkdir()
    for name in (EDGE, "0012"):
        pq.write_table(predicted(name, [20], [0], [2]), folder / file_name(name))
    slides_file = slides({EDGE: {}, "0012": {}})
    parts = dataset("parts", None)
    (folder / file_name(EDGE)).write_bytes(b"no Parquet any more")
    tiles = read_tiles(parts, read_slides(slides_artifact(slides_file), None)["0012"], NAMES)
    assert (tiles.x.tolist(), tiles.pred.tolist()) == ([20], [2])


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_keys_of_any_string_type_are_the_same(kind):
    table = predicted("s", [0], [0], [0])
    pq.write_table(table.set_column(0, "slide_id", table["slide_id"].cast(kind)), "p.parquet")
    assert classes_of(dataset("p.parquet", None)) == NAMES
    made("predictions=p.parquet", f"data.slides={slides({'s': {}})}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["maps.slides=tow"], "There is no slide 'tow'.*did you mean 'two'"),
        (["maps.slides=worst:none"], "how many of the worst"),
        (["maps.slides=worst"], "how many of the worst"),
        (["data.slides=nowhere.parquet"], "no Parquet file at nowhere.parquet"),
        (["predictions=nowhere.parquet"], "no Parquet file at nowhere.parquet"),
        (["predictions=slides.parquet"], "Predictions lack slide_id"),
        (["map.slides=all"], "no configuration key"),
        (["uri=sqlite:///mlflow.db"], "no configuration key 'uri'.*did you mean 'tracking.uri'"),
        (["slides=slides.parquet"], "no configuration key 'slides'.*did you mean 'data.slides'"),
        (["data.slides=level.parquet"], "not cut from its full resolution.*maps.downsample"),
        (["data.slides=some.parquet"], "1 of 4 slides are not among"),
        (["data.slides=bare.parquet"], "Slides lack mpp_x"),
        (["data.slides=zero.parquet"], "Slide half has no mpp_x"),
        (["data.slides=small.parquet"], "begin outside"),
    ],
)
def test_what_cannot_be_mapped_is_refused_and_nothing_is_written(change, words, capsys):
    names = ("half", "one", "two", "unknown")
    slides({name: {"level": 1} for name in names}, "level.parquet")
    slides({name: {} for name in names[:3]}, "some.parquet")
    slides({name: {"extent_x": 15} for name in names}, "small.parquet")
    slides({name: {"mpp_x": 0.0} for name in names}, "zero.parquet")
    arguments = several()
    pq.write_table(pq.read_table("slides.parquet").drop(["mpp_x"]), "bare.parquet")
    changed = {argument.partition("=")[0] for argument in change}
    kept = [argument for argument in arguments if argument.partition("=")[0] not in changed]
    assert maps.main([*kept, *change]) == 2
    error = capsys.readouterr().err
    assert re.search(words, error, re.DOTALL), error
    assert error.count("to do:") == 1
    assert not Path("maps").exists() and not list(Path().glob(".building*"))


def test_without_labels_nobody_is_the_worst(capsys):
    arguments = [f"predictions={one(target=[None] * 4)}", f"data.slides={slides({EDGE: {}})}"]
    assert maps.main([*arguments, "maps.slides=worst:3"]) == 2
    assert "Without labels no slide can be the worst" in capsys.readouterr().err


def test_a_folder_that_is_there_is_kept(capsys):
    Path("maps").mkdir()
    assert maps.main([f"predictions={one()}", f"data.slides={slides({EDGE: {}})}"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert not list(Path("maps").iterdir())


def test_a_missing_package_is_said_before_any_work(monkeypatch, capsys):
    monkeypatch.setattr(checks, "NEEDED", ("shapely", "not_there"))
    assert maps.main(["predictions=nowhere.parquet"]) == 2
    error = capsys.readouterr().err
    assert "no not_there" in error and "pip install -e '.[maps]'" in error


@pytest.mark.slow
def test_help_needs_neither_torch_nor_shapely():
    heavy = "{'torch', 'mlflow', 'shapely', 'sklearn'}"
    code = f"import sys; from train import maps; maps.main(['--help']); " \
           f"print(sorted({heavy} & set(sys.modules)))"  # fmt: skip
    done = launch([sys.executable, "-c", code], ROOT)
    assert done.stdout.endswith("[]\n") and "maps.slides" in done.stdout


@pytest.mark.slow
def test_a_runs_predictions_are_mapped_with_the_slides_that_it_has_recorded(
    digits_home, monkeypatch
):
    """The fit of the main command: its validation tiles, of digits 8 pixels wide."""
    monkeypatch.chdir(digits_home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{digits_home / 'mlflow.db'}")
    assert maps.main(["predictions=models:/tissue-probe/1", "output=of-run",
                      "maps.slides=worst:2"]) == 0  # fmt: skip
    [worst, next_one] = pq.read_table("of-run/index.parquet").to_pylist()
    assert worst["accuracy"] <= next_one["accuracy"]
    assert (worst["map_pixel"], worst["map_mpp_x"]) == (8, 4.0)


def small_run(artifacts, *argv: str) -> int:
    """Run the script on twelve tiles of four slides; fold 1 is the last two slides."""
    arguments = [f"{key}={value}" for key, value in artifacts(
        {"fold": [n // 3 % 2 for n in range(12)], "x": [n % 3 * 20 for n in range(12)],
         "y": [0] * 12}, {"x": [n % 3 * 20 for n in range(12)]}).items()]  # fmt: skip
    content = slides({f"s{n}": {} for n in range(4)})
    Path("two.yaml").write_text(
        "class_indices: {Fat: 0, Muscle: 1}\nthresholds: {Fat: 0.5, Muscle: 0.5}\n"
    )
    where = [] if "data.slides=null" in argv else [f"data.slides={content}"]
    return probe.main([
        "classes=two.yaml", "data.builder=none", "max_epochs=2", "tracking.enabled=false",
        *where, "output=out", *arguments, *argv,
    ])  # fmt: skip


@pytest.mark.slow
def test_a_fit_maps_the_tiles_that_it_validated_on(artifacts):
    """And the same command again replaces them, as it does its other files."""
    for _ in range(2):
        assert small_run(artifacts, "fold=1", "maps.slides=all") == 0
        index = pq.read_table("out/maps/index.parquet")
        assert index["slide_id"].to_pylist() == ["s1", "s3"]
        assert index["tiles"].to_pylist() == [3, 3]


@pytest.mark.slow
def test_a_folder_of_maps_that_holds_something_else_is_kept(artifacts, capsys):
    Path("out/maps").mkdir(parents=True)
    Path("out/maps/notes.txt").write_text("mine")
    assert small_run(artifacts, "fold=1", "maps.slides=all") == 2
    assert "is there already" in capsys.readouterr().err
    assert Path("out/maps/notes.txt").read_text() == "mine"


@pytest.mark.slow
def test_a_pack_maps_its_out_of_fold_predictions(artifacts):
    assert small_run(artifacts, "fold=all", "maps.slides=worst:1") == 0
    assert len(pq.read_table("out/oof_maps/index.parquet")) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["maps.slides=s0"], "There is no slide 's0'"),  # of the training tiles
        (["maps.slides=s1", "data.slides=null"], "No slides artifact"),
        (["maps.slides=worst:0"], "how many of the worst"),
    ],
)
def test_a_run_that_cannot_be_mapped_is_refused_before_it_trains(artifacts, change, words, capsys):
    assert small_run(artifacts, "fold=1", *change) == 2
    assert words in capsys.readouterr().err
    assert not Path("out").exists()
