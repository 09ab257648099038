"""Downloads on this machine: a folder for each content, whole or not there, resumed after a cut.

Their names are digests of what the storage says of the content. What a process has asked for stays
until it ends.
"""

import hashlib
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from featurestore.io import cache, digests, garbage

KIND = "downloads"
PART = ".part-"  # before the name of a download that was cut


def kept(content: str, fill: Callable[[Path], object]) -> Path:
    """Return the folder of a download, made the first time.

    Processes that ask at once share one download.

    Parameters
    ----------
    content
        Says all that tells this content from another.
    fill
        Downloads into the folder that it is given, where it may find what an earlier call of the
        same content has left.
    """
    digest = hashlib.sha256(content.encode()).hexdigest()
    part = _part(cache.place(KIND, digest).name)

    def build(folder: Path) -> None:
        part.mkdir(exist_ok=True)
        fill(part)
        folder.rmdir()  # it is empty
        part.rename(folder)

    return cache.built(KIND, digest, build)


def compared(fill: Callable[[Path], object]) -> Path:
    """Return the folder of a download whose content nothing tells before it is here.

    It is downloaded at each call, and kept once for each content.
    """
    fresh = cache.get_or_build(KIND, uuid.uuid4().hex, fill)
    files = sorted(file for file in fresh.folder.rglob("*") if file.is_file())
    named = {file.relative_to(fresh.folder).as_posix(): file for file in files}
    content = digests.digest(named, remember=False)

    def build(folder: Path) -> None:
        for entry in fresh.folder.iterdir():
            entry.rename(folder / entry.name)

    folder = cache.built(KIND, hashlib.sha256(content.encode()).hexdigest(), build)
    fresh.lock.close()
    cache.remove(fresh.folder)
    return folder


def _part(name: str) -> Path:
    return cache.place(KIND, name).with_name(PART + name)


def discard(path: Path) -> bool:
    """Remove the download that a path lies in, unless another process uses it.

    Returns
    -------
    bool
        Whether there was one and it went, so that asking again downloads again.
    """
    folder = cache.let_go(path)
    return folder is not None and cache.remove(folder)


def collect(keep: int) -> list[Path]:
    """Remove all but the last used downloads, and of those that were cut all but the last begun.

    Parameters
    ----------
    keep
        How many of either stay. One that a process uses stays as well.

    Returns
    -------
    list of Path
        What went.
    """
    cut = cache.place(KIND, "any").parent.glob(f"{PART}*")
    old = sorted(cut, key=lambda part: -part.stat().st_mtime)[keep:]
    return garbage.collect(KIND, keep) + [part for part in old if _removed(part)]


def _removed(part: Path) -> bool:
    finished = part.with_name(part.name.removeprefix(PART))
    if cache.in_use(finished):  # somebody goes on with it
        return False
    shutil.rmtree(part, ignore_errors=True)
    return finished.exists() or cache.remove(finished)  # its lock
