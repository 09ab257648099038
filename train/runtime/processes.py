"""Processes act as one: broadcast, gather, all-reduce."""

from collections.abc import Callable
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from featurestore.errors import FeatureStoreError
from train.engine.shard import Shard, Split

T = TypeVar("T")


def on_main(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """Do some work on the first process alone; give its result, or its refusal, to all."""
    outcome: list[object] = [None]
    if accelerator.is_main_process:
        outcome = [_attempt(work)]
    broadcast_object_list(outcome)
    return _delivered(outcome[0])  # type: ignore[return-value]  # what `work` returned


def together(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """Do some work on every process; a refusal on one is raised on all, or they would wait."""
    outcome = _attempt(work)
    refusals = [outcome] if isinstance(outcome, FeatureStoreError) else []
    if accelerator.num_processes > 1:
        refusals = gather_object(refusals)
    return _delivered(refusals[0] if refusals else outcome)  # type: ignore[return-value]


def all_gather(accelerator: Accelerator, own: T) -> list[T]:
    """Return what each process has, to all of them."""
    return gather_object([own]) if accelerator.num_processes > 1 else [own]


def _attempt(work: Callable[[], object]) -> object:
    try:
        return work()
    except FeatureStoreError as refusal:
        return refusal


def _delivered(outcome: object) -> object:
    if isinstance(outcome, FeatureStoreError):
        raise outcome
    return outcome


def all_reduce(accelerator: Accelerator, value: Tensor) -> Tensor:
    """Return the sum of a tensor over the processes."""
    summed: Tensor = accelerator.reduce(value, reduction="sum")
    return summed


def assemble_rows(accelerator: Accelerator, split: Split | Shard, own: Tensor) -> Tensor:
    """Return the rows of all processes, by position.

    Each row is zero but on its owner, so that the sum is exact: no padding, no tile twice.

    Parameters
    ----------
    split
        Says which positions are this process's own.
    own
        Its rows, shape (own rows, columns).
    """
    whole = torch.zeros((len(split), own.shape[1]), dtype=own.dtype, device=own.device)
    whole[split.rank :: split.world] = own
    return all_reduce(accelerator, whole).cpu()
