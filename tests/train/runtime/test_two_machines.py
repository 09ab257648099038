"""Two machines without a shared disk: working folders of their own, and one object store."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, environment_with, free_port
from programs import Program

PROBE = str(ROOT / "train" / "probe.py")
SLIDES, TILES = 12, 20


def write(folder: Path) -> None:
    """Write a cohort with a file of embeddings a slide, and its configuration."""
    (folder / "embeddings").mkdir(parents=True)
    rng = np.random.default_rng(0)
    tables = []
    for slide in range(SLIDES):
        label = rng.integers(2, size=TILES)
        keys = {"slide_id": [f"s{slide}"] * TILES, "x": np.arange(TILES), "y": np.zeros(TILES, int)}
        vectors = rng.normal(size=(TILES, 8)) + 2 * label[:, None]
        table = pa.table(keys | {"embedding": vectors.tolist()})
        pq.write_table(table, folder / "embeddings" / f"s{slide}.parquet")
        tables.append(pa.table(keys | {
            "roi_coverage_Fat": 0.9 * (label == 0), "roi_coverage_Muscle": 0.9 * (label == 1),
            "fold": np.full(TILES, slide % 2),
        }))  # fmt: skip
    pq.write_table(pa.concat_tables(tables), folder / "tiles.parquet")


def configure(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "own.yaml").write_text(
        "data: {name: own}\nmax_epochs: 3\nbatch_size: 64\nlearning_rate: 0.05\n"
        "class_indices: {Fat: 0, Muscle: 1}\nthresholds: {Fat: 0.5, Muscle: 0.5}\n"
    )
    (folder / "none.yaml").write_text("{}")


def fit(folders: list[Path], *more: str) -> None:
    """Train with a rank in each folder."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "LOCAL_RANK": "0",
             "WORLD_SIZE": str(len(folders)), "ACCELERATE_USE_CPU": "1"}  # fmt: skip
    alone = len(folders) == 1
    arguments = ["data=own.yaml", "classes=none.yaml", "fold=1", "output=out",
                 "tracking.enabled=false", *more]  # fmt: skip
    running = []
    for rank, folder in enumerate(folders):
        configure(folder)
        ranked = {"ACCELERATE_USE_CPU": "1"} if alone else {**place, "RANK": str(rank)}
        running.append(Program([PROBE, *arguments], folder, environment_with(ranked)))
    outputs = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0] * len(running), outputs


def predictions(folder: Path) -> np.ndarray:
    table = pq.read_table(folder / "out" / "predictions.parquet")
    return np.stack([table["prob_Fat"].to_numpy(), table["prob_Muscle"].to_numpy()])


@pytest.mark.slow
def test_two_machines_train_what_one_process_trains(tmp_path: Path, s3_client: Any):
    """The second machine fetches neither artifacts nor snapshot, and the parts of its own lanes."""
    write(tmp_path / "cohort")
    for file in (tmp_path / "cohort").rglob("*.parquet"):
        key = file.relative_to(tmp_path / "cohort").as_posix()
        s3_client.upload_file(str(file), "cohort", f"in/{key}")
    sources = [
        "data.tiles=s3://cohort/in/tiles.parquet", "data.embeddings=s3://cohort/in/embeddings"
    ]  # fmt: skip
    one, two, alone = (tmp_path / name for name in ("one", "two", "alone"))
    fit([one, two], *sources, "store=s3://cohort/shared")
    fit([alone], *sources)
    np.testing.assert_allclose(predictions(one), predictions(alone), atol=1e-6)
    assert not (two / ".featurestore/objects").exists()
    assert not (two / ".featurestore/snapshots").exists()
    parts = [len(list((each / ".featurestore/parts").glob("*.npy"))) for each in (one, two)]
    assert parts[0] == SLIDES
    assert 0 < parts[1] <= SLIDES // 2 + 2  # half of those to train on, and to validate on
    # Another machine finds all that is made, and converts nothing.
    three = tmp_path / "three"
    fit([three], *sources, "store=s3://cohort/shared")
    np.testing.assert_allclose(predictions(three), predictions(alone), atol=1e-6)
