"""What a killed fit goes on from: its state after every epoch, on disk until the fit has ended."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import torch

from featurestore.errors import ArtifactError, TrackingError
from featurestore.io import cache
from featurestore.io.atomic import write_bytes
from featurestore.io.mlflow_artifacts import use_tracking
from featurestore.io.refusals import AGAIN
from train.config.schema import Config
from train.config.text import plain
from train.engine.trainer import Trainer
from train.models import checkpoint
from train.runtime.run import Run
from train.tracking.runs import set_status

KIND = "fits"
FORMAT = 6  # a state of another format is no state of this fit
RUN = "_run.txt"  # the underscore: readers of a folder of predictions pass over it
# What may differ between the fit that was killed and the one that goes on.
FREE = ("resume", "output", "tracking", "threads", "memory_limit", "store", "allow_missing")


def state_folder(config: Config, snapshots: Sequence[str], processes: int) -> Path:
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
    values = {key: value for key, value in plain(config).items() if key not in (*FREE, "data")}
    content = json.dumps([FORMAT, values, list(snapshots), processes], sort_keys=True, default=str)
    return cache.place(KIND, hashlib.sha256(content.encode()).hexdigest())


def has_state(folder: Path) -> bool:
    """Return whether a fit left its state."""
    return any(folder.rglob("*.pt"))  # of several encoders, each has a folder below


def check(folder: Path) -> str | None:
    """Return the id of the run that left a state; None if it was not tracked.

    Raises
    ------
    ArtifactError
        There is no such state.
    """
    if not has_state(folder):
        others = len([other for other in folder.parent.glob("*/") if has_state(other)])
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


def start_state(folder: Path, resume: object, run: str | None) -> str | None:
    """Make the folder ready; what is there goes, unless it is resumed.

    Returns
    -------
    str or None
        Whose state or predictions went, in words.
    """
    replaced = None
    if not resume:
        left = run_of(folder)
        if run and left:
            set_status(left, "KILLED")  # it could not say so itself
        if folder.exists():
            replaced = f"run {left}" if left else "a run that was not tracked"
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    if run:
        write_bytes(folder / RUN, run.encode())
    return replaced


def remove_state(folder: Path) -> None:
    """Remove the state of a fit that has ended."""
    shutil.rmtree(folder, ignore_errors=True)


def end_if_lost(run: Run, trained: bool = False) -> None:
    """End all processes together if the tracking server was lost; say what is left of the fit.

    Where it is lost nothing is raised: other processes wait for the main one in the midst of their
    work, and would wait for ever.

    Parameters
    ----------
    trained
        Whether the run's folder holds a checkpoint of this fit.

    Raises
    ------
    TrackingError
        The server was lost.
    """
    run.processes.together(lambda: _raise_lost(run, trained))


def _raise_lost(run: Run, trained: bool) -> None:
    failure = run.tracker.failure
    if failure is None:
        return
    left = saved_epochs(run)
    again = " with resume=true" if left and failure.fix.endswith(AGAIN) else ""
    if trained:
        left.append(f"the best of them in {keep_checkpoint(run)}")
    raise TrackingError(
        failure.wrong,
        found=f"{failure.found}; kept: {', '.join(left) or 'nothing, no epoch had ended'}",
        fix=f"{failure.fix}{again}",
    ) from failure


def saved_epochs(run: Run) -> list[str]:
    """Return what a resume would go on from."""
    if run.config.mode == "predict":
        return [f"predictions in {run.states}"] if run.states.exists() else []
    states = sorted(run.states.rglob("*.pt"))
    return [f"{epochs(file)} epochs of the fit in {file}" for file in states]


def abandon(run: Run, status: str) -> None:
    """Give the run a status where no tracker can: from another thread, or process."""
    if run.config.tracking.enabled and (run_id := run_of(run.states)):
        use_tracking(run.config.tracking.uri)
        set_status(run_id, status)


def keep_checkpoint(run: Run) -> Path:
    """Return where the checkpoint stays: in the output that was asked for, else with the state."""
    file = run.folder / checkpoint.FILE
    if run.config.output is None:
        write_bytes(run.states / checkpoint.FILE, file.read_bytes())
        return run.states / checkpoint.FILE
    return file


def epochs(file: Path) -> int:
    """Return how many epochs a state has behind it."""
    return int(read(file)["epochs"])


def write(file: Path, kept: dict[str, Any]) -> None:
    """Write a state, its SHA-256 before it: PyTorch reads damaged tensors without a word."""
    stream = BytesIO()
    torch.save(kept, stream)
    content = stream.getvalue()
    write_bytes(file, hashlib.sha256(content).digest() + content)


def read(file: Path) -> dict[str, Any]:
    """Read a state.

    Raises
    ------
    ArtifactError
        It is damaged.
    """
    content = file.read_bytes()
    state = memoryview(content)[hashlib.sha256().digest_size :]
    if hashlib.sha256(state).digest() != content[: hashlib.sha256().digest_size]:
        raise ArtifactError(
            f"The state of the fit in {file} is broken",
            found=f"{len(content):,} bytes that are not a whole state of a fit",
            fix="leave resume=true out: the fit starts anew",
        )
    kept: dict[str, Any] = torch.load(BytesIO(state), map_location="cpu", weights_only=True)
    return kept


class SavedHistory(Protocol):
    """What was recorded of the epochs of a fit."""

    name: str
    """Of the file of the state."""

    def state_dict(self) -> Any:
        """Return tensors, numbers, lists and dictionaries."""

    def load_state_dict(self, state: Any) -> None:
        """Go on from them."""


class FileCheckpointer:
    """Saves a trainer after every epoch, on the main process, by rename.

    Parameters
    ----------
    run
        Says where, and whether the fit goes on from what is there.
    trainer, history
        What trains, and what was recorded of its epochs.
    """

    save_best: Callable[[], object] | None = None
    """Writes the checkpoint of the best epoch so far; None where the best is yet to be chosen."""

    def __init__(self, run: Run, trainer: Trainer, history: SavedHistory) -> None:
        self.run, self.file = run, run.states / f"{history.name}.pt"
        self.trainer, self.history = trainer, history
        self.epochs = 0

    def restore(self) -> None:
        """Go on from the last epoch that was saved, the same on all processes, if there is one.

        A solver, which starts anew, is saved here and nowhere else: a killed one is known by it.
        """

        def saved() -> dict[str, Any] | None:
            return read(self.file) if self.run.config.resume and self.file.exists() else None

        state = self.run.processes.on_main(saved)
        if state and state["state"]:
            self.trainer.load_state_dict(state["state"])
            self.history.load_state_dict(state["log"])
            self.epochs = state["epochs"]
        elif not self.trainer.state_dict():
            self._save({})

    def save(self) -> None:
        """Write the state of an epoch, once it is recorded.

        Raises
        ------
        TrackingError
            The tracking server was lost: the epoch before is what a resume goes on from.
        """
        if state := self.trainer.state_dict():
            self._save(state)

    def _save(self, state: dict[str, Any]) -> None:
        if self.run.tracker.failure and self.save_best:
            self.save_best()
        end_if_lost(self.run, self.save_best is not None)
        if self.run.is_main:
            self.epochs += bool(state)
            content = {"state": state, "log": self.history.state_dict(), "epochs": self.epochs}
            write(self.file, content)
