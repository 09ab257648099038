"""The tiles of a fit: from a snapshot into memory or, where they do not fit, read as they are used.

In memory their order is random. On disk it is that of the file, and every epoch shuffles it anew in
chunks, see `train.engine.shard.Shard.batches`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import psutil
import torch
from torch import Tensor
from torch.nn import functional

from train.config.rules import size
from train.config.schema import Config
from train.engine.shard import BLOCK, Shard
from train.engine.stream import Stream
from train.fitting.grid import HeadGrid
from train.fitting.tile_table import TRAIN, VALIDATION, Rows, TileTable, slide_rank
from train.predictions.table import encode_clusters
from train.runtime.processes import Processes

SHARE = 0.6  # of the memory: the rest is for heads, optimizers and whoever else lives there


@dataclass(frozen=True)
class Shards:
    """This process's rows to train and to validate on.

    Parameters
    ----------
    train, validation
        The same object where the folds of ``train`` hold the tiles to validate on.
    order
        Row in the table of tiles of every position of ``validation``, local or not.
    """

    train: Shard
    validation: Shard
    order: Rows

    @property
    def is_streamed(self) -> bool:
        """Whether embeddings are read as they are used."""
        return isinstance(self.train.x, Stream)


def load_shards(grid: HeadGrid, config: Config, processes: Processes) -> Shards:
    """Load the tiles of a grid's heads; of a single one, its validation tiles apart.

    No batch of a single head then holds a tile that it does not train on.
    """
    tiles, rng = grid.tiles, np.random.default_rng(config.seed)
    if not grid.is_single:
        shard, order = load_shard(tiles, rng.permutation(len(tiles)), config, processes)
        return Shards(shard, shard, order)
    side = tiles.fold[:, 0]
    order = rng.permutation(np.flatnonzero(side == TRAIN))
    train, _ = load_shard(tiles, order, config, processes)
    validation, order = load_shard(tiles, np.flatnonzero(side == VALIDATION), config, processes)
    return Shards(train, validation, order)


def load_shard(
    tiles: TileTable, order: Rows, config: Config, processes: Processes
) -> tuple[Shard, Rows]:
    """Return this process's rows of some tiles, on its device, and the tile of each position.

    Parameters
    ----------
    order
        Tiles, as rows of ``tiles.keys``, in the order in which they are to be in memory.
    """
    number = 2 if config.precision == "bf16" else 4
    fits = len(order) // processes.world * tiles.matrix.dim * number <= memory_budget(config)
    if config.stream == "never" or (fits and config.stream == "auto"):
        shard = resident(tiles, order, config, processes.rank, processes.world)
    else:
        order = order[np.argsort(tiles.keys["row"].to_numpy()[order])]
        shard = streamed(tiles, order, config, processes)
    return shard.to(processes.device), order


def resident(tiles: TileTable, order: Rows, config: Config, rank: int = 0, world: int = 1) -> Shard:
    """Return the tiles that a process owns, their embeddings copied into memory."""
    rows = tiles.keys["row"].to_numpy()[order[rank::world]]
    embeddings = torch.from_numpy(tiles.matrix.read_rows(rows, threads=threads(config)))
    return _shard(tiles, order, embedding_transform(config)(embeddings), config, (rank, world))


def streamed(tiles: TileTable, order: Rows, config: Config, processes: Processes) -> Shard:
    """Return the tiles that a process owns, their embeddings to be read as they are used.

    ``order`` must be that of the file.
    """

    def gather(rows: Rows, out: npt.NDArray[np.float32]) -> None:
        tiles.matrix.read_rows(rows, threads=threads(config), out=out)

    rank, world = processes.rank, processes.world
    rows = tiles.keys["row"].to_numpy()[order[rank::world]]
    stream = Stream(gather, rows, tiles.matrix.dim, embedding_transform(config))
    return _shard(tiles, order, stream, config, (rank, world))


def _shard(
    tiles: TileTable, order: Rows, x: Tensor | Stream, config: Config, place: tuple[int, int]
) -> Shard:
    rank, world = place
    cluster, clusters = encode_clusters(tiles.keys, config.evidence.resample)
    local = order[rank::world]
    return Shard(
        x=x,
        target=torch.from_numpy(tiles.target[local].T.copy()),
        fold=torch.from_numpy(tiles.fold[local].T.copy()),
        cluster=torch.from_numpy(cluster[local]),
        slide_rank=torch.from_numpy(slide_rank(tiles.keys, config.seed)[local]),
        clusters=clusters,
        rows=len(order),
        rank=rank,
        world=world,
    )


def embedding_transform(config: Config) -> Callable[[Tensor], Tensor]:
    """Return what is done to embeddings before any head sees them; it may write over them."""

    def transform(x: Tensor) -> Tensor:
        if config.normalize == "l2":
            for block in x.split(BLOCK):  # in place: a copy of all may not fit
                block.copy_(functional.normalize(block, dim=-1))
        return x.bfloat16() if config.precision == "bf16" else x

    return transform


def memory_budget(config: Config) -> int:
    """Return the bytes that a process's embeddings may take."""
    if config.memory_limit:
        return int(SHARE * size(config.memory_limit))
    return int(SHARE * psutil.virtual_memory().available / local_processes())


def threads(config: Config) -> int:
    """Return how many threads of this process read embeddings."""
    return config.threads or max(1, (os.cpu_count() or 1) // local_processes())


def local_processes() -> int:
    """Return how many processes of the run share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
