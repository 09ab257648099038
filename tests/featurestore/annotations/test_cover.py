"""`featurestore cover`: grids, names of slides, what is written, what is refused."""

import gzip
import json
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.annotations import cover as module
from featurestore.annotations.grid import by_slide, lattice
from featurestore.console import cli

SLIDE = {"extent_x": 50, "extent_y": 20, "tile_extent_x": 20, "tile_extent_y": 20, "level": 0}


@pytest.fixture(autouse=True)
def _inputs() -> None:
    """Two slides of 50 x 20, one of them annotated: Fat in 0 to 30, Muscle in 30 to 60."""
    Path("classes.yaml").write_text(
        "class_indices: {Fat: 0, Muscle: 1}\nthresholds: {Fat: 0.5, Muscle: 0.5}\n"
    )
    slides({"s1": {}, "s2": {}})
    annotated("s1.geojson", area("Fat", 0, 30), area("Muscle", 30, 60))


def slides(rows: dict[str, dict], name: str = "slides.parquet") -> None:
    pq.write_table(pa.Table.from_pylist([{"id": i, **SLIDE, **r} for i, r in rows.items()]), name)


def tiles(columns: dict, name: str = "tiles.parquet") -> None:
    pq.write_table(pa.table(columns), name)


def area(kind: str | None, left: float, right: float, low: float = 0, high: float = 20) -> dict:
    ring = [[left, low], [right, low], [right, high], [left, high], [left, low]]
    named = {"classification": {"name": kind, "color": [1, 2, 3]}} if kind else {}
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"objectType": "annotation", **named}}  # fmt: skip


def annotated(name: str, *features: dict) -> None:
    file = Path("annotations", name)
    file.parent.mkdir(exist_ok=True, parents=True)
    content = json.dumps({"type": "FeatureCollection", "features": features}).encode()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)


ALL = ["--annotations", "annotations", "--classes", "classes.yaml"]


def cover(*argv: str, to: str = "out.parquet") -> list[tuple]:
    """Run the command; return slide, x, y, Fat, Muscle of each tile."""
    assert cli.main(["cover", *ALL, "--to", to, *argv]) == 0
    return rows(to)


def rows(file: str) -> list[tuple]:
    names = ["slide_id", "x", "y", "roi_coverage_Fat", "roi_coverage_Muscle"]
    return list(zip(*(pq.read_table(file)[name].to_pylist() for name in names), strict=True))


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command that must be refused; return its message."""
    before = sorted(Path().rglob("*"))
    assert cli.main(["cover", *ALL, "--to", "new/out.parquet", *argv]) == 2
    assert sorted(Path().rglob("*")) == before, "something stays"
    return capsys.readouterr().err


GRID = [("s1", 0, 0, 1.0, 0.0), ("s1", 20, 0, 0.5, 0.5), ("s1", 40, 0, 0.0, 1.0)]


def test_a_grid_over_the_extents_of_slides(capsys: pytest.CaptureFixture[str]):
    """The last tile reaches over the slide's end; a slide that nobody looked at has no tile."""
    assert cover("--tiles", "slides.parquet") == GRID
    told = capsys.readouterr()
    assert "out.parquet: 3 tiles of 1 slide\n" in told.out
    assert "1 slides have no annotations and are left out: s2" in told.err
    schema = pq.read_schema("out.parquet")
    assert (schema.field("x").type, schema.field("slide_id").type) == (pa.int64(), pa.string())
    assert cover("--tiles", "slides.parquet", "--edge", "drop") == GRID[:2]


def test_the_command_line_goes_before_the_slides():
    got = cover("--tiles", "slides.parquet", "--tile-size", "10,20", "--stride", "25,20",
                "--origin", "2,0")  # fmt: skip
    assert got == [("s1", 2, 0, 1.0, 0.0), ("s1", 27, 0, 0.3, 0.7), ("s1", 52, 0, 0.0, 0.8)]


def test_the_slides_say_the_stride():
    slides({"s1": {"stride_x": 10, "stride_y": 20}})
    assert [row[1] for row in cover("--tiles", "slides.parquet")] == [0, 10, 20, 30]


def test_tiles_as_they_are_keep_their_columns():
    """Whatever their order; an embedding is not among them."""
    tiles({"slide_id": ["s1", "s2", "s1"], "x": [20, 0, 0], "y": [0, 0, 0],
           "patient_id": ["p", "q", "p"], "embedding": [[1.0]] * 3})  # fmt: skip
    assert cover("--tiles", "tiles.parquet", "--tile-size", "20") == GRID[:2]
    assert cover("--tiles", "tiles.parquet", "--slides", "slides.parquet") == GRID[:2]
    table = pq.read_table("out.parquet")
    assert table.column_names == [
        "slide_id", "x", "y", "patient_id", "roi_coverage_Fat", "roi_coverage_Muscle",
    ]  # fmt: skip
    assert table["patient_id"].to_pylist() == ["p", "p"]


def test_without_tiles_the_grid_is_over_what_was_annotated():
    assert cover("--tile-size", "20") == GRID
    annotated("s1.geojson", area("Fat", 85, 95, 45, 55))
    assert cover("--tile-size", "20", "--origin", "10,10") == [("s1", 70, 30, 0.0625, 0.0),
        ("s1", 90, 30, 0.0625, 0.0), ("s1", 70, 50, 0.0625, 0.0),
        ("s1", 90, 50, 0.0625, 0.0)]  # fmt: skip


def test_where_nothing_was_annotated_there_is_no_tile():
    annotated("s2.geojson", area(None, 0, 5))
    assert cover("--tile-size", "20") == GRID


def test_classes_that_are_merged_or_dropped_have_columns():
    """Rules act on coverages: annotations are read once for all of them."""
    Path("classes.yaml").write_text(
        "class_indices: {Fat: 0, Muscle: 1}\nmerge: {Muscle: [Scar]}\ndrop: [Pen]\n"
    )
    annotated("s1.geojson", area("Fat", 0, 30), area("Scar", 30, 40), area("Pen", 40, 50))
    cover("--tiles", "slides.parquet")
    table = pq.read_table("out.parquet")
    assert table["roi_coverage_Scar"].to_pylist() == [0.0, 0.5, 0.0]
    assert table["roi_coverage_Pen"].to_pylist() == [0.0, 0.0, 0.5]


@pytest.mark.parametrize("how", ["option", "column"])
def test_tiles_of_another_level(how: str):
    """Tiles of 5 pixels, each of which is 4 of full resolution."""
    more = {"downsample": 4.0} if how == "column" else {}
    slides({"s1": {"level": 1, "tile_extent_x": 5, "tile_extent_y": 5, "extent_x": 13,
                   "extent_y": 5, **more}})  # fmt: skip
    options = ["--downsample", "4"] if how == "option" else []
    got = cover("--tiles", "slides.parquet", *options)
    assert got == [("s1", x // 4, y, fat, muscle) for _, x, y, fat, muscle in GRID]


def test_an_offset_moves_the_annotations():
    assert cover("--tiles", "slides.parquet", "--offset", "10,0")[0] == ("s1", 0, 0, 0.5, 0.0)


@pytest.mark.parametrize(
    "argv", [["annotations/*.geojson*"], ["annotations"], ["annotations/a", "annotations/s1.xml"]]
)
def test_files_folders_and_globs(argv: list[str]):
    """All files of a slide count: a class is what they cover together."""
    annotated("a/s1.geojson.gz", area("Fat", 0, 30), area("Muscle", 30, 60))
    Path("annotations/s1.xml").write_text(
        '<ASAP_Annotations><Annotations><Annotation Type="Polygon" PartOfGroup="Fat"><Coordinates>'
        '<Coordinate Order="0" X="0" Y="0"/><Coordinate Order="1" X="9" Y="0"/>'
        '<Coordinate Order="2" X="9" Y="9"/></Coordinates></Annotation></Annotations>'
        '<AnnotationGroups><Group Name="Fat" PartOfGroup="None"/></AnnotationGroups>'
        "</ASAP_Annotations>"
    )
    options = ["cover", "--annotations", *argv, "--classes", "classes.yaml", "--to", "out.parquet"]
    assert cli.main([*options, "--tiles", "slides.parquet"]) == 0
    assert rows("out.parquet") == GRID


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "slide", "options"),
    [
        ("b%2Fc%20ü.geojson", "b/c ü", []),
        ("s1.svs - tumour.geojson", "s1", ["--slide-id", r"^(.+)\.svs"]),
        ("TCGA-A1 x.json", "TCGA-A1", ["--slide-id", r"TCGA-\w+"]),
        ("u\u0308.geojson", "ü", []),
    ],
)
def test_a_files_name_says_the_slide(file: str, slide: str, options: list[str]):
    slides({slide: {}})
    Path("annotations/s1.geojson").rename(Path("annotations", file))
    assert [row[0] for row in cover("--tiles", "slides.parquet", *options)] == [slide] * 3


def test_what_is_passed_over_is_told(capsys: pytest.CaptureFixture[str]):
    bow = area("Fat", 0, 1)
    bow["geometry"]["coordinates"] = [[[0, 0], [30, 20], [30, 0], [0, 20], [0, 0]]]
    point = area("Fat", 0, 1) | {"geometry": {"type": "Point", "coordinates": [1, 1]}}
    cell = area("Fat", 0, 50)
    cell["properties"]["objectType"] = "cell"
    annotated("s1.geojson", bow, area(None, 0, 50), point, cell, area("Region*", 0, 50),
              area("Muscle", 25, 60))  # fmt: skip
    cover("--tiles", "slides.parquet", "--ignore", "Region*")
    told = " ".join(capsys.readouterr().err.split())
    assert "1 of 2 polygons cross themselves and were repaired" in told
    assert "1 objects do not count: annotations without a class" in told
    assert "1 objects do not count: points, lines" in told
    assert "1 objects do not count: detections, which --detections counts as well" in told
    assert "1 objects do not count: annotations of a class that --ignore names" in told
    assert "Fat and Muscle are drawn over each other: 83 square pixels" in told
    assert "in 1 tiles, count for both" in told


def test_detections_count_if_asked(capsys: pytest.CaptureFixture[str]):
    cell = area("Fat", 0, 50)
    cell["properties"]["objectType"] = "cell"
    annotated("s1.geojson", cell)
    assert cover("--tiles", "slides.parquet")[0][3] == 0.0
    assert "no polygon is of some classes: Fat, Muscle" in capsys.readouterr().err
    assert cover("--tiles", "slides.parquet", "--detections")[0][3] == 1.0


def test_an_annotation_of_a_derived_class_is_one_of_its_base():
    annotated("s1.geojson", area("Fat: brown", 0, 50))
    assert cover("--tiles", "slides.parquet")[0][3] == 1.0


REFUSED = {
    "unknown classes": (["--tiles", "slides.parquet"],
                        ["'Musle' (2), 'Blood' (1)", "did you mean 'Muscle'?", "--ignore"]),
    "nothing in common": (["--tiles", "slides.parquet", "--slide-id", "x|^"],
                          ["No file of annotations is of a slide", "tiles of s1, s2"]),
    "name without a slide": (["--tile-size", "20", "--slide-id", "(TCGA)"],
                             ["does not say which slide", "s1"]),
    "pattern": (["--tile-size", "20", "--slide-id", "("], ["is no regular expression"]),
    "no size of tiles": ([], ["how large tiles are", "--tile-size"]),
    "tiles without size": (["--tiles", "tiles.parquet"],
                           ["tile_extent_x", "set --slides slides.parquet or --tile-size 224"]),
    "slides without size": (["--tiles", "tiles.parquet", "--slides", "sizeless.parquet"],
                            ["no such columns", "to do: set --tile-size 224"]),
    "CLAM's, without patches": (
        ["--slides", "clam.parquet"],
        ["no such columns in its row of slides, which is of clam",
         "import again with --coords patches/", "--tile-size 224"]),
    "coverages": (["--tiles", "covered.parquet"], ["coverages already", "roi_coverage_Fat"]),
    "keys twice": (["--tiles", "twice.parquet", "--tile-size", "9"], ["more than once"]),
    "level": (["--tiles", "level.parquet"], ["full resolution", "level 2", "--downsample 4"]),
    "no grid": (["--tiles", "classes.parquet"], ["key column slide_id"]),
    "no tiles": (["--tiles", "slides.parquet", "--tile-size", "99", "--edge", "drop"],
                 ["no tiles to cover"]),
    "no classes": (["--tiles", "slides.parquet", "--classes", "empty.yaml"], ["names no class"]),
    "no such classes": (["--tiles", "slides.parquet", "--classes", "no.yaml"], ["No such file"]),
    "key of classes": (["--tiles", "slides.parquet", "--classes", "key.yaml"],
                       ["'class_index'", "did you mean"]),
    "no annotations": (["--tiles", "slides.parquet", "--annotations", "a*.geojson"],
                       ["no annotations at a*.geojson"]),
    "another format": (["--tiles", "slides.parquet", "--annotations", "classes.yaml"],
                       ["no file of annotations", "GeoJSON of QuPath"]),
    "broken JSON": (["--tiles", "slides.parquet", "--annotations", "bad/s1.geojson"],
                    ["bad/s1.geojson holds no annotations"]),
    "broken XML": (["--tiles", "slides.parquet", "--annotations", "bad/s1.xml"],
                   ["bad/s1.xml holds no annotations"]),
    "broken gzip": (["--tiles", "slides.parquet", "--annotations", "bad/s1.json.gz"],
                    ["bad/s1.json.gz holds no annotations"]),
    "another program": (["--tiles", "slides.parquet", "--annotations", "bad/s2.xml"],
                        ["XML of another program: <Slide>"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, capsys: pytest.CaptureFixture[str]):
    argv, words = REFUSED[name]
    key = {"slide_id": ["s1"], "x": [0], "y": [0]}
    tiles(key)
    tiles(key | {"roi_coverage_Fat": [0.0]}, "covered.parquet")
    tiles({name: column * 2 for name, column in key.items()}, "twice.parquet")
    tiles({"class": ["Fat"]}, "classes.parquet")
    slides({"s1": {"level": 2}}, "level.parquet")
    unsaid = {"id": ["s1", "s2"], "level": [0, 0]}
    tiles(unsaid, "sizeless.parquet")
    tiles(unsaid | {"source": ["clam"] * 2}, "clam.parquet")
    Path("empty.yaml").write_text("tissue_prop_min: 0.1\n")
    Path("key.yaml").write_text("class_index: {Fat: 0}\n")
    if name == "unknown classes":
        annotated("s1.geojson", area("Musle", 0, 1), area("Fat", 0, 1))
        annotated("s2.geojson", area("Blood", 0, 1), area("Musle", 0, 1))
    for file, content in {"s1.geojson": b'{"type": ', "s1.xml": b"<a>", "s1.json.gz": b"no",
                          "s2.xml": b"<Slide />"}.items():  # fmt: skip
        Path("bad").mkdir(exist_ok=True)
        Path("bad", file).write_bytes(content)
    message = refused(capsys, *argv)
    assert message.count("error: ") == 1
    assert all(word in " ".join(message.split()) for word in words), message


def test_tiles_are_not_written_over_what_is_read(capsys: pytest.CaptureFixture[str]):
    before = Path("slides.parquet").read_bytes()
    assert cli.main(["cover", *ALL, "--tiles", "slides.parquet", "--to", "slides.parquet"]) == 2
    assert "which is read" in capsys.readouterr().err
    assert Path("slides.parquet").read_bytes() == before


def test_an_earlier_file_stays_if_the_new_one_is_refused(capsys: pytest.CaptureFixture[str]):
    cover("--tiles", "slides.parquet")
    annotated("s1.geojson", area("Nerve", 0, 1))
    assert cli.main(["cover", *ALL, "--tiles", "slides.parquet", "--to", "out.parquet"]) == 2
    assert rows("out.parquet") == GRID
    assert not list(Path().glob(".building*"))


def test_shapely_is_asked_for_by_name(capsys: pytest.CaptureFixture[str]):
    with patch("importlib.util.find_spec", return_value=None):
        assert "pip install 'tissue-probe[annotations]'" in refused(capsys, "--tile-size", "20")


@pytest.mark.parametrize("text", ["x", "0", "1,2,3", "-4"])
def test_a_size_is_one_number_or_two(text: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        cli.main(["cover", *ALL, "--to", "out.parquet", "--tile-size", text])
    assert ended.value.code == 2
    assert "invalid pixels value" in capsys.readouterr().err or text == "-4"


def test_slides_are_read_one_at_a_time(monkeypatch: pytest.MonkeyPatch):
    """Of many, and written in blocks; in the order of the key."""
    monkeypatch.setattr(module, "ROWS", 7)
    names = [f"s{n:02d}" for n in range(12)]
    slides({name: {} for name in names})
    for name in names:
        annotated(f"{name}.geojson", area("Fat", 0, 30), area("Muscle", 30, 60))
    held: list[str] = []
    read = module.files.read
    monkeypatch.setattr(
        module.files, "read", lambda files: held.append(files[0].stem) or read(files)
    )
    got = cover("--tiles", "slides.parquet")
    assert got == [(name, *row[1:]) for name in names for row in GRID]
    assert held == names
    assert pq.ParquetFile("out.parquet").num_row_groups == 4


def test_rows_of_a_slide_come_together_from_several_batches():
    table = pa.table({"slide_id": ["a", "a", "b", "b", "b", "c"], "x": range(6)})
    batches = [*table.slice(0, 3).to_batches(), *table.slice(3).to_batches()]
    assert [(name, rows["x"].to_pylist()) for name, rows in by_slide(batches)] == [
        ("a", [0, 1]), ("b", [2, 3, 4]), ("c", [5]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("extent", "edge", "expected"),
    [
        ((20, 10), "keep", [(0, 0), (10, 0)]),
        ((21, 10), "keep", [(0, 0), (10, 0), (20, 0)]),
        ((21, 10), "drop", [(0, 0), (10, 0)]),
        ((5, 5), "keep", [(0, 0)]),
        ((5, 5), "drop", []),
    ],
)
def test_tiles_of_a_lattice(extent: tuple, edge: str, expected: list):
    x, y = lattice(extent, (10, 10), (10, 10), (0, 0), edge)  # type: ignore[arg-type]
    assert list(zip(x.tolist(), y.tolist(), strict=True)) == expected
