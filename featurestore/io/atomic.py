"""Files and folders that are whole or not there: written beside, put on the disk, then renamed."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from featurestore.errors import ArtifactError, os_errors_refused

HOME = Path(".featurestore")
"""What is kept between runs in the working folder: downloads, synthetic cohorts, digests."""


SYNCS = 8  # at once: a journal commits them together


def publish(fresh: Path, final: Path) -> None:
    """Give a file or folder that has been written its name.

    The disk has all of it before, so that a name means the whole even after a power cut, and the
    name itself afterwards.

    Raises
    ------
    OSError
        The disk refuses it, or ``final`` is a folder that is not empty.
    """
    if fresh.is_dir():
        with ThreadPoolExecutor(SYNCS) as pool:
            list(pool.map(sync, (path for path in fresh.rglob("*") if not path.is_symlink())))
    sync(fresh)
    fresh.replace(final)
    sync(final.parent)


def sync(path: Path) -> None:
    """Have the disk take what was written to a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file by temporary name and rename: a reader sees all of it or none.

    Raises
    ------
    ArtifactError
        It cannot be written.
    """
    with fresh_file(path) as building:
        building.write_bytes(content)


@contextmanager
def fresh_file(final: Path) -> Iterator[Path]:
    """Yield the temporary name of a file that takes its final one only if the block ends well.

    Nothing stays otherwise, nor a folder that was not there.

    Raises
    ------
    ArtifactError
        It cannot be written.
    """
    fix = "make room, or name a file in a folder that can be written"
    above = next(folder for folder in final.absolute().parents if folder.exists())
    with (
        os_errors_refused(f"{final} could not be written", fix),
        tempfile.TemporaryDirectory(prefix=".building-", dir=above) as folder,
    ):
        building = Path(folder) / final.name
        yield building
        final.parent.mkdir(parents=True, exist_ok=True)
        publish(building, final)


@contextmanager
def fresh_folder(final: Path, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that takes its final name only if the block ends well.

    Parameters
    ----------
    replace
        Whether it takes the place of a folder that is there; without, that one stays.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    outer = Path(tempfile.mkdtemp(prefix=".building-", dir=final.parent))  # for this user alone
    folder = outer / final.name
    folder.mkdir()
    try:
        yield folder
        if replace and final.exists():
            _exchange(folder, final, outer)
            return
        try:
            publish(folder, final)
        except OSError:
            # Another process built the same content first; either copy will do.
            if not final.exists():
                raise
    finally:
        shutil.rmtree(outer, ignore_errors=True)


def _exchange(fresh: Path, final: Path, outer: Path) -> None:
    """Give a folder the name of one that is there; nobody finds a mixture of both."""
    ready, before = outer / "ready", outer / "before"
    publish(fresh, ready)  # the disk has all of it: between the names lies no more than a moment
    final.replace(before)
    try:
        ready.replace(final)
    except OSError:
        before.replace(final)
        raise
    sync(final.parent)


def new_folder(final: Path, build: Callable[[Path], object]) -> Path:
    """Build a folder where a user wants it.

    Raises
    ------
    ArtifactError
        It is there already, or cannot be written.
    """
    if final.exists():
        raise ArtifactError(
            f"{final} is there already",
            found="a folder" if final.is_dir() else "a file",
            fix="name a folder that is not there yet, or remove it",
        )
    fix = "make room, or name a folder elsewhere"
    with os_errors_refused(f"{final} could not be written", fix), fresh_folder(final) as folder:
        build(folder)
    return final
