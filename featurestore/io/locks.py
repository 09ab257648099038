"""Lock files: one process holds one alone, or several share it, until they close it or end.

The lock is the system's, on the open file; what the file says is for people.
"""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import portalocker
from portalocker import LockFlags

UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


class FileLock:
    """A lock file that a process holds alone for as long as it works on something.

    Parameters
    ----------
    path
        Where it is.
    file
        It, open and locked.
    folders
        Folders that were made for it, the innermost first.
    """

    def __init__(self, path: Path, file: IO[bytes], folders: list[Path]) -> None:
        self.path, self.file, self.folders = path, file, folders

    def close(self) -> None:
        """Let go of it; nothing of it is left behind."""
        self.path.unlink(missing_ok=True)
        self.file.close()
        for folder in self.folders:
            with suppress(OSError):  # not empty
                folder.rmdir()


def try_lock(path: Path) -> FileLock | None:
    """Return a lock file, held and with the name of this process in it; None if another has it.

    Raises
    ------
    OSError
        It cannot be written.
    """
    folders = [folder for folder in path.parents if not folder.exists()]
    file = try_exclusive(path)
    if file is None:
        return None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
    file.flush()
    return FileLock(path, file, folders)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file alone for a block, waiting for its owner; none where none can be written."""
    folders = [folder for folder in path.parents if not folder.exists()]
    try:
        lock = FileLock(path, wait_exclusive(path), folders)
    except OSError:  # a folder that is only read
        yield
        return
    try:
        yield
    finally:
        lock.close()


def lock_owner(path: Path) -> str:
    """Return the name of the process that holds a lock file."""
    try:
        return path.read_text() or "another process"
    except OSError:  # it has let go since
        return "another process"


def wait_exclusive(path: Path) -> IO[bytes]:
    """Return a lock file that this process alone holds, once nobody else does."""
    return _lock(path, LockFlags.EXCLUSIVE)


@contextmanager
def lease(path: Path) -> Iterator[None]:
    """Share a lock file for a block; none where none can be written, which is said elsewhere."""
    try:
        lock = wait_shared(path, path)
    except OSError:
        yield
        return
    with lock:
        yield


def try_exclusive(path: Path, fallback: Path | None = None) -> IO[bytes] | None:
    """Return a lock file that this process alone holds, or None if another process has it.

    Parameters
    ----------
    fallback
        What is locked in its stead by who may only read the folder.
    """
    try:
        return _lock(path, LockFlags.EXCLUSIVE | LockFlags.NON_BLOCKING, fallback)
    except portalocker.LockException:
        return None


def wait_shared(path: Path, fallback: Path) -> IO[bytes]:
    """Return a lock file that this process shares, once nobody holds it alone.

    Parameters
    ----------
    fallback
        As of `try_exclusive`.
    """
    return _lock(path, LockFlags.SHARED, fallback)


def _lock(path: Path, flags: LockFlags, fallback: Path | None = None) -> IO[bytes]:
    while True:
        with suppress(FileNotFoundError):  # the folder was removed between the two
            file = _open(path, fallback)
            try:
                portalocker.lock(file, flags)
                path = Path(file.name)
                if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                    return file
            except BaseException:
                file.close()
                raise
            file.close()  # somebody removed the lock while we waited for it


def _open(path: Path, fallback: Path | None) -> IO[bytes]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")
    except OSError as error:
        readable = [file for file in (path, fallback) if fallback and file and file.exists()]
        if error.errno not in UNWRITABLE or not readable:
            raise
        return readable[0].open("rb")
