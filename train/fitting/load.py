"""The tiles of a fit: from a snapshot into memory or, where they do not fit, read as they are used.

In memory their order is random. On disk it is that of the file, and every epoch shuffles it anew in
chunks, see `train.engine.shard.Shard.batches`.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow as pa
import torch
from torch import Tensor

from featurestore.embeddings.matrix import EmbeddingMatrix
from featurestore.snapshots.tile_set import TileSet
from train.config.rules import size
from train.config.schema import Config
from train.engine.shard import BLOCK, DROPPED, UNKNOWN, Shard, Split
from train.engine.stream import Stream
from train.models.heads import Unit
from train.predictions.table import encode_clusters, encode_slides
from train.runtime.run import Run

VARIED = ["target", "split", "fold"]  # columns of keys that are a variant's own
SHARE = 0.6  # of the memory: the rest is for heads, optimizers and whoever else lives there


@dataclass(frozen=True)
class TileTable:
    """The tiles that any variant keeps.

    Parameters
    ----------
    keys
        ``slide_id, x, y, row`` and further columns, in the order of rows of the matrix.
    target, fold
        Under each variant, `DROPPED` where it drops the tile; shape (tiles, variants).
    matrix
        Where the embeddings are.
    """

    keys: pa.Table
    target: npt.NDArray[np.int64]
    fold: npt.NDArray[np.int64]
    matrix: EmbeddingMatrix

    @classmethod
    def union(cls, sets: Sequence[TileSet]) -> "TileTable":
        """Return the tiles of several sets, each with one variant's targets and folds."""
        keys = pa.concat_tables([s.keys.drop_columns(VARIED) for s in sets])
        rows, first = np.unique(keys["row"].to_numpy(), return_index=True)
        target, fold = (np.full((len(rows), len(sets)), DROPPED) for _ in range(2))
        for variant, own in enumerate(sets):
            place = np.searchsorted(rows, own.keys["row"].to_numpy())
            target[place, variant] = own.keys["target"].to_numpy()
            fold[place, variant] = own.keys["fold"].to_numpy()
        return cls(keys.take(pa.array(first)), target, fold, sets[0].matrix)


def slide_rank(keys: pa.Table, seed: int) -> npt.NDArray[np.float32]:
    """Return each tile's place of its slide in a random order of the slides, in (0, 1]."""
    slide, names = encode_slides(keys)
    order = np.random.default_rng(seed).permutation(len(names)) + 1
    return (order[slide] / len(names)).astype(np.float32)


def load(
    session: Run, tiles: TileTable, order: npt.NDArray[np.int64]
) -> tuple[Shard, npt.NDArray[np.int64]]:
    """Return this process's share of some tiles, on its device, and the tile of each position.

    Parameters
    ----------
    order
        TileTable, as rows of ``tiles.keys``, in the order in which they are to be in memory.
    """
    config, accelerator = session.config, session.accelerator
    rank, world = accelerator.process_index, accelerator.num_processes
    number = 2 if config.precision == "bf16" else 4
    fits = len(order) // world * tiles.matrix.dim * number <= memory_budget(config)
    if config.stream == "never" or (fits and config.stream == "auto"):
        return to_device(resident(tiles, order, config, rank, world), accelerator.device), order
    order = order[np.argsort(tiles.keys["row"].to_numpy()[order])]
    return to_device(streamed(tiles, order, config, rank, world), accelerator.device), order


def resident(
    tiles: TileTable, order: npt.NDArray[np.int64], config: Config, rank: int = 0, world: int = 1
) -> Shard:
    """Return the tiles that a process owns, their embeddings copied into memory."""
    rows = tiles.keys["row"].to_numpy()[order[rank::world]]
    x = embedding_transform(config)(
        torch.from_numpy(tiles.matrix.read_rows(rows, threads=config.threads))
    )
    return _pool(tiles, order, x, config, rank, world)


def streamed(
    tiles: TileTable, order: npt.NDArray[np.int64], config: Config, rank: int = 0, world: int = 1
) -> Shard:
    """Return the tiles that a process owns, their embeddings to be read as they are used.

    ``order`` must be that of the file.
    """

    def gather(rows: npt.NDArray[np.int64], out: npt.NDArray[np.float32]) -> None:
        tiles.matrix.read_rows(rows, threads=config.threads, out=out)

    rows = tiles.keys["row"].to_numpy()[order[rank::world]]
    x = Stream(gather, rows, tiles.matrix.dim, embedding_transform(config))
    return _pool(tiles, order, x, config, rank, world)


def _pool(
    tiles: TileTable,
    order: npt.NDArray[np.int64],
    x: Tensor | Stream,
    config: Config,
    rank: int,
    world: int,
) -> Shard:
    unit, units = encode_clusters(tiles.keys, config.evidence.resample)
    mine = order[rank::world]
    return Shard(
        x=x,
        target=torch.from_numpy(tiles.target[mine].T.copy()),
        fold=torch.from_numpy(tiles.fold[mine].T.copy()),
        slide=torch.from_numpy(unit[mine]),
        draw=torch.from_numpy(slide_rank(tiles.keys, config.seed)[mine]),
        slides=units,
        rows=len(order),
        rank=rank,
        world=world,
    )


def embedding_transform(config: Config) -> Callable[[Tensor], Tensor]:
    """Return what is done to embeddings before any head sees them; it may write over them."""

    def change(x: Tensor) -> Tensor:
        if config.normalize == "l2":
            for block in x.split(BLOCK):
                block.copy_(Unit()(block))
        return x.bfloat16() if config.precision == "bf16" else x

    return change


def memory_budget(config: Config) -> int:
    """Return the bytes that a process's embeddings may take."""
    if config.memory_limit:
        return int(SHARE * size(config.memory_limit))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return int(SHARE * psutil.virtual_memory().available / local)


def to_device(pool: Shard, device: torch.device) -> Shard:
    """Bring the own tiles to a device, the embeddings only where they fit."""
    if device.type == "cpu":
        return pool
    small = {name: getattr(pool, name).to(device) for name in ("target", "fold", "slide", "draw")}
    x = pool.x
    if isinstance(x, Tensor):
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
        x = x.to(device) if x.nbytes < 0.8 * free else x.pin_memory()
    return replace(pool, x=x, **small)


def load_splits(
    tiles: TileSet, seed: int, rank: int = 0, world: int = 1, threads: int | None = None
) -> dict[str, Split]:
    """Copy the embeddings that a process owns, once, into its memory.

    Parameters
    ----------
    tiles
        The chosen tiles. Those of split ``train`` are shuffled, others keep the order of keys.
    seed
        Decides the shuffle.
    rank, world
        Which of how many processes this is.
    threads
        See `featurestore.embeddings.matrix.EmbeddingMatrix.gather`.
    """
    sides = np.asarray(tiles.keys["split"].combine_chunks().dictionary_encode().to_numpy(False))
    orders, own, places, offset = {}, [], [], 0
    for side in sorted(set(sides.tolist())):
        order = np.flatnonzero(sides == side)
        if side == "train":
            order = np.random.default_rng(seed).permutation(order)
        orders[side] = order
        mine = order[rank::world]
        own.append(mine)
        places.append(offset + np.arange(len(mine)))
        offset += len(mine)
    rows = np.concatenate(own)
    lines = tiles.keys["row"].to_numpy()[rows]
    matrix = tiles.matrix.read_rows(lines, np.concatenate(places), threads)
    target = tiles.keys["target"].fill_null(UNKNOWN).to_numpy()
    slide, names = encode_slides(tiles.keys)
    splits, start = {}, 0
    for side, mine in zip(orders, own, strict=True):
        splits[side] = Split(
            x=torch.from_numpy(matrix[start : start + len(mine)]),
            target=torch.from_numpy(target[mine]),
            slide=torch.from_numpy(slide[mine]),
            slides=len(names),
            order=orders[side],
            targets=torch.from_numpy(target[orders[side]]),
            rank=rank,
            world=world,
        )
        start += len(mine)
    return splits
