"""Artifacts in other formats, through every command, say what one plain file of the rows says."""

from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from featurestore.console import cli
from train import probe

NAMES = ["01", "1", "S é", "a/b", "%20", "=x"]
ROWS = 8  # of a slide
KEY = ["slide_id", "x", "y"]
ARTIFACTS = ("tiles", "embeddings", "predict_tiles")


def hive(rows: pa.Table, place: Path) -> None:
    """Write a folder a slide, ``slide_id=NAME/part.parquet``, as Hive and Spark do."""
    for name in NAMES:
        folder = place / f"slide_id={quote(name, safe=' é')}"
        folder.mkdir(parents=True)
        part = rows.filter(pc.equal(rows["slide_id"], name)).drop_columns(["slide_id"])
        pq.write_table(part, folder / "part.parquet")


def delta(rows: pa.Table, place: Path) -> None:
    """Write a table of Delta Lake that held every row twice, before it was overwritten."""
    deltalake = pytest.importorskip("deltalake", reason="the extra delta")
    deltalake.write_deltalake(place, pa.concat_tables([rows, rows]), partition_by="slide_id")
    deltalake.write_deltalake(place, rows, mode="overwrite")


def command(folder: str, *argv: str) -> int:
    data = [f"data.{name}={folder}/{name}" for name in ARTIFACTS]
    rest = ["data=own.yaml", "classes=two.yaml", "tracking.enabled=false", "max_epochs=5"]
    return probe.main([*data, *rest, *argv])


def read(result: str) -> pa.Table:
    return pq.read_table(result).sort_by([(name, "ascending") for name in KEY])


@pytest.mark.slow
def test_every_command_reads_folders_of_slides_and_tables_as_one_plain_file():
    number = np.arange(len(NAMES) * ROWS)
    keys = {"slide_id": [NAMES[n // ROWS] for n in number], "x": number % 3, "y": number // 3}
    fat, fold = (number % 2).astype(float), number // ROWS % 2
    tiles = pa.table(
        {**keys, "roi_coverage_Fat": fat, "roi_coverage_Muscle": 1 - fat, "fold": fold}
    )
    vectors = np.random.default_rng(0).normal(size=(len(number), 4)) + 2 * fat[:, None]
    embeddings = pa.table({**keys, "embedding": vectors.tolist()})
    for folder in ("plain", "other"):
        Path(folder).mkdir()
    for name, rows, write in zip(
        ARTIFACTS, (tiles, embeddings, tiles), (delta, hive, hive), strict=True
    ):
        pq.write_table(rows, f"plain/{name}")
        write(rows, Path("other") / name)
    classes = {"class_indices": {"Fat": 0, "Muscle": 1}, "thresholds": {"Fat": 0.5, "Muscle": 0.5}}
    Path("two.yaml").write_text(yaml.safe_dump(classes))
    Path("own.yaml").write_text("data: {name: own}\n")
    spec = {"data": {name: f"other/{name}" for name in ARTIFACTS}, **classes}
    Path("store.yaml").write_text(yaml.safe_dump(spec))

    for argv in (["check"], ["describe"], ["export", "--to", "set"]):
        assert cli.main(["--config", "store.yaml", *argv]) == 0
    expected = embeddings.sort_by([(name, "ascending") for name in KEY])
    exported = read("set/train/tiles.parquet")
    assert exported.select(KEY) == expected.select(KEY)
    assert np.allclose(exported["embedding"].to_pylist(), expected["embedding"].to_pylist())

    assert command("other", "fold=1", "output=fit") == 0
    validated = read("fit/predictions.parquet").select(KEY)
    assert validated == read("plain/tiles").filter(pc.field("fold") == 1).select(KEY)

    for folder in ("plain", "other"):
        head = "checkpoint=fit/checkpoint.safetensors"
        assert command(folder, "mode=predict", head, f"output={folder}/out") == 0
    one, other = read("plain/out/predictions"), read("other/out/predictions")
    assert len(one) == len(number)
    assert one.drop_columns(["prob_Fat", "prob_Muscle"]) == other.drop_columns(
        ["prob_Fat", "prob_Muscle"]
    )
    assert np.allclose(one["prob_Fat"], other["prob_Fat"], atol=1e-6)
