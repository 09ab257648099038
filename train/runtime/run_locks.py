"""Locks on the folders of a run's state and output: no two runs write to one at the same time.

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


def numbered_folders(folder: Path) -> Iterator[Path]:
    """Yield a folder of the cache, then ``folder-2``, ``folder-3``, ...: for runs side by side."""
    yield folder
    yield from (folder.with_name(f"{folder.name}-{number}") for number in count(2))


def existing_folders(folder: Path) -> list[Path]:
    """Return those of the numbered folders that are there, or that a run has just locked."""
    stem = folder.name
    names = {path.stem for path in folder.parent.glob(f"{stem}*") if path.is_dir()}
    names |= {path.stem for path in folder.parent.glob(f"{stem}*.lock")}
    return [folder.with_name(name) for name in sorted(names)]


def lock_state(
    folder: Path, resume: bool | str, is_resumable: Callable[[Path], bool]
) -> tuple[Path, FileLock, bool]:
    """Return the folder of a run's state, its lock, and whether the run resumes what is there.

    Parameters
    ----------
    folder
        Of the cache; `numbered_folders` are for runs of the same configuration at the same time.
    resume
        As in the configuration.
    is_resumable
        Says whether a folder holds a state to resume.

    Raises
    ------
    ArtifactError
        The run that is to be resumed is still at work.
    """
    running = []
    for existing in existing_folders(folder) if resume else []:
        path = cache.lock_of(existing)
        lock = try_lock(path)
        if not lock:
            running.append(f"{locks.lock_owner(path)} works in {existing}")
        elif is_resumable(existing):
            return existing, lock, True
        else:
            lock.close()
    if running and resume != "auto":
        raise ArtifactError(
            "What is to be resumed is still running",
            found="; ".join(running),
            fix="wait for it, or end it first; leave resume=true out to run the same beside it",
        )
    for candidate in numbered_folders(folder):
        if lock := try_lock(cache.lock_of(candidate)):
            return candidate, lock, False
    raise AssertionError  # numbers do not end


def lock_output(folder: Path) -> FileLock:
    """Return the lock of an output.

    Raises
    ------
    ArtifactError
        Another run writes there, or nothing can be written.
    """
    lock = try_lock(folder / LOCK)
    if not lock:
        raise ArtifactError(
            f"Another run writes to {folder}",
            found=locks.lock_owner(folder / LOCK),
            fix="wait for it, or name another output",
        )
    return lock


def try_lock(path: Path) -> FileLock | None:
    """Return a lock, or None if another process has it.

    Raises
    ------
    ArtifactError
        Nothing can be written there.
    """
    fix = "make it writable, or work in another folder"
    with os_errors_refused(f"{path.parent} cannot be written", fix):
        return locks.try_lock(path)
