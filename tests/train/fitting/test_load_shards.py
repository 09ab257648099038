"""What a process loads: its own lanes and nothing else of the matrix, the same batches by any."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from featurestore.snapshots.tile_set import TileSet
from train.config.schema import Config
from train.engine.shard import Shard
from train.fitting.grid import HeadGrid, Setting, head_grid, single_head
from train.fitting.load import load_all, load_shards
from train.fitting.tile_table import TileTable
from train.inference.tiles import split_tiles
from train.runtime.processes import Processes

TILES, DIM = 5000, 3


@dataclass(frozen=True)
class Matrix:
    """Embeddings that are their own row number; notes what is asked for."""

    starts: np.ndarray
    rows: int
    dim: int = DIM
    asked: list[np.ndarray] = field(default_factory=list)

    def check(self, rows: np.ndarray) -> None:
        pass

    def read_rows(
        self, rows: np.ndarray, threads: int | None = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        self.asked.append(rows)
        values = np.repeat(rows[:, None], self.dim, axis=1).astype(np.float32)
        if out is not None:
            out[:] = values
        return values


@dataclass(frozen=True)
class OneOf(Processes):
    """One of several processes, who does the main one's work for itself."""

    accelerator: Any
    number: int
    of: int

    is_main = True
    rank = cached_property(lambda self: self.number)
    world = cached_property(lambda self: self.of)
    device = torch.device("cpu")

    def scatter(self, work: Any) -> Any:
        return work()[self.number]

    def together(self, work: Any) -> Any:
        return work()

    def all_gather(self, value: Any) -> list[Any]:
        return [value] * self.of


def table(parts: int) -> TileTable:
    """Return tiles of nearly all rows of a matrix, in the order of their names, not of rows."""
    rng = np.random.default_rng(0)
    starts = np.sort(rng.choice(np.arange(1, TILES), parts - 1, replace=False))
    row = rng.permutation(TILES)[: TILES - 100]
    number = np.arange(len(row))
    keys = pa.table({"slide_id": [f"s{n // 50:03d}" for n in number], "x": number, "y": number,
                     "target": number % 3, "row": row})  # fmt: skip
    matrix = Matrix(np.append(0, starts), TILES)
    return TileTable(keys, number[:, None] % 3, number[:, None] // 50 % 2, matrix)


def grids(tiles: TileTable, config: Config) -> dict[str, HeadGrid]:
    """Return a single head, and one on each of two folds."""
    setting = Setting({}, 0, 1.0, 0.1, 0.0, 0.0)
    return {
        "single": single_head(tiles, config),
        "several": head_grid(tiles, [setting], [0, 1], seed=0),
    }


def epoch(shard: Shard) -> list[list[int]]:
    """Return the rows of each batch of an epoch."""
    batches = shard.batches(512, np.random.default_rng(0))
    return [[int(row) for piece in batch for row in piece.x[:, 0]] for batch in batches]


@pytest.mark.parametrize("stream", ["never", "always"])
@pytest.mark.parametrize("kind", ["single", "several"])
@pytest.mark.parametrize("parts", [1, 7, 700])
def test_a_process_reads_its_lanes_alone(parts: int, kind: str, stream: str):
    """Of four at most 30 % of the file each, in one range; together the batches of one."""
    config = Config(stream=stream, threads=1, class_indices={str(n): n for n in range(3)}, fold=0)
    tiles = table(parts)
    grid = grids(tiles, config)[kind]
    alone = load_shards(tiles, grid, config, OneOf(None, 0, 1))
    epochs, places, spans = [], [], []
    for rank in range(4):
        tiles = table(parts)
        shards = load_shards(tiles, grid, config, OneOf(None, rank, 4))
        for shard in (shards.train, shards.validation):
            rows = np.concatenate([block.x[:, 0].numpy() for block in shard.blocks()]).astype(int)
            number = np.argsort(tiles.keys["row"].to_numpy())
            at = number[np.searchsorted(tiles.keys["row"].to_numpy()[number], rows)]
            assert shard.target[0].tolist() == (at % 3).tolist()
            assert shard.cluster.tolist() == (at // 50).tolist()
        assert shards.share.place.tolist() == at.tolist()
        asked = np.unique(np.concatenate(tiles.matrix.asked))
        assert len(asked) <= 0.3 * TILES
        assert np.ptp(asked) <= 0.3 * TILES
        spans.append((asked[0], asked[-1]))
        epochs.append(epoch(shards.train))
        places.extend(shards.share.place.tolist())
    if kind == "several":
        assert all(last < first for (_, last), (first, _) in pairwise(spans))
    assert sorted(places) == sorted(alone.share.place.tolist())
    for batch, *by_rank in zip(epoch(alone.train), *epochs, strict=True):
        assert sorted(row for rows in by_rank for row in rows) == sorted(batch)
        assert max(map(len, by_rank)) <= 0.3 * len(batch) + 8


@pytest.mark.parametrize("stream", ["never", "always"])
def test_who_has_neighbours_loads_all_tiles_in_one_order(stream: str):
    config, tiles = Config(stream=stream, threads=1), table(7)
    grid = grids(tiles, config)["several"]
    alone = OneOf(None, 0, 1)
    expected = load_shards(tiles, grid, replace(config, stream="never"), alone).train
    loaded = [load_shards(tiles, grid, config, OneOf(None, rank, 4)) for rank in range(4)]
    gathered = [shards.share for shards in loaded]

    @dataclass(frozen=True)
    class Met(OneOf):
        def all_gather(self, value: Any) -> list[Any]:
            return gathered

    for rank, shards in enumerate(loaded):
        everything = load_all(shards, config, Met(None, rank, 4))
        for name in ("x", "target", "fold", "cluster", "slide_rank"):
            assert torch.equal(getattr(everything, name), getattr(expected, name)), name
    streamed = load_shards(tiles, grid, replace(config, stream="always"), alone)
    assert torch.equal(load_all(streamed, config, alone).x, expected.x)


def test_tiles_are_in_memory_on_all_processes_or_on_none():
    config, tiles = Config(threads=1, memory_limit="1GB"), table(1)
    grid = grids(tiles, config)["several"]

    @dataclass(frozen=True)
    class Short(OneOf):
        def all_gather(self, value: Any) -> list[Any]:
            return [value, False]

    assert not load_shards(tiles, grid, config, OneOf(None, 0, 2)).is_streamed
    assert load_shards(tiles, grid, config, Short(None, 0, 2)).is_streamed


@pytest.mark.parametrize("parts", [1, 700])
def test_processes_split_the_tiles_to_predict(parts: int):
    tiles = table(parts)
    everything = TileSet(tiles.keys, tiles.matrix)
    split = split_tiles(everything, 4)
    row = tiles.keys["row"].to_numpy()
    assert sorted(np.concatenate([places for places, _ in split])) == list(range(len(row)))
    for places, share in split:
        assert share.keys.column_names == ["row", "target"]
        assert share.keys["row"].to_pylist() == row[places].tolist() == sorted(row[places])
        assert share.keys["target"].to_pylist() == (places % 3).tolist()
        assert np.ptp(row[places]) <= 0.3 * TILES
