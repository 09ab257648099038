"""As much as a tracking server takes in one request."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
METRICS, PARAMS = 1000, 100


def batched(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """Yield tuples of at most ``size`` items (itertools has it from Python 3.12 on)."""
    rest = iter(items)
    while batch := tuple(islice(rest, size)):
        yield batch
