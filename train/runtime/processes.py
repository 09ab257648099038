"""The processes of a run act as one: broadcast, gather, all-reduce."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from featurestore.errors import FeatureStoreError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The processes that share the work of a run, and their devices.

    Parameters
    ----------
    accelerator
        Accelerate's view of them.
    """

    accelerator: Accelerator

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that prints and writes."""
        return bool(self.accelerator.is_main_process)

    @property
    def rank(self) -> int:
        """Which one this is."""
        return int(self.accelerator.process_index)

    @property
    def local_rank(self) -> int:
        """Which one of those on its machine."""
        return int(self.accelerator.local_process_index)

    @property
    def world(self) -> int:
        """How many there are."""
        return int(self.accelerator.num_processes)

    @property
    def device(self) -> torch.device:
        """Where this one computes."""
        return self.accelerator.device

    def on_main(self, work: Callable[[], T]) -> T:
        """Do some work on the main process alone; give its result, or its refusal, to all."""
        outcome: list[object] = [None]
        if self.is_main:
            outcome = [_attempt(work)]
        broadcast_object_list(outcome)
        return _delivered(outcome[0])  # type: ignore[return-value]  # what `work` returned

    def together(self, work: Callable[[], T]) -> T:
        """Do some work on every process; a refusal on one is raised on all, or they would wait."""
        outcome = _attempt(work)
        refusals = [outcome] if isinstance(outcome, FeatureStoreError) else []
        if self.world > 1:
            refusals = gather_object(refusals)
        return _delivered(refusals[0] if refusals else outcome)  # type: ignore[return-value]

    def all_gather(self, value: T) -> list[T]:
        """Return what each process has, to all of them."""
        return gather_object([value]) if self.world > 1 else [value]

    def all_reduce(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes."""
        total: Tensor = self.accelerator.reduce(value, reduction="sum")
        return total

    def assemble(self, rows: Tensor, total: int) -> Tensor:
        """Return the rows of all processes by position, on the CPU.

        Each row is zero but on its owner, so that the sum is exact: no padding, no tile twice.

        Parameters
        ----------
        rows
            This process's, of positions rank, rank + world, ...; shape (local rows, columns).
        total
            Number of positions.
        """
        everyone = torch.zeros((total, rows.shape[1]), dtype=rows.dtype, device=rows.device)
        everyone[self.rank :: self.world] = rows
        return self.all_reduce(everyone).cpu()


def _attempt(work: Callable[[], object]) -> object:
    try:
        return work()
    except FeatureStoreError as refusal:
        return refusal


def _delivered(outcome: object) -> object:
    if isinstance(outcome, FeatureStoreError):
        raise outcome
    return outcome
