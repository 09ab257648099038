"""The tiles that a pack of heads is trained on, and which of them each head sees."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from train.engine.sampler import Window, batch_windows, chunk_order
from train.engine.stream import Stream, ahead

DROPPED = -1  # fold and target of a tile that a variant drops
BLOCK = 1024  # rows whose embeddings stay in the cache between the two products
BLOCK_CUDA = 16384
SECTION = 16384  # rows that are read from the disk at once

Reduce = Callable[[Tensor], Tensor]
"""Adds a tensor up over the processes."""


@dataclass(frozen=True)
class Shard:
    """The tiles that this process owns: positions rank, rank + world, ... of an order of all.

    Parameters
    ----------
    x
        Embeddings, shape (own rows, dim); a `Stream` where they are not in memory.
    target, fold
        Class and fold under each variant of the rules, `DROPPED` where it drops the tile; shape
        (variants, own rows).
    slide
        Number of the slide, or of whatever else intervals resample, shape (own rows,).
    draw
        Place of the slide in a random order of slides, in (0, 1], shape (own rows,).
    slides, rows
        Numbers of such slides and of tiles, over all processes.
    rank, world
        Which of how many processes this is.
    """

    x: Tensor | Stream
    target: Tensor
    fold: Tensor
    slide: Tensor
    draw: Tensor
    slides: int
    rows: int
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        return self.rows

    @property
    def owned(self) -> int:
        """Number of own rows."""
        return len(self.slide)

    @property
    def block(self) -> int:
        """Number of rows that are worked on at once."""
        return BLOCK_CUDA if self.target.device.type == "cuda" else BLOCK

    def own(self, start: int, stop: int) -> "Shard":
        """Return the own rows among positions start .. stop: views, where they are in memory."""
        return self.cut(self._own(start, stop))

    def _own(self, start: int, stop: int) -> slice:
        low, high = ((edge - self.rank + self.world - 1) // self.world for edge in (start, stop))
        return slice(low, high)

    def cut(self, rows: slice) -> "Shard":
        """Return some of the own rows, in memory."""
        return self._picked(self.x[rows], rows)

    def bare(self) -> "Shard":
        """Return the same rows without their embeddings, for what only asks who they are."""
        return replace(self, x=torch.empty((self.owned, 0)))

    def masked(self, rows: Tensor, valid: Tensor) -> "Shard":
        """Return some rows in memory; those that are not valid as if every variant dropped them."""
        assert isinstance(self.x, Tensor)
        some = self._picked(self.x.index_select(0, rows), rows)
        return replace(some, fold=some.fold.masked_fill(~valid, DROPPED))

    def _picked(self, x: Tensor, rows: slice | Tensor) -> "Shard":
        return replace(
            self,
            x=x,
            target=self.target[:, rows],
            fold=self.fold[:, rows],
            slide=self.slide[rows],
            draw=self.draw[rows],
        )

    def sections(self) -> Iterator[tuple[int, "Shard"]]:
        """Yield the own rows in memory, with where they begin: all at once, or as they are read."""
        if isinstance(self.x, Tensor):
            yield 0, self
            return
        stream, starts = self.x, range(0, self.owned, SECTION)

        def read(start: int) -> Shard:
            rows = slice(start, start + SECTION)
            return self._picked(stream.read([rows], start // SECTION), rows)

        yield from zip(starts, ahead(read, starts), strict=True)

    def blocks(self, size: int | None = None) -> Iterator["Shard"]:
        """Yield the own rows in blocks."""
        size = size or self.block
        for _, section in self.sections():
            for start in range(0, section.owned, size):
                yield section.cut(slice(start, start + size))

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[list["Shard"]]:
        """Yield the own rows of each batch of an epoch, in one or two pieces.

        The same batches whatever the number of processes. In memory they are windows of the order;
        on disk the order is that of the file, which is read in chunks, the chunks in random order,
        and some of them at a time are shuffled together.
        """
        if isinstance(self.x, Tensor):
            for window in batch_windows(self.rows, size, rng):
                yield [self.own(*part) for part in window]
            return
        stream, together = self.x, chunk_order(self.rows, size, rng)
        room = torch.empty(0)

        def read(turn: int) -> Tensor:
            return stream.read([self._own(*span) for span in together[turn]], turn)

        for spans, x in zip(together, ahead(read, range(len(together))), strict=True):
            position = np.concatenate([np.arange(*span) for span in spans])
            mine = position % self.world == self.rank
            place = np.cumsum(mine) - 1  # in x, of those that are mine
            order = rng.permutation(len(position))
            for start in range(0, len(order), size):
                batch = order[start : start + size]
                batch = batch[mine[batch]]
                own, room = gather_rows(x, torch.from_numpy(place[batch]), room, size)
                rows = torch.from_numpy(position[batch] // self.world)
                yield [self._picked(own, rows.to(self.slide.device))]


def gather_rows(x: Tensor, rows: Tensor, room: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return some rows, at most so many, in a room for them that is made once.

    New memory for every block costs more than the copy.
    """
    if not len(room):
        room = torch.empty((most, x.shape[1]), dtype=x.dtype, device=x.device)
    return torch.index_select(x, 0, rows.to(x.device), out=room[: len(rows)]), room


UNKNOWN = -1  # target of a tile without a label


@dataclass(frozen=True)
class Split:
    """One process's share of a split.

    Parameters
    ----------
    x
        Its embeddings, float32, shape (own rows, dim).
    target, slide
        Their class index (`UNKNOWN` without a label) and slide number, shape (own rows,).
    slides
        Number of slides in the whole set.
    order
        Row in the table of keys of every position, own or not, shape (rows,).
    targets
        Class index at every position, shape (rows,).
    rank, world
        Which of how many processes this is.
    """

    x: Tensor
    target: Tensor
    slide: Tensor
    slides: int
    order: npt.NDArray[np.int64]
    targets: Tensor
    rank: int
    world: int

    def __len__(self) -> int:
        return len(self.order)

    def own(self, start: int, stop: int) -> slice:
        """Return where positions start .. stop lie among the own rows."""
        return slice(*((edge - self.rank + self.world - 1) // self.world for edge in (start, stop)))

    def batch(self, window: Window, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the own embeddings and targets of a window: views, unless it wraps around."""
        parts = [self.own(start, stop) for start, stop in window]
        x, target = (
            rows[parts[0]] if len(parts) == 1 else torch.cat([rows[part] for part in parts])
            for rows in (self.x, self.target)
        )
        return x.to(device, non_blocking=True), target.to(device, non_blocking=True)

    def on(self, device: torch.device) -> "Split":
        """Bring the own rows to a device, the embeddings only where they fit.

        What does not fit stays in page-locked memory, from which batches are copied as they come.
        """
        if device.type == "cpu":
            return self
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
        fits = self.x.nbytes < 0.8 * free
        x = self.x.to(device) if fits else self.x.pin_memory()
        return replace(self, x=x, target=self.target.to(device), slide=self.slide.to(device))


def count_targets(targets: Tensor, classes: int) -> Tensor:
    """Return the number of tiles per class, shape (classes,)."""
    return torch.bincount(targets[targets != UNKNOWN], minlength=classes)
