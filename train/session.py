"""What the parts of a run share, and how its processes act as one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from rich.console import Console
from torch import Tensor

from featurestore.errors import FeatureStoreError
from train.data import Split
from train.page import Page
from train.pool import Pool
from train.schema import Config
from train.tracking import Tracker

T = TypeVar("T")


@dataclass(frozen=True)
class Session:
    """One run of a script, on one process.

    Parameters
    ----------
    config
        The configuration, resolved.
    accelerator
        The processes and their devices.
    console
        Where the first process prints; the others' are quiet.
    tracker
        MLflow on the first process, a null tracker on the others.
    folder
        Where files are written before they are logged.
    states
        Where the state of a fit is kept, see `train.resume`.
    command
        What started it, as a shell takes it.
    page
        What the run says of itself, see `train.account`.
    """

    config: Config
    accelerator: Accelerator
    console: Console
    tracker: Tracker
    folder: Path
    states: Path
    command: str = ""
    page: Page = field(default_factory=Page)

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that prints and writes."""
        return bool(self.accelerator.is_main_process)


def by_itself(config: Config, console: Console, tracker: Tracker, folder: Path) -> Session:
    """Return the session of a script beside the fit, which runs in one process."""
    return Session(config, Accelerator(), console, tracker, folder, folder)


def first(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """Do some work on the first process alone; give its result, or its refusal, to all."""
    outcome: list[object] = [None]
    if accelerator.is_main_process:
        outcome = [_attempt(work)]
    broadcast_object_list(outcome)
    return _delivered(outcome[0])  # type: ignore[return-value]  # what `work` returned


def every(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """Do some work on every process; a refusal on one is raised on all, or they would wait."""
    outcome = _attempt(work)
    refusals = [outcome] if isinstance(outcome, FeatureStoreError) else []
    if accelerator.num_processes > 1:
        refusals = gather_object(refusals)
    return _delivered(refusals[0] if refusals else outcome)  # type: ignore[return-value]


def gathered(accelerator: Accelerator, own: T) -> list[T]:
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


def total(accelerator: Accelerator, value: Tensor) -> Tensor:
    """Return the sum of a tensor over the processes."""
    summed: Tensor = accelerator.reduce(value, reduction="sum")
    return summed


def assembled(accelerator: Accelerator, split: Split | Pool, own: Tensor) -> Tensor:
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
    return total(accelerator, whole).cpu()
