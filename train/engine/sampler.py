"""The batches of an epoch: windows of one fixed order of tiles, themselves in random order."""

from collections.abc import Iterator

import numpy as np

CHUNK = 8192  # rows, at least, that are read from the disk in one piece
TOGETHER = 4  # chunks that are shuffled together: as many are in memory, twice

Window = list[tuple[int, int]]
"""Positions start .. stop; two pieces where the window wraps around."""


def batch_windows(rows: int, size: int, rng: np.random.Generator) -> Iterator[Window]:
    """Yield the batches of an epoch as windows of positions, in random order.

    The first starts at a random position, the last may be shorter, one may wrap around: no two
    epochs cut the order alike.
    """
    offset = int(rng.integers(rows))
    for start in rng.permutation(np.arange(0, rows, size)).tolist():
        low, high = offset + start, offset + min(start + size, rows)
        if low >= rows:
            yield [(low - rows, high - rows)]
        elif high > rows:
            yield [(low, rows), (0, high - rows)]
        else:
            yield [(low, high)]


def chunk_order(rows: int, size: int, rng: np.random.Generator) -> list[list[tuple[int, int]]]:
    """Return pieces start .. stop of an order on disk in random order, some at a time.

    All pieces but the last of the order are of as many batches of ``size``.
    """
    length = size * max(1, CHUNK // size)
    starts = rng.permutation(np.arange(0, rows, length)).tolist()
    spans = [(start, min(start + length, rows)) for start in starts]
    return [spans[first : first + TOGETHER] for first in range(0, len(spans), TOGETHER)]
