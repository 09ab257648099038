"""Folders named by a digest of what determines them: whole or not there, built once, kept in use.

A lock file stands beside each folder, and a seal (`featurestore.io.seals`). Who reads one shares
its lock, who builds or removes it holds the lock alone; the system lets go of the locks of a killed
process. Readers need no right to write.
"""

import os
import secrets
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import IO

from featurestore.errors import ArtifactError, DamageWarning
from featurestore.io import locks, seals
from featurestore.io.atomic import HOME, publish
from featurestore.io.objects import shared
from featurestore.io.seals import Checks
from featurestore.undo import try_out

NAME_LENGTH = 16  # hexadecimal digits of a digest: 64 bits
BUILDING, REMOVING, BROKEN = ".building-", ".removing-", ".broken-"
NONE: Checks = MappingProxyType({})
PATIENCE = 5.0  # seconds to wait for those who use what is damaged
AGAIN = "make it again, for example by `featurestore materialise`"


_BUILT: dict[Path, "CacheEntry"] = {}  # what this process holds


@dataclass(frozen=True)
class CacheEntry:
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


def place(kind: str, digest: str) -> Path:
    """Return where a folder is or would be."""
    return HOME / kind / digest[:NAME_LENGTH]


def get_or_build(
    kind: str,
    digest: str,
    build: Callable[[Path], object],
    checks: Checks = NONE,
    on_trial: bool = True,
) -> CacheEntry:
    """Return a folder of the cache, building it if it is not there.

    Of several processes that ask at once, one builds and the others wait for it. A folder that is
    damaged is set aside, with a warning, and built again.

    Parameters
    ----------
    kind
        The kind of entry, for example ``snapshots``: the folder that it is in.
    digest
        Names all that determines the content.
    build
        Fills the empty folder that it is given.
    checks
        Of files that have a checksum of their own, see `featurestore.io.seals`.
    on_trial
        Whether `featurestore.undo.undone_if_refused` may remove it.

    Raises
    ------
    ArtifactError
        The disk is full or cannot be written, or what is damaged is in use.
    """
    folder, is_new = place(kind, digest), False
    try:
        while True:
            lock = _shared(folder)
            wrong = seals.fault(folder, digest, checks) if folder.exists() else None
            if folder.exists() and wrong is None:
                _touch(lock)
                entry = CacheEntry(folder, lock)
                if on_trial:
                    try_out(lock.close, partial(_undo, folder, is_new), kind)
                return entry
            lock.close()
            if wrong:
                set_aside(folder, lambda: seals.fault(folder, digest, checks))
            with locks.wait_exclusive(lock_of(folder)):
                if not folder.exists():
                    _build(folder, digest, build, checks)
                    is_new = True
    except OSError as error:
        raise refusal(folder, error) from error


def _undo(folder: Path, is_new: bool) -> None:
    if is_new and folder.exists():
        remove(folder)


def built(
    kind: str,
    digest: str,
    build: Callable[[Path], object],
    checks: Checks = NONE,
    on_trial: bool = False,
) -> Path:
    """Return a folder as `get_or_build`, held as long as this process lives.

    Parameters
    ----------
    kind, digest, build, checks, on_trial
        As of `get_or_build`.
    """
    folder = place(kind, digest).absolute()
    if folder in _BUILT and seals.fault(folder, digest, checks):
        release(folder)  # it is gone or was harmed: this process must not wait for itself
    entry = get_or_build(kind, digest, build, checks, on_trial)
    return _BUILT.setdefault(folder, entry).folder


def release(path: Path) -> Path | None:
    """Release the folder of `built` that a path lies in; return it, or None."""
    folder = next((folder for folder in _BUILT if path.absolute().is_relative_to(folder)), None)
    if folder:
        _BUILT.pop(folder).lock.close()
    return folder


def open_entry(kind: str, name: str, checks: Checks = NONE) -> CacheEntry:
    """Return a folder of the cache that is there, by its name.

    Raises
    ------
    ArtifactError
        It is gone, or damaged: by its name alone it cannot be built again.
    """
    folder = place(kind, name)
    if not folder.exists() and name in shared.names(kind):
        return get_or_build(kind, name, _nothing, checks, on_trial=False)
    if not folder.exists():
        raise ArtifactError(f"{folder} is gone", found="no such folder", fix=AGAIN)
    lock = _shared(folder)
    wrong = seals.fault(folder, name, checks) if folder.exists() else "it is gone"
    if wrong:
        lock.close()
        raise ArtifactError(f"{folder} is damaged", found=wrong, fix=AGAIN)
    _touch(lock)
    return CacheEntry(folder, lock)


def _nothing(folder: Path) -> None:
    raise ArtifactError(f"{folder} is gone", found="damaged where it is shared", fix=AGAIN)


def _build(folder: Path, digest: str, build: Callable[[Path], object], checks: Checks) -> None:
    _remove_leftovers(folder)
    # Not by `tempfile`: others may read what they may read anywhere else.
    fresh = folder.with_name(f"{BUILDING}{folder.name}-{secrets.token_hex(4)}")
    fresh.mkdir()
    try:
        elsewhere = shared.fetched(folder.parent.name, folder.name, fresh)
        if elsewhere is None:
            build(fresh)
        seals.seal(fresh, folder, elsewhere or digest, checks)
        publish(fresh, folder)
    except BaseException as error:
        shutil.rmtree(fresh, ignore_errors=True)
        wrong = refusal(folder, error) if isinstance(error, OSError) else None
        _forget(folder)
        if wrong:
            raise wrong from error
        raise


def refusal(folder: Path, error: OSError) -> ArtifactError:
    """Return the refusal of a folder that the system does not let be written."""
    parent_folder = next(parent for parent in folder.absolute().parents if parent.exists())
    if not parent_folder.is_dir():
        return ArtifactError(
            f"{folder} could not be written",
            found=f"{parent_folder} is no folder",
            fix="rename it or move it away: what is kept between runs goes into a folder of that "
            "name",
        )
    free = shutil.disk_usage(parent_folder).free
    return ArtifactError(
        f"{folder} could not be written",
        found=f"{error.strerror or error}; {free / 1e9:.1f} GB free there",
        fix="make room (`featurestore gc` removes old snapshots), or work in a folder on "
        "another disk that can be written",
    )


def set_aside(folder: Path, look: Callable[[], str | None]) -> str | None:
    """Rename a folder that is damaged, so that it is built again when it is asked for.

    Parameters
    ----------
    look
        Returns what is wrong with it, in words, or None.

    Returns
    -------
    str or None
        What was wrong; None if another process has mended it.

    Raises
    ------
    ArtifactError
        Somebody uses it.
    """
    with _exclusive_lock(folder, PATIENCE) as alone:
        wrong = look() if folder.exists() else None
        if wrong is None:
            return None
        if not alone:
            raise ArtifactError(
                f"{folder} is damaged, and in use",
                found=wrong,
                fix="end what uses it, then run again: it is made again",
            )
        aside = folder.with_name(f"{BROKEN}{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)  # of an earlier time
        folder.rename(aside)
        seals.path(folder).unlink(missing_ok=True)
    warnings.warn(
        f"{folder} is damaged ({wrong}): it is set aside as {aside.name}, to be made again",
        DamageWarning,
        stacklevel=2,
    )
    return wrong


def _forget(folder: Path) -> None:
    """Remove lock and seal of a folder that is not there, and the folder above if it is empty."""
    for file in (lock_of(folder), seals.path(folder)):
        file.unlink(missing_ok=True)
    for parent in (folder.parent, HOME):
        with suppress(OSError):  # not empty
            parent.rmdir()


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed writers and removers of a folder left; its lock must be held alone."""
    for prefix in (BUILDING, REMOVING):
        for left in folder.parent.glob(f"{prefix}{folder.name}-*"):
            shutil.rmtree(left, ignore_errors=True)


def lock_of(folder: Path) -> Path:
    """Return the lock file of a folder of the cache."""
    return folder.with_suffix(".lock")


def _shared(folder: Path) -> IO[bytes]:
    return locks.wait_shared(lock_of(folder), seals.path(folder))


def _touch(lock: IO[bytes], now: float | None = None) -> None:
    """Note the time of the last use, where that is allowed."""
    with suppress(OSError):
        os.utime(lock.fileno(), None if now is None else (now, now))


def names(kind: str) -> list[str]:
    """Return the names of the entries of a kind, the last used first."""
    folders = [p for p in (HOME / kind).glob("[!.]*") if p.is_dir()]
    return [p.name for p in sorted(folders, key=lambda p: -used(p))]


def used(folder: Path) -> float:
    """Return the time of a folder's last use, in seconds of the epoch."""
    lock = lock_of(folder)
    return (lock if lock.exists() else folder).stat().st_mtime


def in_use(folder: Path) -> bool:
    """Return whether a process holds a folder."""
    with _exclusive_lock(folder) as alone:
        return not alone


@contextmanager
def _exclusive_lock(folder: Path, patience: float = 0.0) -> Iterator[bool]:
    """Hold a folder's lock alone if nobody else holds it; yield whether that went well.

    Parameters
    ----------
    patience
        Seconds to try it for.
    """
    before = used(folder) if folder.exists() else time.time()
    end = time.monotonic() + patience
    while (lock := locks.try_exclusive(lock_of(folder), seals.path(folder))) is None:
        if time.monotonic() >= end:
            yield False
            return
        time.sleep(0.05)
    with lock:
        _touch(lock, before)  # to look at it is not to use it
        yield True


def remove(folder: Path) -> bool:
    """Remove a folder unless a process holds it, or another user's right; return if it went."""
    with _exclusive_lock(folder) as alone, suppress(PermissionError):
        if alone:
            _remove_leftovers(folder)
            if folder.exists():
                gone = folder.with_name(f"{REMOVING}{folder.name}-{os.getpid()}")
                folder.rename(gone)  # at once: a reader sees the whole or none
                shutil.rmtree(gone, ignore_errors=True)
            _forget(folder)
            return True
    return False
