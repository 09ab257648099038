"""Several processes played by threads: each does the same work on its own share of a shard."""

import pickle
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from featurestore.errors import FeatureStoreError
from train.engine.lanes import Lanes, owned
from train.engine.shard import Reduce, Shard
from train.runtime.processes import Processes, _attempt, _delivered

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


@dataclass
class Wire:
    """What lies between processes that are played by threads; it counts the bytes that pass."""

    world: int
    sent: int = 0
    values: list[bytes] = field(default_factory=list)
    barrier: threading.Barrier = field(init=False)

    def __post_init__(self) -> None:
        self.values = [b""] * self.world
        self.barrier = threading.Barrier(self.world, timeout=60)

    def exchange(self, rank: int, value: object) -> list[Any]:
        """Return what each process has put on it."""
        self.values[rank] = pickle.dumps(value)
        self.barrier.wait()
        values = [pickle.loads(value) for value in self.values]
        if rank == 0:
            self.sent += sum(map(len, self.values))
        self.barrier.wait()
        return values


class Played(Processes):
    """One of several processes that are threads."""

    def __init__(self, rank: int, wire: Wire) -> None:
        self.__dict__.update(number=rank, wire=wire)

    is_main = property(lambda self: self.number == 0)  # type: ignore[assignment]
    rank = property(lambda self: self.number)  # type: ignore[assignment]
    world = property(lambda self: self.wire.world)  # type: ignore[assignment]
    device = property(lambda self: torch.device("cpu"))  # type: ignore[assignment]

    def _exchange(self, value: object) -> list[Any]:
        return self.__dict__["wire"].exchange(self.rank, value)

    def on_main(self, work: Callable[[], T]) -> T:
        return _delivered(self._exchange(_attempt(work) if self.is_main else None)[0])

    def scatter(self, work: Callable[[], Sequence[T]]) -> T:
        outcome = self._exchange(_attempt(work) if self.is_main else None)[0]
        return _delivered(outcome)[self.rank]

    def together(self, work: Callable[[], T]) -> T:
        outcome = _attempt(work)
        refusals = self._exchange(outcome if isinstance(outcome, FeatureStoreError) else None)
        return _delivered(next(filter(None, refusals), outcome))

    def all_gather(self, value: T) -> list[T]:
        return self._exchange(value)

    def all_reduce(self, value: Tensor) -> Tensor:
        return torch.stack(self._exchange(value)).sum(dim=0)


def played(world: int, work: Callable[[Processes], object]) -> int:
    """Do some work as several processes; return how many bytes they have told each other."""
    wire = Wire(world)

    def run(rank: int) -> None:
        try:
            work(Played(rank, wire))
        except FeatureStoreError:
            raise
        except BaseException:
            wire.barrier.abort()
            raise

    with ThreadPoolExecutor(world) as threads:
        list(threads.map(run, range(world)))
    return wire.sent
