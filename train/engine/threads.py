"""How many threads share the work of a step: one, where waking the others would take longer."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from train.engine.matmul import LARGE
from train.engine.problem import Problem

SMALL = 2**23  # multiplications: half a millisecond of one core


def is_small(problem: Problem, rows: int) -> bool:
    """Return whether one thread does the products of some rows as soon as several would."""
    numbers = rows * problem.train.dim
    # Larger products are another kernel's where there is but one thread, see `train.engine.matmul`.
    return numbers < LARGE and numbers * len(problem.heads) * problem.classes < SMALL


@contextmanager
def few_threads(problem: Problem, rows: int) -> Iterator[None]:
    """Let torch compute with one thread where a problem is small.

    Threads of torch meet after each operation, and wait by spinning: where an operation takes
    microseconds, and another process has one of the cores, the waiting is most of a fit. It goes by
    the problem's size alone, so that a fit has the same last digits whenever it runs again.

    Parameters
    ----------
    rows
        How many are worked on at once.
    """
    before = torch.get_num_threads()
    if is_small(problem, rows):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
