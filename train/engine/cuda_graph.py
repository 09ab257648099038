"""The steps of an epoch: one after another or, on a GPU, one that was captured, again and again.

A step on a GPU is some thirty kernels of a few microseconds each; to launch them one by one from
Python takes ten times as long as they run. A CUDA graph launches them all at once. What changes
from step to step must then lie on the GPU: the batches of an epoch are a table of windows, and the
graph itself moves on to the next row. See docs/decisions/020-graphs.md.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from train.engine.sampler import batch_windows
from train.engine.shard import Shard

Step = Callable[[list[Shard]], Tensor]
"""Takes a step on the pieces of a batch; returns sums of losses and weights, shape (2, H)."""


class EpochRunner:
    """Takes the steps of heads that train together, epoch by epoch, until one of them leaves.

    Parameters
    ----------
    shard
        All tiles.
    size
        Tiles a step.
    step
        What a step does.
    capturable
        Whether a CUDA graph can hold `step`: it never asks the GPU for a number.
    """

    def __init__(self, shard: Shard, size: int, step: Step, capturable: bool) -> None:
        self.shard, self.size, self.step = shard, size, step
        self.graph = CapturedStep(shard, size, step) if capturable and resident(shard) else None

    def run(self, rng: np.random.Generator) -> Tensor:
        """Take the steps of an epoch; return sums of losses and weights, shape (2, H)."""
        if self.graph:
            return self.graph.run(rng)
        sums: Tensor | float = 0.0
        for batch in self.shard.batches(self.size, rng):
            sums = sums + self.step(batch)
        assert isinstance(sums, Tensor)
        return sums


def resident(shard: Shard) -> bool:
    """Return whether all tiles are on a GPU, which no other process shares in."""
    return isinstance(shard.x, Tensor) and shard.x.is_cuda and shard.positions is None


class CapturedStep:
    """A step as a CUDA graph; parameters as of `EpochRunner`."""

    def __init__(self, shard: Shard, size: int, step: Step) -> None:
        self.shard, self.size, self.step = shard, size, step
        number = -(-shard.rows // size)
        self.table = torch.zeros((number, 2), dtype=torch.int64, device=shard.target.device)
        self.row = torch.zeros(1, dtype=torch.int64, device=shard.target.device)
        self.within = torch.arange(size, device=shard.target.device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.sums = torch.empty(0)

    def run(self, rng: np.random.Generator) -> Tensor:
        """Take the steps of an epoch, as `EpochRunner.run`; the very first is not replayed."""
        parts = list(batch_windows(self.shard.rows, self.size, rng))
        spans = [(part[0][0], sum(stop - start for start, stop in part)) for part in parts]
        self.table.copy_(torch.tensor(spans))
        self.row.zero_()
        remaining = len(parts)
        if self.graph:
            self.sums.zero_()
        else:
            self.capture()  # which takes the first step of this epoch
            remaining -= 1
        assert self.graph
        for _ in range(remaining):
            self.graph.replay()
        return self.sums.clone()

    def capture(self) -> None:
        """Take a step, which makes the optimizer's state, and capture the next without taking it.

        Beside the current stream, as CUDA wants it of what comes before a capture.
        """
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            first = self.step([self.batch()])
        torch.cuda.current_stream().wait_stream(side)
        self.sums = first.clone()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.sums += self.step([self.batch()])

    def batch(self) -> Shard:
        """Return the tiles of the next row; a short batch is filled up with tiles of no head."""
        start, length = self.table.index_select(0, self.row)[0]
        self.row += 1
        rows = (start + self.within) % self.shard.rows
        return self.shard.masked(rows, self.within < length)
