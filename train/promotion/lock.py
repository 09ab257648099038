"""The lock on a model: one promotion at a time."""

import getpass
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from featurestore.errors import FeatureStoreError
from train.tracking.registry import create_model, delete_model, description, translated

LOCK = ".promotion"  # after the name of a model whose alias is being moved
PATIENCE = 30.0  # seconds to wait for another promotion; each holds the lock for less than one
PAUSE = 0.1  # seconds between two tries


class BusyError(FeatureStoreError):
    """Another process moves an alias of the model at this moment."""


@contextmanager
def locked(model: str, doing: str, patience: float = PATIENCE) -> Iterator[None]:
    """Hold the right to move aliases of a model: one process at a time, on any machine.

    MLflow has no compare-and-swap, but registers a name once: whoever registers
    ``MODEL.promotion`` holds the lock, whose description says who, where and for what.

    Raises
    ------
    BusyError
        Somebody else holds it all the time.
    """
    name = model + LOCK
    where = f"{user()} on {socket.gethostname()}, process {os.getpid()}"
    when = datetime.now(UTC).isoformat(" ", "seconds")
    mine = f"{doing}, by {where}, since {when} UTC, {uuid.uuid4()}"
    with translated(f"The lock {name} could not be taken"):
        acquire(name, mine, time.monotonic() + patience)
    try:
        yield
    finally:
        with translated(f"The lock {name} could not be removed"):
            if lock_owner(name) == mine:
                delete_model(name)


def acquire(name: str, mine: str, until: float) -> None:
    """Create the registered model that is the lock; wait for who holds it until a time."""
    while not create_model(name, mine):
        owner = lock_owner(name)
        if owner == mine:  # the answer to an earlier try was lost
            return
        if time.monotonic() > until:
            model = name.removesuffix(LOCK)
            raise BusyError(
                f"An alias of {model} is being moved by another process",
                found=owner or "it changes hands too often",
                fix="wait for it; if that process is dead: "
                f"python train/promote.py unlock model={model}",
            )
        time.sleep(PAUSE)


def lock_owner(name: str) -> str | None:
    """Return who holds a lock, in words; None if nobody does."""
    return description(name)


def unlock(model: str) -> str | None:
    """Remove the lock that a killed process has left; return what it was for, or None."""
    with translated(f"The lock of {model} could not be removed"):
        owner = lock_owner(model + LOCK)
        if owner is not None:
            delete_model(model + LOCK)
    return owner


def user() -> str:
    """Return the login name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user without a name
        return f"uid {os.getuid()}"
