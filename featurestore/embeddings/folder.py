"""The folder of parts: who uses some, and the removal of those that are no more needed.

Parts are shared by all snapshots, and kept as long as one names them. Who uses parts that no
snapshot names yet holds `lease`.
"""

import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from featurestore.embeddings.layout import KEYS, LOCK, VALUES
from featurestore.embeddings.part import folder
from featurestore.errors import DamageWarning, os_errors_refused
from featurestore.io import locks
from featurestore.io.cache import BROKEN, BUILDING


@contextmanager
def lease() -> Iterator[None]:
    """Keep parts from being removed for a block; leave nothing behind where none came about."""
    try:
        with locks.lease(folder() / LOCK):
            yield
    finally:
        with _alone() as alone:
            if alone:
                _tidy()


@contextmanager
def _alone() -> Iterator[bool]:
    """Hold the parts alone for a block, if nobody else uses them; yield whether that is so."""
    if not folder().exists():
        yield False
        return
    try:
        lock = locks.try_exclusive(folder() / LOCK)
    except OSError:  # not ours
        yield False
        return
    if lock is None:
        yield False
        return
    with lock:
        yield True


def _tidy() -> None:
    """Remove what killed writers left and, where there is no part, the folder."""
    for left in folder().glob(f"{BUILDING}*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    if not any(entry.name != LOCK for entry in folder().iterdir()):
        (folder() / LOCK).unlink(missing_ok=True)
        for empty in (folder(), folder().parent):
            with suppress(OSError):  # not empty
                empty.rmdir()


def names() -> list[str]:
    """Return the names of the parts on this machine."""
    return sorted(file.stem for file in folder().glob(f"[!.]*{KEYS}"))


def remove(unneeded: Callable[[list[str]], Iterable[str]]) -> list[Path]:
    """Remove parts, unless somebody uses some that no snapshot names yet; return their files.

    Parameters
    ----------
    unneeded
        Chooses among the names of those that are there.
    """
    gone: list[Path] = []
    with _alone() as alone:
        if alone:
            for name in unneeded(names()):
                gone += _unlinked(folder() / f"{name}{KEYS}", folder() / f"{name}{VALUES}")
            for left in folder().glob(f"[!.]*{VALUES}"):  # of one that was killed between the two
                if not left.with_suffix(KEYS).exists():
                    gone += _unlinked(left)
            _tidy()
    return gone


def _unlinked(*files: Path) -> list[Path]:
    existing = [file for file in files if file.exists()]
    for file in existing:
        file.unlink()
    return existing


def set_aside(name: str, look: Callable[[str], str | None]) -> bool:
    """Rename the files of a part that is damaged, so that it is converted again.

    Parameters
    ----------
    look
        Returns what is wrong with it, in words, or None: another process may have mended it.

    Returns
    -------
    bool
        Whether it was still damaged.

    Raises
    ------
    ArtifactError
        They cannot be renamed.
    """
    with locks.exclusive(folder() / f".mending-{name}{LOCK}"):
        if not (fault := look(name)):
            return False
        fix = "ask the owner of the folder to remove the part, or work in another folder"
        with os_errors_refused(f"The part {name} is damaged ({fault}), and stays", fix):
            for file in (folder() / f"{name}{KEYS}", folder() / f"{name}{VALUES}"):
                if file.exists():
                    file.replace(file.with_name(f"{BROKEN}{file.name}"))
    warnings.warn(
        f"the part {name} of the embeddings is damaged ({fault}): it is set aside as "
        f"{BROKEN}{name}, to be made again",
        DamageWarning,
        stacklevel=2,
    )
    return True
