"""Predictions by several processes: the same files, and nothing sent that grows with the tiles."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from ranks import played

from featurestore.errors import ArtifactError, EmbeddingError
from featurestore.printing import Console
from featurestore.spec.store_spec import StoreSpec
from featurestore.store import FeatureStore
from train.config.schema import Config
from train.inference import stream, work, writer
from train.inference.cohort import PredictionSet, prediction_set
from train.models.checkpoint import ModelSpec, TrainedModel
from train.predictions import partitions
from train.runtime.processes import Processes
from train.runtime.run import Run
from train.tracking.tracker import NullTracker

DIM, SLIDES, ROW_GROUPS = 3, 7, 40
SPEC = ModelSpec("linear", 0, "none", DIM, ["Fat", "Muscle"], [1.0, 1.0])


def model() -> TrainedModel:
    torch.manual_seed(0)
    return TrainedModel(SPEC.build().eval().requires_grad_(False), SPEC)


def cohort(tiles: int, order: str = "shuffled", faults: tuple[int, ...] = ()) -> PredictionSet:
    """Return so many tiles on seven slides, their embeddings in 40 row groups of two files."""
    rng, number = np.random.default_rng(0), np.arange(tiles)
    keys = pa.table({
        "slide_id": [f"slide {n * SLIDES // tiles}" for n in number], "x": number, "y": number % 3,
    })  # fmt: skip
    vectors = rng.normal(size=(tiles, DIM))
    vectors[list(faults)] = np.nan
    rows = keys.append_column("embedding", pa.array(vectors.tolist()))
    if order == "shuffled":
        rows = rows.take(rng.permutation(tiles))
    Path("in").mkdir(exist_ok=True)
    half = tiles // 2
    for file, part in enumerate([rows.slice(0, half), rows.slice(half)]):
        pq.write_table(part, f"in/{file}.parquet", row_group_size=tiles // ROW_GROUPS)
    pq.write_table(keys.append_column("stain", pa.array(["HE", None] * half)), "tiles.parquet")
    spec = StoreSpec(predict_tiles="tiles.parquet", embeddings="in", class_indices={})
    return prediction_set(FeatureStore(spec), "checkpoint", ["stain"])


def predict(cohort: PredictionSet, out: str, world: int) -> int:
    """Write predictions as several processes; return how many bytes they tell each other."""
    network, sent = model(), pickle.dumps(cohort.without_tiles())

    def one(processes: Processes) -> None:
        config = Config(mode="predict", output=out, threads=2)
        folder = Path(out)
        run = Run(config, processes, Console(quiet=True), NullTracker(), folder, folder / "p")
        # What another process knows of the tiles came to it in a pickle.
        known = cohort if processes.is_main else pickle.loads(sent)
        stream.predict_cohort(run, known, network)

    return len(sent) + played(world, one)


def files(out: str) -> dict[str, str]:
    """Return the digest of each file of predictions."""
    names = sorted(file.name for file in Path(out, "p").iterdir())
    assert names.pop(0) == partitions.MANIFEST
    return {n: hashlib.sha256(Path(out, "p", n).read_bytes()).hexdigest() for n in names}


@pytest.mark.slow
@pytest.mark.parametrize("waiting", [300, writer.WAITING], ids=["on disk", "in memory"])
@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_files_do_not_depend_on_the_processes_nor_on_memory(
    order: str, waiting: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Byte for byte; nothing that waited is left behind."""
    monkeypatch.chdir(tmp_path)
    tiles = cohort(840, order)
    predict(tiles, "one", 1)
    table = partitions.read(Path("one/p"))
    assert table["x"].to_pylist() == list(range(840))
    assert table["stain"].to_pylist() == ["HE", None] * 420
    assert len(files("one")) == SLIDES
    monkeypatch.setattr(writer, "WAITING", waiting)
    for world in (1, 2, 4):
        predict(tiles, f"by {world}", world)
        assert files(f"by {world}") == files("one")


def test_what_processes_tell_each_other_does_not_grow_with_the_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Ten times the tiles on as many slides and row groups; they are shuffled, the worst case."""
    sent = {}
    for tiles in (840, 8_400):
        (tmp_path / str(tiles)).mkdir()
        monkeypatch.chdir(tmp_path / str(tiles))
        sent[tiles] = predict(cohort(tiles), "out", 4)
        assert len(partitions.read(Path("out/p"))) == tiles
    assert sent[8_400] < 1.05 * sent[840]


def test_a_process_keeps_few_predictions_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(writer, "WAITING", 1_000)
    add, most = writer.PredictionWriter.add, []

    def counted(self: writer.PredictionWriter, *given: object) -> None:
        add(self, *given)
        most.append(self._rows)

    monkeypatch.setattr(writer.PredictionWriter, "add", counted)
    predict(cohort(8_400), "out", 1)
    assert max(most) <= 500 + 210  # another thread has added its row group since


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 3])
def test_faults_of_all_processes_are_one_refusal(
    world: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Their slides are not written, the others are; what is gone on with is what is missing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(writer, "WAITING", 64)
    with pytest.raises(EmbeddingError, match=r"2 of 840 rows, .* at slide_id='slide 0', x=7, y=1"):
        predict(cohort(840, faults=(7, 800)), "out", world)
    names = set(partitions.read(Path("out/p"))["slide_id"].to_pylist())
    assert names == {f"slide {number}" for number in range(1, 6)}
    assert len(files("out")) == 5


def test_machines_that_share_no_output_are_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What another has written is not there."""
    monkeypatch.chdir(tmp_path)
    tiles = cohort(840)
    read = work.read_tiles
    monkeypatch.setattr(
        stream, "read_tiles", lambda file, columns: read(Path("elsewhere", file.name), columns)
    )
    with pytest.raises(ArtifactError, match="name an output that all machines share"):
        predict(tiles, "out", 2)


def test_slides_are_divided_into_stretches_of_like_size(monkeypatch: pytest.MonkeyPatch):
    """Slides that are not whole are left out, and no process is left without."""
    monkeypatch.setattr(writer, "WAITING", 10)
    tiles = np.array([4, 5, 9, 3, 8, 7])
    on_disk = np.array([4, 5, 2, 3, 8, 0])
    divided = [part.tolist() for part in writer.stretches(tiles, on_disk, 1)]
    assert divided == [[0, 1], [3, 4]]
    assert writer.stretches(tiles, np.zeros(6, dtype=np.int64), 2) == []
