"""The processes of a run act as one: broadcast, scatter, gather, all-reduce."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor
from torch.distributed import gather_object as gather_on_main
from torch.distributed import scatter_object_list

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

    def scatter(self, work: Callable[[], Sequence[T]]) -> T:
        """Do some work on the main process alone; give each process its own of the results."""
        outcomes: list[object] = []
        if self.is_main:
            outcome: Any = _attempt(work)
            refused = isinstance(outcome, FeatureStoreError)
            outcomes = [outcome] * self.world if refused else list(outcome)
        received = outcomes[:1]
        if self.world > 1:
            received = [None]
            scatter_object_list(received, outcomes)
        return _delivered(received[0])  # type: ignore[return-value]  # of what `work` returned

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

    def gather(self, value: T) -> list[T]:
        """Return what each process has to the main one, and nothing to the others."""
        if self.world == 1:
            return [value]
        values: list[object] | None = [None] * self.world if self.is_main else None
        gather_on_main(value, values)
        return values or []  # type: ignore[return-value]  # of what each process has

    def all_reduce(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes."""
        total: Tensor = self.accelerator.reduce(value, reduction="sum")
        return total

    def assemble(self, rows: Tensor, places: npt.NDArray[np.int64], total: int) -> Tensor:
        """Return the rows of all processes by place, on the CPU of the main one.

        Parameters
        ----------
        rows
            This process's, shape (local rows, columns).
        places
            Where they belong, each place at most once over all processes; shape (local rows,).
        total
            Number of places on the main process; zero on the others.

        Returns
        -------
        Tensor, shape (total, columns)
            Zero where nobody has a row.
        """
        everyone = torch.zeros((total, rows.shape[1]), dtype=rows.dtype)
        for of_process, at in self.gather((rows.cpu(), torch.from_numpy(places))):
            everyone[at] = of_process
        return everyone


def _attempt(work: Callable[[], object]) -> object:
    try:
        return work()
    except FeatureStoreError as refusal:
        return refusal


def _delivered(outcome: object) -> object:
    if isinstance(outcome, FeatureStoreError):
        raise outcome
    return outcome
