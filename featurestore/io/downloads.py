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


def get_or_download(content: str, fill: Callable[[Path], object]) -> Path:
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
    return cache.built(KIND, digest, resumable(KIND, digest, fill))


def resumable(kind: str, digest: str, fill: Callable[[Path], object]) -> Callable[[Path], None]:
    """Return a function that builds a folder of the cache, going on where a cut call has ended.

    Parameters
    ----------
    kind, digest
        As of `featurestore.io.cache.get_or_build`.
    fill
        As of `get_or_download`.
    """
    begun = part(cache.place(kind, digest))

    def build(folder: Path) -> None:
        begun.mkdir(exist_ok=True)
        fill(begun)
        folder.rmdir()  # it is empty
        begun.rename(folder)

    return build


def download_and_compare(fill: Callable[[Path], object]) -> Path:
    """Return the folder of a download whose storage does not say what its content is.

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


def part(folder: Path) -> Path:
    """Return where what a cut download has left of a folder lies."""
    return folder.with_name(PART + folder.name)


def discard(path: Path) -> bool:
    """Remove the download that a path lies in, unless another process uses it.

    Returns
    -------
    bool
        Whether there was one and it went, so that asking again downloads again.
    """
    folder = cache.release(path)
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
    return garbage.collect(KIND, keep) + collect_cut(KIND, keep)


def collect_cut(kind: str, keep: int) -> list[Path]:
    """Remove what cut downloads of a kind have left, but the last begun; return what went."""
    cut = cache.place(kind, "any").parent.glob(f"{PART}*")
    old = sorted(cut, key=lambda folder: -folder.stat().st_mtime)[keep:]
    return [folder for folder in old if _removed(folder)]


def _removed(cut: Path) -> bool:
    finished = cut.with_name(cut.name.removeprefix(PART))
    if cache.in_use(finished):  # somebody goes on with it
        return False
    shutil.rmtree(cut, ignore_errors=True)
    return finished.exists() or cache.remove(finished)  # its lock
