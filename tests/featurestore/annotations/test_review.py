"""Labels in doubt: ranked, reviewed as boxes, and brought back by `featurestore cover`."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.console import cli

CLASSES = "class_indices: {Fat: 0, Muscle: 1}\nthresholds: {Fat: 0.5, Muscle: 0.5}\n"
DATA = "data: {tiles: tiles.parquet, embeddings: embeddings.parquet}\n"
ASK = ["label-issues", "data=data.yaml", "runs=oof_predictions.parquet"]
COVER = ["cover", "--tiles", "review/label_issues.parquet", "--annotations", "review",
         "--classes", "classes.yaml", "--tile-size", "100", "--downsample", "4"]  # fmt: skip


@pytest.fixture(autouse=True)
def _cohort() -> None:
    """Two slides of four tiles, Fat and Muscle in turn; a run doubts three of the labels."""
    keys = {"slide_id": ["a/b"] * 4 + ["s"] * 4, "x": [0, 100, 200, 300] * 2, "y": [0] * 8}
    fat = [0.75, 0.0] * 4
    tiles = pa.table({
        **keys, "roi_coverage_Fat": pa.array(fat, pa.float32()),
        "roi_coverage_Muscle": [0.0, 0.75] * 4, "organ": ["colon"] * 8, "fold": [0, 1, 0, 1] * 2,
    })  # fmt: skip
    pq.write_table(tiles, "tiles.parquet")
    pq.write_table(pa.table({**keys, "embedding": [[float(n)] for n in range(8)]}),
                   "embeddings.parquet")  # fmt: skip
    of_label = [0.75, 0.25, 0.75, 0.75, 0.75, 0.125, 0.375, None]
    target = [0, 1, 0, 1, 0, 1, 0, None]
    prob_fat = [p if t == 0 else 1 - (p or 0.5) for p, t in zip(of_label, target, strict=True)]
    pq.write_table(pa.table({
        **keys, "target": target, "pred": [int(p < 0.5) for p in prob_fat],
        "prob_Fat": prob_fat, "prob_Muscle": [1 - p for p in prob_fat],
    }), "oof_predictions.parquet")  # fmt: skip
    Path("classes.yaml").write_text(CLASSES)
    Path("data.yaml").write_text(DATA + CLASSES)


def features(file: str) -> dict:
    return json.loads(Path(file).read_text())


def test_doubted_labels_are_ranked_and_come_back_as_they_were_corrected(
    capsys: pytest.CaptureFixture[str],
):
    """A box with another class, one that is removed, one that stays; other tiles stay as well."""
    assert cli.main([*ASK, "--to", "review", "--tile-size", "100", "--downsample", "4"]) == 0
    assert "review: 3 tiles of 2 slides" in capsys.readouterr().out
    issues = pq.read_table("review/label_issues.parquet").to_pylist()
    assert [list(row.values()) for row in issues] == [
        [1, "s", 100, 0, "Muscle", "Fat", 0.125, 0.875],
        [2, "a/b", 100, 0, "Muscle", "Fat", 0.25, 0.75],
        [3, "s", 200, 0, "Fat", "Muscle", 0.375, 0.625],
    ]
    assert {file.name for file in Path("review").iterdir()} == {
        "label_issues.parquet", "a%2Fb.geojson", "s.geojson",
    }  # fmt: skip
    drawn = features("review/s.geojson")
    box = drawn["features"][0]
    assert box["geometry"]["coordinates"] == [
        [[400, 0], [800, 0], [800, 400], [400, 400], [400, 0]]
    ]
    assert box["properties"]["classification"] == {"name": "Muscle"}
    assert box["properties"]["name"] == "1: Fat?"
    assert box["properties"]["measurements"]["Probability of the label"] == 0.125

    box["properties"]["classification"] = {"name": "Fat"}  # what a reviewer does in QuPath
    Path("review/s.geojson").write_text(json.dumps(drawn))
    Path("review/a%2Fb.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    assert cli.main([*COVER, "--correct", "tiles.parquet", "--to", "corrected.parquet"]) == 0
    assert "corrected.parquet: the tiles of tiles.parquet, 3 of them as annotated now" in (
        capsys.readouterr().out
    )
    before = pq.read_table("tiles.parquet")
    after = pq.read_table("corrected.parquet").sort_by([("slide_id", "ascending"),
                                                        ("x", "ascending")])  # fmt: skip
    assert after.schema.names == before.schema.names
    assert after.schema.field("roi_coverage_Fat").type == pa.float32()
    wanted = before.to_pylist()
    wanted[5] |= {"roi_coverage_Fat": 1.0, "roi_coverage_Muscle": 0.0}
    wanted[1] |= {"roi_coverage_Muscle": 0.0}
    wanted[6] |= {"roi_coverage_Fat": 1.0}
    assert after.to_pylist() == wanted


def test_a_class_that_no_tile_had_gets_a_column(capsys: pytest.CaptureFixture[str]):
    assert cli.main([*ASK, "--to", "review", "--tile-size", "100", "--limit", "1"]) == 0
    drawn = features("review/s.geojson")
    drawn["features"][0]["properties"]["classification"] = {"name": "Nerve"}
    Path("review/s.geojson").write_text(json.dumps(drawn))
    Path("classes.yaml").write_text("class_indices: {Nerve: 0, Blood: 1}\n")
    argv = [*COVER, "--downsample", "1", "--correct", "tiles.parquet", "--to", "out.parquet"]
    assert cli.main(argv) == 0
    after = pq.read_table("out.parquet")
    assert after.column_names[-1] == "roi_coverage_Nerve"
    assert "roi_coverage_Blood" not in after.column_names
    rows = {(row["slide_id"], row["x"]): row for row in after.to_pylist()}
    assert [rows["s", 100][f"roi_coverage_{name}"] for name in ("Fat", "Muscle", "Nerve")] == [
        0.0, 0.0, 1.0,
    ]  # fmt: skip
    assert rows["s", 0]["roi_coverage_Nerve"] == 0.0


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([*ASK[:2], "--to", "review"], ["one run", "runs: none"]),
        ([*ASK, "--to", "review"], ["Nothing says what tile_extent_x", "--tile-size 224"]),
        ([*ASK, "--to", "review", "--limit", "0"], ["--limit 0"]),
        ([*ASK[:2], "runs=sure.parquet", "--to", "review"], ["No label is in doubt"]),
    ],
)
def test_refusals(argv: list[str], words: list[str], capsys: pytest.CaptureFixture[str]):
    table = pq.read_table("oof_predictions.parquet")
    pq.write_table(table.filter(pa.compute.equal(table["target"], table["pred"])), "sure.parquet")
    assert cli.main(argv) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("to do: ") == 1
    for word in words:
        assert word in said
    assert not Path("review").exists()


def test_corrections_of_other_tiles_are_refused(capsys: pytest.CaptureFixture[str]):
    assert cli.main([*ASK, "--to", "review", "--tile-size", "100"]) == 0
    tiles = pq.read_table("tiles.parquet")
    moved = tiles.set_column(2, "y", pa.array([7] * 8))
    pq.write_table(moved, "moved.parquet")
    assert cli.main([*COVER, "--correct", "moved.parquet", "--to", "out.parquet"]) == 2
    assert "No tile that was annotated is among those of moved.parquet" in capsys.readouterr().err
    assert not Path("out.parquet").exists()
