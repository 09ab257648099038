"""What a killed fit goes on from: its state after every epoch, on disk until the fit has ended."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from featurestore.errors import ArtifactError, TrackingError
from featurestore.io import cache
from featurestore.io.atomic import write_bytes
from featurestore.io.mlflow_artifacts import use_tracking
from featurestore.io.refusals import AGAIN
from train.config.schema import Config
from train.config.text import plain
from train.models import checkpoint
from train.runtime.processes import on_main, together
from train.runtime.run import Run
from train.tracking.runs import set_status

KIND = "fits"
RUN = "_run.txt"  # who reads a folder of predictions passes over it
# What may differ between the fit that was killed and the one that goes on.
FREE = ("resume", "output", "tracking", "threads", "memory_limit")


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
    settled = {key: value for key, value in plain(config).items() if key not in (*FREE, "data")}
    content = json.dumps([settled, list(snapshots), processes], sort_keys=True, default=str)
    return cache.place(KIND, hashlib.sha256(content.encode()).hexdigest())


def has_state(folder: Path) -> bool:
    """Return whether a fit left its state."""
    return any(folder.glob("*.pt"))


def check(folder: Path) -> str | None:
    """Return the id of the run that left a state; None if it was not tracked.

    Raises
    ------
    ArtifactError
        There is no such state.
    """
    if not has_state(folder):
        others = len([own for own in folder.parent.glob("*/") if has_state(own)])
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


def start_state(folder: Path, resume: object, run: str | None) -> None:
    """Make the folder ready; what a killed fit left there goes, unless it is resumed."""
    if not resume:
        if run and (left := run_of(folder)):
            set_status(left, "KILLED")  # it could not say so itself
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    if run:
        write_bytes(folder / RUN, run.encode())


def remove_state(folder: Path) -> None:
    """Remove the state of a fit that has ended."""
    shutil.rmtree(folder, ignore_errors=True)


def settle(session: Run, trained: bool = False) -> None:
    """End all processes together if the tracking server was lost; say what is left of the fit.

    Parameters
    ----------
    trained
        Whether the session's folder holds a checkpoint of this fit.

    Raises
    ------
    TrackingError
        The server was lost.
    """
    together(session.accelerator, lambda: refuse(session, trained))


def refuse(session: Run, trained: bool) -> None:
    """Raise what lost the server, if anything did, with what is left of the fit."""
    failure = session.tracker.failure
    if failure is None:
        return
    left = saved_epochs(session)
    again = " with resume=true" if left and failure.fix.endswith(AGAIN) else ""
    if trained:
        left.append(f"the best of them in {keep_checkpoint(session)}")
    raise TrackingError(
        failure.wrong,
        found=f"{failure.found}; kept: {', '.join(left) or 'nothing, no epoch had ended'}",
        fix=f"{failure.fix}{again}",
    ) from failure


def saved_epochs(session: Run) -> list[str]:
    """Return what a resume would go on from."""
    if session.config.mode == "predict":
        return [f"predictions in {session.states}"] if session.states.exists() else []
    states = sorted(session.states.glob("*.pt"))
    return [f"{epochs(file)} epochs of the fit in {file}" for file in states]


def abandon(session: Run, status: str) -> None:
    """Give the run a status where no tracker can: from another thread, or process."""
    if session.config.tracking.enabled and (run := run_of(session.states)):
        use_tracking(session.config.tracking.uri)
        set_status(run, status)


def keep_checkpoint(session: Run) -> Path:
    """Return where the checkpoint stays: in the output that was asked for, else with the state."""
    file = session.folder / checkpoint.FILE
    if session.config.output is None:
        write_bytes(session.states / checkpoint.FILE, file.read_bytes())
        return session.states / checkpoint.FILE
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


class FileCheckpointer:
    """A `train.engine.trainer.Checkpointer` in a file, written by the first process, by rename.

    Parameters
    ----------
    session
        Says where, and whether what is there is recalled.
    name
        Of the file.
    log
        FileCheckpointer as well, and filled again: what was recorded of the epochs.
    best
        Writes the checkpoint of the best epoch that a state knows.
    """

    def __init__(
        self,
        session: Run,
        name: str,
        log: list[Any],
        best: Callable[[dict[str, Any]], object] | None = None,
    ) -> None:
        self.file, self.session, self.log = session.states / f"{name}.pt", session, log
        self.best, self.epochs = best, 0

    def recall(self) -> dict[str, Any] | None:
        """Return the state of the last epoch, the same to all processes."""

        def recalled() -> dict[str, Any] | None:
            there = self.session.config.resume and self.file.exists()
            return read(self.file) if there else None

        kept = on_main(self.session.accelerator, recalled)
        if kept is None:
            return None
        self.log[:], self.epochs = kept["log"], kept["epochs"]
        state: dict[str, Any] = kept["state"]
        return state

    def keep(self, state: Callable[[], dict[str, Any]]) -> None:
        """Write the state of an epoch, once it is recorded.

        Raises
        ------
        TrackingError
            The tracking server was lost: the epoch before is what a resume goes on from.
        """
        if self.session.tracker.failure and self.best:
            self.best(state())
        settle(self.session, self.best is not None)
        if not self.session.is_first:
            return
        content = state()
        self.epochs += bool(content)
        write(self.file, {"state": content, "log": self.log, "epochs": self.epochs})
