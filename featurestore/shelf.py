"""Folders named by a digest of what determines them: whole or not there, built once, kept in use.

A lock file stands beside each folder. Who reads a folder shares its lock, who builds or removes it
holds the lock alone; the system lets go of the locks of a killed process.
"""

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import portalocker

from featurestore.atomic import HOME
from featurestore.errors import ArtifactError

NAME_LENGTH = 16  # hexadecimal digits of a digest: 64 bits
BUILDING, REMOVING = ".building-", ".removing-"


@dataclass(frozen=True)
class Held:
    """A folder that nobody removes as long as this object lives.

    Parameters
    ----------
    folder
        Where it is.
    lock
        The open lock file.
    """

    folder: Path
    lock: IO[bytes]


class Taken:
    """A lock file that a process holds alone for as long as it works on something.

    Parameters
    ----------
    path
        Where it is.
    file
        It, open and locked.
    made
        Folders that were made for it, the innermost first.
    """

    def __init__(self, path: Path, file: IO[bytes], made: list[Path]) -> None:
        self.path, self.file, self.made = path, file, made

    def close(self) -> None:
        """Let go of it; nothing of it is left behind."""
        self.path.unlink(missing_ok=True)
        self.file.close()
        for folder in self.made:
            with suppress(OSError):  # not empty
                folder.rmdir()


def take(path: Path) -> Taken | None:
    """Return a lock file, held and with the name of this process in it; None if another has it.

    Raises
    ------
    OSError
        It cannot be written.
    """
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        file = _locked(path, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
    except portalocker.LockException:
        return None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
    file.flush()
    return Taken(path, file, made)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock file alone for a block, waiting for whoever holds it; none where none can be."""
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        taken = Taken(path, _locked(path, portalocker.LockFlags.EXCLUSIVE), made)
    except OSError:  # a folder that is only read
        yield
        return
    try:
        yield
    finally:
        taken.close()


def holder(path: Path) -> str:
    """Return the name of the process that holds a lock file."""
    try:
        return path.read_text() or "another process"
    except OSError:  # it has let go since
        return "another process"


def place(kind: str, digest: str) -> Path:
    """Return where a folder is or would be."""
    return HOME / kind / digest[:NAME_LENGTH]


def held(kind: str, digest: str, build: Callable[[Path], object]) -> Held:
    """Return a folder of the shelf, building it if it is not there.

    Of several processes that ask at once, one builds and the others wait for it.

    Parameters
    ----------
    kind
        The shelf's name, for example ``snapshots``.
    digest
        Names all that determines the content.
    build
        Fills the empty folder that it is given.

    Raises
    ------
    ArtifactError
        The disk is full.
    """
    folder = place(kind, digest)
    while True:
        lock = _lock(folder, portalocker.LockFlags.SHARED)
        if folder.exists():
            os.utime(lock.fileno())  # the time of the last use
            return Held(folder, lock)
        lock.close()
        with _lock(folder, portalocker.LockFlags.EXCLUSIVE):
            if not folder.exists():
                _build(folder, build)


def _build(folder: Path, build: Callable[[Path], object]) -> None:
    _sweep(folder)
    fresh = Path(tempfile.mkdtemp(prefix=f"{BUILDING}{folder.name}-", dir=folder.parent))
    try:
        build(fresh)
        fresh.rename(folder)
    except BaseException as error:
        free = shutil.disk_usage(folder.parent).free
        shutil.rmtree(fresh, ignore_errors=True)
        _forget(folder)
        if not isinstance(error, OSError):
            raise
        raise ArtifactError(
            f"{folder} could not be written",
            found=f"{error.strerror or error}; {free / 1e9:.1f} GB free there",
            fix="make room (`featurestore gc` removes old snapshots), or work in a folder on "
            "another disk",
        ) from error


def _forget(folder: Path) -> None:
    """Remove the lock of a folder that is not there, and the shelf if it is empty."""
    lock_of(folder).unlink(missing_ok=True)
    for parent in (folder.parent, HOME):
        with suppress(OSError):  # not empty
            parent.rmdir()


def _sweep(folder: Path) -> None:
    """Remove what killed writers and removers of a folder left; its lock must be held alone."""
    for prefix in (BUILDING, REMOVING):
        for left in folder.parent.glob(f"{prefix}{folder.name}-*"):
            shutil.rmtree(left, ignore_errors=True)


def lock_of(folder: Path) -> Path:
    """Return the lock file of a folder of the shelf."""
    return folder.with_suffix(".lock")


def _lock(folder: Path, flags: portalocker.LockFlags) -> IO[bytes]:
    return _locked(lock_of(folder), flags)


def _locked(path: Path, flags: portalocker.LockFlags) -> IO[bytes]:
    while True:
        with suppress(FileNotFoundError):  # the folder was removed between the two
            file = _opened(path)
            try:
                portalocker.lock(file, flags)
                if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                    return file
            except BaseException:
                file.close()
                raise
            file.close()  # somebody removed the lock while we waited for it


def _opened(path: Path) -> IO[bytes]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ArtifactError(
            f"{path} could not be written",
            found=error.strerror or str(error),
            fix="work in another folder, or make room",
        ) from error


def names(kind: str) -> list[str]:
    """Return the names on a shelf, the last used first."""
    folders = [p for p in (HOME / kind).glob("[!.]*") if p.is_dir()]
    return [p.name for p in sorted(folders, key=lambda p: -used(p))]


def used(folder: Path) -> float:
    """Return the time of a folder's last use, in seconds of the epoch."""
    lock = lock_of(folder)
    return (lock if lock.exists() else folder).stat().st_mtime


def in_use(folder: Path) -> bool:
    """Return whether a process holds a folder."""
    with _alone(folder) as alone:
        return not alone


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Hold a folder's lock alone if nobody else holds it; yield whether that went well."""
    before = used(folder) if folder.exists() else time.time()
    flags = portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING
    try:
        lock = _lock(folder, flags)
    except portalocker.LockException:
        yield False
        return
    with lock:
        os.utime(lock.fileno(), (before, before))  # to look at it is not to use it
        yield True


def remove(folder: Path) -> bool:
    """Remove a folder unless a process holds it; return whether it went."""
    with _alone(folder) as alone:
        if alone:
            _sweep(folder)
            if folder.exists():
                gone = folder.with_name(f"{REMOVING}{folder.name}-{os.getpid()}")
                folder.rename(gone)  # at once: a reader sees the whole or none
                shutil.rmtree(gone, ignore_errors=True)
            _forget(folder)
        return alone


def size(folder: Path) -> int:
    """Return the bytes that a folder's files take."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def collect(kind: str, keep: int) -> list[Path]:
    """Remove all but the last used folders of a shelf, and what killed processes left there.

    Parameters
    ----------
    keep
        How many stay. One that a process uses stays as well.

    Returns
    -------
    list of Path
        What went.
    """
    whole, shelf = names(kind), HOME / kind
    left = {
        entry.name.split("-")[1]
        for prefix in (BUILDING, REMOVING)
        for entry in shelf.glob(f"{prefix}*")
    }
    for name in left - set(whole):
        remove(shelf / name)
    return [shelf / name for name in whole[keep:] if remove(shelf / name)]
