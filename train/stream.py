"""Embeddings that stay on disk: read by slices, the next one while this one is worked on."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Wanted = TypeVar("Wanted")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Stream:
    """Rows of a matrix on disk, in its order; a slice of them is read when it is asked for.

    Parameters
    ----------
    gather
        Reads some rows of the matrix: float32, shape (rows, dim).
    rows
        Which ones, ascending.
    dim
        Length of an embedding.
    change
        Applied to what was read.
    """

    gather: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]
    rows: npt.NDArray[np.int64]
    dim: int
    change: Callable[[Tensor], Tensor]

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
        return self.change(torch.from_numpy(self.gather(self.rows[rows])))


def ahead(find: Callable[[Wanted], Found], wanted: Iterable[Wanted]) -> Iterator[Found]:
    """Yield what is found for each, the next one being looked for meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        coming = None
        for one in wanted:
            following = thread.submit(find, one)
            if coming is not None:
                yield coming.result()
            coming = following
        if coming is not None:
            yield coming.result()
