"""Shares of tiles: each position has one owner, and batches do not depend on how many share."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.embeddings.convert import convert
from featurestore.embeddings.matrix import EmbeddingMatrix
from featurestore.io.parquet import dataset
from featurestore.snapshots.tile_set import TileSet
from train.engine.sampler import batch_windows
from train.engine.shard import UNKNOWN
from train.fitting.load import load_splits
from train.predictions.table import Predictions, encode_clusters, lone_slides

CPU = torch.device("cpu")


@given(rows=st.integers(1, 200), size=st.integers(1, 64), seed=st.integers(0, 9))
def test_batches_of_an_epoch_cover_every_position_once(rows: int, size: int, seed: int):
    epoch = list(batch_windows(rows, size, np.random.default_rng(seed)))
    seen = sorted(p for window in epoch for start, stop in window for p in range(start, stop))
    assert seen == list(range(rows))
    assert len(epoch) == -(-rows // size)


def test_epochs_differ_in_their_batches():
    rng = np.random.default_rng(0)
    assert list(batch_windows(100, 10, rng)) != list(batch_windows(100, 10, rng))


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> TileSet:
    """Return 23 tiles whose embedding is their number; the last five are validation."""
    folder = tmp_path_factory.mktemp("tiles")
    numbers = np.arange(23)
    keys = pa.table({"slide_id": [f"s{n // 4}" for n in numbers], "x": numbers, "y": numbers * 0})
    vectors = keys.append_column("embedding", pa.array([[float(n), 1.0] for n in numbers]))
    pq.write_table(vectors.take(pa.array(numbers[::-1].copy())), folder / "e.parquet")
    convert(dataset(str(folder / "e.parquet")).fragments, 2, "float32", folder, lambda rows: None)
    split = ["train" if n < 18 else "validation" for n in numbers]
    target = pa.array([None if n == 20 else int(n) % 3 for n in numbers], pa.int64())
    keys = keys.append_column("target", target).append_column("split", pa.array(split))
    return TileSet(keys.append_column("row", pa.array(22 - numbers)), EmbeddingMatrix.open(folder))


@settings(deadline=None, max_examples=20)
@given(world=st.integers(1, 25), size=st.integers(1, 20))
def test_processes_share_every_batch_exactly(tiles: TileSet, world: int, size: int):
    """Together they hold the rows that one process alone would: none twice, none lost."""
    alone = load_splits(tiles, seed=0)["train"]
    ranks = [load_splits(tiles, seed=0, rank=r, world=world)["train"] for r in range(world)]
    for window in batch_windows(len(alone), size, np.random.default_rng(1)):
        x, target = alone.batch(window, CPU)
        parts = [rank.batch(window, CPU) for rank in ranks]
        together = torch.cat([part[0] for part in parts])
        assert sorted(together[:, 0].tolist()) == sorted(x[:, 0].tolist())
        assert sorted(torch.cat([p[1] for p in parts]).tolist()) == sorted(target.tolist())


def test_rows_keep_their_target_slide_and_order(tiles: TileSet):
    splits = load_splits(tiles, seed=3)
    train, validation = splits["train"], splits["validation"]
    assert train.x[:, 0].tolist() != sorted(train.x[:, 0].tolist())
    assert validation.x[:, 0].tolist() == [18, 19, 20, 21, 22]
    assert validation.target.tolist() == [0, 1, UNKNOWN, 0, 1]
    np.testing.assert_array_equal(train.x[:, 0].numpy(), train.order)
    assert train.target.tolist() == [int(n) % 3 for n in train.order]
    assert train.slide.tolist() == [int(n) // 4 for n in train.order]
    assert train.slides == 6


def test_predictions_come_back_in_the_order_of_keys(tiles: TileSet):
    train = load_splits(tiles, seed=3)["train"]
    probabilities = torch.stack([train.x[:, 0], 10 - train.x[:, 0]], dim=1)
    named = Predictions.of(tiles.keys, train.order, probabilities.numpy(), ["a", "b;"])
    table = named.table()
    assert table.column_names == ["slide_id", "x", "y", "target", "pred", "prob_a", "prob_b;"]
    assert table["x"].to_pylist() == list(range(18))
    assert table["prob_a"].to_pylist() == list(range(18))
    assert table["pred"].to_pylist() == [1] * 5 + [1 if 10 - n > n else 0 for n in range(5, 18)]


def test_a_unit_may_be_called_none_or_nothing():
    """Slides without a patient stand for themselves; those of a patient of any name are one."""
    keys = pa.table({
        "slide_id": ["a", "b", "c", "d", "e", "f"],
        "patient_id": ["none", "none", "", "", None, None],
    })  # fmt: skip
    number, units = encode_clusters(keys, "patient_id")
    assert (units, number[0], number[2]) == (4, number[1], number[3])
    assert lone_slides(keys, "patient_id") == 2
    coded = keys.set_column(1, "patient_id", keys["patient_id"].dictionary_encode())
    assert encode_clusters(coded, "patient_id")[0].tolist() == number.tolist()
