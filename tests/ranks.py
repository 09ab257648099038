"""Several processes played by threads: each does the same work on its own share of a shard."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from train.engine.lanes import Lanes, owned
from train.engine.shard import Reduce, Shard

T = TypeVar("T")


def local_positions(rows: int, rank: int, world: int) -> np.ndarray:
    """Return the positions of one process's tiles, lane by lane as on disk."""
    lanes = Lanes.cut(np.arange(rows), np.zeros(1, dtype=np.int64))
    return lanes.positions(owned(rank, world))


def share(shard: Shard, rank: int, world: int) -> Shard:
    """Return the share of one process, in memory: the tiles that stand where its lanes take turns.

    Tile i of the shard stands at position i of the order.
    """
    positions = np.sort(local_positions(len(shard), rank, world))
    rows = torch.from_numpy(positions)
    return replace(
        shard, x=shard.x[rows], target=shard.target[:, rows], fold=shard.fold[:, rows],
        cluster=shard.cluster[rows], slide_rank=shard.slide_rank[rows], positions=positions,
    )  # fmt: skip


def ranks(shard: Shard, world: int, work: Callable[[Shard, Reduce], T]) -> list[T]:
    """Return what each process makes of its share; sums over processes are real sums."""
    barrier = threading.Barrier(world, timeout=60)
    values: list[Tensor] = [torch.empty(0)] * world

    def run(rank: int) -> T:
        def reduce(value: Tensor) -> Tensor:
            values[rank] = value
            barrier.wait()
            total = torch.stack(values).sum(dim=0)
            barrier.wait()
            return total

        try:
            return work(share(shard, rank, world), reduce)
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(world) as threads:
        return list(threads.map(run, range(world)))
