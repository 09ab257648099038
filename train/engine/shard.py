"""One process's rows of the tiles, and the batches of an epoch.

The tiles are put in one order that only the seed decides. A process owns positions rank,
rank + world, rank + 2 world, ... of it, so any window of the order is a slice of each process's own
matrix: the batches of an epoch are the same tiles however many processes share them, each tile
belongs to exactly one process, and no row is ever gathered.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from train.engine.sampler import batch_windows, chunk_order
from train.engine.stream import Stream, prefetch

DROPPED = -1  # fold and target of a tile that a variant drops
BLOCK = 1024  # rows whose embeddings stay in the cache between the two products
BLOCK_CUDA = 16384
SECTION = 16384  # rows that are read from the disk at once

Reduce = Callable[[Tensor], Tensor]
"""All-reduce: the sum of a tensor over the processes."""


@dataclass(frozen=True)
class Shard:
    """The tiles that this process owns: positions rank, rank + world, ... of an order of all.

    Parameters
    ----------
    x
        Embeddings, shape (local rows, dim); a `Stream` where they are not in memory.
    target, fold
        Class and fold under each variant of the rules, `DROPPED` where it drops the tile; shape
        (variants, local rows).
    cluster
        Number of the slide, or of what else is a unit of intervals, shape (local rows,).
    slide_rank
        Place of the slide in a random order of slides, in (0, 1], shape (local rows,).
    clusters, rows
        Numbers of clusters and of tiles, over all processes.
    rank, world
        Which of how many processes this is.
    """

    x: Tensor | Stream
    target: Tensor
    fold: Tensor
    cluster: Tensor
    slide_rank: Tensor
    clusters: int
    rows: int
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        return self.rows

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.x.shape[1]

    @property
    def device(self) -> torch.device:
        """Where targets and folds are, and where products are computed."""
        return self.target.device

    @property
    def local_rows(self) -> int:
        """Number of rows of this process."""
        return len(self.cluster)

    @property
    def block(self) -> int:
        """Number of rows that are worked on at once."""
        return BLOCK_CUDA if self.device.type == "cuda" else BLOCK

    def local_slice(self, start: int, stop: int) -> slice:
        """Return where positions start .. stop lie among the local rows."""
        low, high = ((edge - self.rank + self.world - 1) // self.world for edge in (start, stop))
        return slice(low, high)

    def window(self, start: int, stop: int) -> "Shard":
        """Return the local rows among positions start .. stop: views, where they are in memory."""
        return self.cut(self.local_slice(start, stop))

    def cut(self, rows: slice) -> "Shard":
        """Return some of the local rows, in memory."""
        return self._rows(self.x[rows], rows)

    def without_embeddings(self) -> "Shard":
        """Return the same rows without embeddings, for what only asks who they are."""
        return replace(self, x=torch.empty((self.local_rows, 0)))

    def masked(self, rows: Tensor, valid: Tensor) -> "Shard":
        """Return some rows in memory; those that are not valid as if every variant dropped them."""
        assert isinstance(self.x, Tensor)
        taken = self._rows(self.x.index_select(0, rows), rows)
        return replace(taken, fold=taken.fold.masked_fill(~valid, DROPPED))

    def to(self, device: torch.device) -> "Shard":
        """Bring the rows to a device, the embeddings only where they fit.

        What does not fit stays in page-locked memory, from which batches are copied as they come.
        """
        if device.type == "cpu":
            return self
        columns = ("target", "fold", "cluster", "slide_rank")
        moved = {name: getattr(self, name).to(device) for name in columns}
        x = self.x
        if isinstance(x, Tensor):
            free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
            x = x.to(device) if x.nbytes < 0.8 * free else x.pin_memory()
        return replace(self, x=x, **moved)

    def _rows(self, x: Tensor, rows: slice | Tensor) -> "Shard":
        return replace(
            self,
            x=x,
            target=self.target[:, rows],
            fold=self.fold[:, rows],
            cluster=self.cluster[rows],
            slide_rank=self.slide_rank[rows],
        )

    def sections(self) -> Iterator[tuple[int, "Shard"]]:
        """Yield the rows in memory, with where they begin: all at once, or as they are read."""
        if isinstance(self.x, Tensor):
            yield 0, self
            return
        stream, starts = self.x, range(0, self.local_rows, SECTION)

        def read(start: int) -> Shard:
            rows = slice(start, start + SECTION)
            return self._rows(stream.read([rows], start // SECTION), rows)

        yield from zip(starts, prefetch(read, starts), strict=True)

    def blocks(self, size: int | None = None) -> Iterator["Shard"]:
        """Yield the local rows in blocks."""
        size = size or self.block
        for _, section in self.sections():
            for start in range(0, section.local_rows, size):
                yield section.cut(slice(start, start + size))

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[list["Shard"]]:
        """Yield the local rows of each batch of an epoch, in one or two pieces.

        The same batches whatever the number of processes. In memory they are windows of the order;
        on disk the order is that of the file, which is read in chunks, the chunks in random order,
        and some of them at a time are shuffled together.
        """
        if isinstance(self.x, Tensor):
            for window in batch_windows(self.rows, size, rng):
                yield [self.window(*part) for part in window]
            return
        stream, groups = self.x, chunk_order(self.rows, size, rng)
        buffer = torch.empty(0)

        def read(turn: int) -> Tensor:
            return stream.read([self.local_slice(*span) for span in groups[turn]], turn)

        for spans, x in zip(groups, prefetch(read, range(len(groups))), strict=True):
            position = np.concatenate([np.arange(*span) for span in spans])
            local = position % self.world == self.rank
            row = np.cumsum(local) - 1  # in x, of those that are local
            order = rng.permutation(len(position))
            for start in range(0, len(order), size):
                batch = order[start : start + size]
                batch = batch[local[batch]]
                taken, buffer = gather_rows(x, torch.from_numpy(row[batch]), buffer, size)
                rows = torch.from_numpy(position[batch] // self.world)
                yield [self._rows(taken, rows.to(self.device))]


def gather_rows(x: Tensor, rows: Tensor, buffer: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return some rows, at most ``size``, in a buffer that is made once.

    New memory for every block costs more than the copy.
    """
    if not len(buffer):
        buffer = torch.empty((size, x.shape[1]), dtype=x.dtype, device=x.device)
    return torch.index_select(x, 0, rows.to(x.device), out=buffer[: len(rows)]), buffer
