"""Several processes played by threads: each does the same work on its own share of a shard."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from train.engine.shard import Reduce, Shard

T = TypeVar("T")


def share(shard: Shard, rank: int, world: int) -> Shard:
    """Return the share of one process."""
    return replace(shard.cut(slice(rank, None, world)), rank=rank, world=world)


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
