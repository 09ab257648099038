"""Where a run keeps its state and writes its output: each run alone, however many run at once.

Two fits of one configuration in one folder keep their states beside each other; two runs with one
output would mix their files, and the second is refused. The locks of a killed process go with it.
"""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from featurestore.errors import ArtifactError, os_errors_refused
from featurestore.io import cache, locks
from featurestore.io.locks import FileLock

LOCK = ".running"  # in an output


def beside(folder: Path) -> Iterator[Path]:
    """Yield a folder of the cache, and the names of those beside it for runs at the same time."""
    yield folder
    yield from (folder.with_name(f"{folder.name}-{number}") for number in count(2))


def taken_places(folder: Path) -> list[Path]:
    """Return those of the folders that there are, or that a run has just taken."""
    stem = folder.name
    names = {path.stem for path in folder.parent.glob(f"{stem}*") if path.is_dir()}
    names |= {path.stem for path in folder.parent.glob(f"{stem}*.lock")}
    return [folder.with_name(name) for name in sorted(names)]


def find(
    folder: Path, resume: bool | str, resumable: Callable[[Path], bool]
) -> tuple[Path, FileLock, bool]:
    """Return the folder of a run's state, its lock, and whether the run goes on from what is there.

    Parameters
    ----------
    folder
        Of the cache; those beside it are for runs of the same at the same time.
    resume
        As in the configuration.
    resumable
        Says whether a folder holds something to go on from.

    Raises
    ------
    ArtifactError
        Whoever makes what is to be resumed is still at work.
    """
    running = []
    for place in taken_places(folder) if resume else []:
        lock = cache.lock_of(place)
        taken = hold(lock)
        if not taken:
            running.append(f"{locks.lock_owner(lock)} works in {place}")
        elif resumable(place):
            return place, taken, True
        else:
            taken.close()
    if running and resume != "auto":
        raise ArtifactError(
            "What is to be resumed is still running",
            found="; ".join(running),
            fix="wait for it, or end it first; leave resume=true out to run the same beside it",
        )
    for place in beside(folder):
        if taken := hold(cache.lock_of(place)):
            return place, taken, False
    raise AssertionError  # names do not end


def output(folder: Path) -> FileLock:
    """Return the lock of an output.

    Raises
    ------
    ArtifactError
        Another run writes there, or nothing can be written.
    """
    taken = hold(folder / LOCK)
    if not taken:
        raise ArtifactError(
            f"Another run writes to {folder}",
            found=locks.lock_owner(folder / LOCK),
            fix="wait for it, or name another output",
        )
    return taken


def hold(lock: Path) -> FileLock | None:
    """Return a lock, None if another process has it; raises an `ArtifactError` if it cannot be."""
    fix = "make it writable, or work in another folder"
    with os_errors_refused(f"{lock.parent} cannot be written", fix):
        return locks.try_lock(lock)
