"""The folders of the cache: how large they are, and their removal when no more needed."""

import shutil
from collections.abc import Collection
from pathlib import Path

from featurestore.io import seals
from featurestore.io.atomic import HOME
from featurestore.io.cache import BROKEN, BUILDING, REMOVING, names, remove


def sealed() -> list[Path]:
    """Return every folder below `HOME` that has a seal."""
    folders = [file.with_suffix("") for file in sorted(HOME.glob(f"*/[!.]*{seals.SUFFIX}"))]
    return [folder for folder in folders if folder.is_dir()]


def collect_broken() -> list[Path]:
    """Remove what was set aside; return it."""
    gone = sorted([*HOME.glob(f"*/{BROKEN}*"), *HOME.glob(f"{BROKEN}*")])
    for entry in gone:
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return gone


def size(folder: Path) -> int:
    """Return the bytes that a folder's files take."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def collect(kind: str, keep: int) -> list[Path]:
    """Remove all but the last used folders of a kind, and what killed processes left there.

    Parameters
    ----------
    keep
        How many stay. One that a process uses stays as well.

    Returns
    -------
    list of Path
        What went.
    """
    return collect_all_but(kind, names(kind)[:keep])


def collect_all_but(kind: str, needed: Collection[str]) -> list[Path]:
    """Remove the folders of a kind but those of some names, as `collect` does."""
    entries, parent = names(kind), HOME / kind
    leftovers = {
        entry.name.split("-")[1]
        for prefix in (BUILDING, REMOVING)
        for entry in parent.glob(f"{prefix}*")
    }
    for name in leftovers - set(entries):
        remove(parent / name)
    return [parent / name for name in entries if name not in needed and remove(parent / name)]
