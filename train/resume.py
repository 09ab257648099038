"""What a killed fit goes on from: its state after every epoch, on disk until the fit has ended."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from featurestore import shelf
from featurestore.errors import ArtifactError
from train.config import plain
from train.schema import Config
from train.session import Session, first

KIND = "fits"
RUN = "_run.txt"  # who reads a folder of predictions passes over it
# What may differ between the fit that was killed and the one that goes on.
FREE = ("resume", "output", "tracking", "threads", "memory_limit")


def place(config: Config, snapshots: Sequence[str], processes: int) -> Path:
    """Return the folder of a fit's state, named by all that decides what comes out of it.

    Parameters
    ----------
    config
        The configuration, resolved.
    snapshots
        Their digests.
    processes
        How many share the work.
    """
    # What the data are is in the digests, wherever they lie.
    settled = {key: value for key, value in plain(config).items() if key not in (*FREE, "data")}
    content = json.dumps([settled, list(snapshots), processes], sort_keys=True, default=str)
    return shelf.place(KIND, hashlib.sha256(content.encode()).hexdigest())


def there(folder: Path) -> bool:
    """Return whether a fit left its state."""
    return any(folder.glob("*.pt"))


def check(folder: Path) -> str | None:
    """Return the id of the run that left a state; None if it was not tracked.

    Raises
    ------
    ArtifactError
        There is no such state.
    """
    if not there(folder):
        others = len([own for own in folder.parent.glob("*/") if there(own)])
        raise ArtifactError(
            "There is nothing to resume",
            found=f"no epoch of this configuration; {others} other fits in {folder.parent}",
            fix="leave resume=true out, or give the arguments of the fit that was killed: "
            f"only {', '.join(FREE)} may differ",
        )
    return run_of(folder)


def run_of(folder: Path) -> str | None:
    """Return the id of the run that left something in a folder; None if it was not tracked."""
    run = folder / RUN
    return run.read_text() if run.exists() else None


def begin(folder: Path, resume: bool, run: str | None) -> None:
    """Make the folder ready; what an earlier fit left there goes, unless it is resumed."""
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    if run:
        (folder / RUN).write_text(run)


def end(folder: Path) -> None:
    """Remove the state of a fit that has ended."""
    shutil.rmtree(folder, ignore_errors=True)


class Kept:
    """A `train.engine.Memory` in a file, written by the first process, by rename.

    Parameters
    ----------
    session
        Says where, and whether what is there is recalled.
    name
        Of the file.
    log
        Kept as well, and filled again: what was recorded of the epochs.
    """

    def __init__(self, session: Session, name: str, log: list[Any]) -> None:
        self.file, self.session, self.log = session.states / f"{name}.pt", session, log

    def recall(self) -> dict[str, Any] | None:
        """Return the state of the last epoch, the same to all processes."""

        def read() -> dict[str, Any] | None:
            there = self.session.config.resume and self.file.exists()
            return torch.load(self.file, map_location="cpu", weights_only=True) if there else None

        kept = first(self.session.accelerator, read)
        if kept is None:
            return None
        self.log[:] = kept["log"]
        state: dict[str, Any] = kept["state"]
        return state

    def keep(self, state: Callable[[], dict[str, Any]]) -> None:
        """Write the state of an epoch."""
        if not self.session.is_first:
            return
        fresh = self.file.with_name(f".{self.file.name}.{os.getpid()}")
        torch.save({"state": state(), "log": self.log}, fresh)
        fresh.replace(self.file)
