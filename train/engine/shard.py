"""One process's rows of the tiles, and the batches of an epoch.

The tiles are put in one order that does not depend on the number of processes, see
`train.engine.lanes`. A process owns whole lanes, which take turns in that order, so every batch is
the same tiles however many processes share them, and each process has its even share of it. In
memory a process's rows lie in that order, so that its part of any window is a slice and no row is
ever gathered; on disk they lie as in the file.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from train.engine.sampler import Window, batch_windows, chunk_order
from train.engine.stream import Stream, prefetch

DROPPED = -1  # fold and target of a tile that a variant drops
BLOCK = 1024  # rows whose embeddings stay in the cache between the two products
BLOCK_CUDA = 16384
SECTION = 16384  # rows that are read from the disk at once

Reduce = Callable[[Tensor], Tensor]
"""All-reduce: the sum of a tensor over the processes."""


@dataclass(frozen=True)
class Shard:
    """The tiles that this process owns, of an order of all.

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
    positions
        Where the local rows stand in the order of all tiles, shape (local rows,): ascending, on
        disk within each lane. None where they are all tiles, in order.
    """

    x: Tensor | Stream
    target: Tensor
    fold: Tensor
    cluster: Tensor
    slide_rank: Tensor
    clusters: int
    rows: int
    positions: npt.NDArray[np.int64] | None = None

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

    @cached_property
    def _runs(self) -> list[tuple[int, npt.NDArray[np.int64]]]:
        """Local rows of ascending positions: the first of them, and these positions."""
        assert self.positions is not None
        edges = np.flatnonzero(np.diff(self.positions) < 0) + 1
        return list(zip([0, *edges.tolist()], np.split(self.positions, edges), strict=True))

    def local_slices(self, start: int, stop: int) -> list[slice]:
        """Return where positions start .. stop lie among the local rows: in memory in one piece."""
        if self.positions is None:
            return [slice(start, stop)]
        edges = [(first, run.searchsorted((start, stop)).tolist()) for first, run in self._runs]
        return [slice(first + low, first + high) for first, (low, high) in edges]

    def window(self, start: int, stop: int) -> "Shard":
        """Return the local rows among positions start .. stop, in memory: views."""
        [rows] = self.local_slices(start, stop)
        return self.cut(rows)

    def cut(self, rows: slice) -> "Shard":
        """Return some of the local rows, in memory, as a shard of their own."""
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
        return Shard(
            x=x,
            target=self.target[:, rows],
            fold=self.fold[:, rows],
            cluster=self.cluster[rows],
            slide_rank=self.slide_rank[rows],
            clusters=self.clusters,
            rows=len(x),
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

        The same batches whatever the number of processes. In memory they are windows of the order.
        On disk a chunk of the order is a run of rows of each lane; chunks are read in random order,
        and some of them at a time are shuffled together.
        """
        if isinstance(self.x, Tensor):
            for window in batch_windows(self.rows, size, rng):
                yield [self.window(*part) for part in window]
            return
        stream, groups = self.x, chunk_order(self.rows, size, rng)
        buffer = torch.empty(0)

        def read(turn: int) -> Tensor:
            return stream.read([run for run, _ in self._reads(groups[turn])], turn)

        for spans, x in zip(groups, prefetch(read, range(len(groups))), strict=True):
            rows, places = self._places(spans)
            order = rng.permutation(sum(stop - start for start, stop in spans))
            taken_from = np.full(len(order), -1)  # the row of x at each place, if it is local
            taken_from[places] = np.arange(len(places))
            for start in range(0, len(order), size):
                batch = taken_from[order[start : start + size]]
                batch = batch[batch >= 0]
                taken, buffer = gather_rows(x, torch.from_numpy(batch), buffer, size)
                yield [self._rows(taken, torch.from_numpy(rows[batch]).to(self.device))]

    def _reads(self, spans: Window) -> list[tuple[slice, int]]:
        """Return the local rows of spans as they are read: runs of them, in the order of the file.

        With each comes what a position is moved by to its place in the spans one after another.
        """
        reads, before = [], 0
        for start, stop in spans:
            reads += [(run, before - start) for run in self.local_slices(start, stop)]
            before += stop - start
        return sorted(reads, key=lambda read: read[0].start)

    def _places(self, spans: Window) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the local rows of spans as they are read, and their places in the spans."""
        reads = self._reads(spans)
        rows = np.concatenate([np.arange(run.start, run.stop) for run, _ in reads])
        moved = np.repeat([by for _, by in reads], [run.stop - run.start for run, _ in reads])
        positions = rows if self.positions is None else self.positions[rows]
        return rows, positions + moved


def gather_rows(x: Tensor, rows: Tensor, buffer: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return some rows, at most ``size``, in a buffer that is made once.

    New memory for every block costs more than the copy.
    """
    if not len(buffer):
        buffer = torch.empty((size, x.shape[1]), dtype=x.dtype, device=x.device)
    return torch.index_select(x, 0, rows.to(x.device), out=buffer[: len(rows)]), buffer
