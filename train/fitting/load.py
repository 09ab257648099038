"""The tiles of a fit: from a snapshot into memory or, where they do not fit, read as they are used.

A process reads its own lanes, see `train.engine.lanes`. In memory their order is random. On disk it
is that of the file, and every epoch shuffles it anew in chunks, see
`train.engine.shard.Shard.batches`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import psutil
import torch
from torch import Tensor
from torch.nn import functional

from train.config.rules import size
from train.config.schema import Config
from train.engine.lanes import LANES, owned
from train.engine.shard import BLOCK, Shard
from train.engine.stream import Stream
from train.fitting.grid import HeadGrid
from train.fitting.tile_table import TRAIN, VALIDATION, Rows, TileShare, TileTable
from train.runtime.processes import Processes

SHARE = 0.6  # of the memory: the rest is for heads, optimizers and whoever else lives there


@dataclass(frozen=True)
class Shards:
    """This process's rows to train and to validate on.

    Parameters
    ----------
    train, validation
        The same object where the folds of ``train`` hold the tiles to validate on.
    share
        The same tiles as ``validation``, and in its order.
    """

    train: Shard
    validation: Shard
    share: TileShare

    @property
    def is_streamed(self) -> bool:
        """Whether embeddings are read as they are used."""
        return isinstance(self.train.x, Stream)


def load_shards(tiles: TileTable, grid: HeadGrid, config: Config, processes: Processes) -> Shards:
    """Load the tiles of a grid's heads; of a single one, its validation tiles apart.

    No batch of a single head then holds a tile that it does not train on.

    Parameters
    ----------
    tiles
        All of them on the main process, which gives each process its share.
    """

    def shares() -> list[list[TileShare]]:
        world, column = processes.world, config.evidence.resample
        sides = [np.arange(len(tiles))]
        if grid.is_single:
            sides = [np.flatnonzero(tiles.fold[:, 0] == side) for side in (TRAIN, VALIDATION)]
        by_side = [tiles.shares(side, column, config.seed, world) for side in sides]
        return [list(of_process) for of_process in zip(*by_side, strict=True)]

    loaded = [load_shard(share, config, processes) for share in processes.scatter(shares)]
    return Shards(loaded[0][0], *loaded[-1])


def load_shard(share: TileShare, config: Config, processes: Processes) -> tuple[Shard, TileShare]:
    """Return this process's rows of some tiles, on its device, and the same tiles in its order."""
    processes.together(lambda: share.matrix.check(share.row))  # whoever else has looked at them
    number = 2 if config.precision == "bf16" else 4
    fits = len(share) * share.matrix.dim * number <= memory_budget(config)
    fits = all(processes.all_gather(fits))  # or processes would have unlike orders
    lanes = owned(processes.rank, processes.world)
    if config.stream == "always" or (config.stream == "auto" and not fits):
        shard, positions = streamed(share, config), share.lanes.positions(lanes)
    else:
        share, positions = shuffled(share, lanes, config)
        shard = processes.together(lambda: resident(share, config))
    if processes.world > 1 or isinstance(shard.x, Stream):
        shard = replace(shard, rows=len(share.lanes), positions=positions)
    return shard.to(processes.device), share


def shuffled(share: TileShare, lanes: range, config: Config) -> tuple[TileShare, Rows]:
    """Return the tiles of some lanes by position, each lane's at random, and these positions."""
    positions = share.lanes.positions(lanes)
    order = np.argsort(positions, kind="stable")
    return share.take(share.lanes.shuffled(lanes, config.seed)[order]), positions[order]


def load_all(shards: Shards, config: Config, processes: Processes) -> Shard:
    """Return the tiles to validate on of all processes, in memory, in the order of a single one."""
    if processes.world == 1 and not shards.is_streamed:
        return shards.validation
    share = TileShare.concatenate(processes.all_gather(shards.share))
    share, _ = shuffled(share.take(np.argsort(share.row)), range(LANES), config)
    return processes.together(lambda: resident(share, config)).to(processes.device)


def resident(share: TileShare, config: Config) -> Shard:
    """Return some tiles, their embeddings copied into memory."""
    embeddings = torch.from_numpy(share.matrix.read_rows(share.row, threads=threads(config)))
    return _shard(share, embedding_transform(config)(embeddings))


def streamed(share: TileShare, config: Config) -> Shard:
    """Return some tiles, their embeddings to be read as they are used, in the matrix's order."""

    def gather(rows: Rows, out: npt.NDArray[np.float32]) -> None:
        share.matrix.read_rows(rows, threads=threads(config), out=out)

    stream = Stream(gather, share.row, share.matrix.dim, embedding_transform(config))
    return _shard(share, stream)


def _shard(share: TileShare, x: Tensor | Stream) -> Shard:
    return Shard(
        x=x,
        target=torch.from_numpy(share.target.T.copy()),
        fold=torch.from_numpy(share.fold.T.copy()),
        cluster=torch.from_numpy(share.cluster),
        slide_rank=torch.from_numpy(share.slide_rank),
        clusters=share.clusters,
        rows=len(share),
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
