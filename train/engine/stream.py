"""Embeddings that stay on disk: read by slices, the next one while this one is worked on."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class Stream:
    """Rows of a matrix on disk, in its order; a part of them is read when it is asked for.

    Parameters
    ----------
    gather
        Reads some rows of the matrix into float32 memory of shape (rows, dim).
    rows
        Which ones, ascending.
    dim
        Length of an embedding.
    change
        Applied to what was read.
    buffers
        Memory that is read into, in turns: new memory costs more than the reading.
    """

    gather: Callable[[npt.NDArray[np.int64], npt.NDArray[np.float32]], object]
    rows: npt.NDArray[np.int64]
    dim: int
    change: Callable[[Tensor], Tensor]
    buffers: list[Tensor] = field(default_factory=lambda: [torch.empty(0), torch.empty(0)])

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and dimension, as of a tensor."""
        return len(self.rows), self.dim

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Tensor:
        """Return all rows in memory, on a device."""
        return self[:].to(device, non_blocking=non_blocking)

    def __getitem__(self, rows: slice) -> Tensor:
        """Return some rows in memory of their own."""
        number = len(range(*rows.indices(len(self))))
        return self.change(self._filled([rows], torch.empty((number, self.dim))))

    def then(self, change: Callable[[Tensor], Tensor]) -> "Stream":
        """Return the rows with one more change applied to what was read."""
        return replace(self, change=lambda x: change(self.change(x)))

    def read(self, pieces: list[slice], turn: int) -> Tensor:
        """Return some pieces one after another, in memory that the next but one turn takes."""
        number = sum(len(range(*piece.indices(len(self)))) for piece in pieces)
        if len(self.buffers[turn % 2]) < max(number, 1):
            self.buffers[turn % 2] = torch.empty((max(number, 1), self.dim))
        return self.change(self._filled(pieces, self.buffers[turn % 2][:number]))

    def _filled(self, pieces: list[slice], buffer: Tensor) -> Tensor:
        self.gather(np.concatenate([self.rows[piece] for piece in pieces]), buffer.numpy())
        return buffer


def prefetch(read: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield what is read for each item; a thread reads the next one meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        pending = None
        for item in items:
            following = thread.submit(read, item)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()
