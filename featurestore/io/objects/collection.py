"""What of the objects on this machine nobody needs any more."""

from pathlib import Path

from featurestore.io import downloads, garbage, locks
from featurestore.io.atomic import HOME
from featurestore.io.objects import fetching
from featurestore.io.objects.store import OBJECTS, OUTLINES, entry_of


def collect(keep: int) -> list[Path]:
    """Remove the objects and outlines that no folder of links needs.

    Nothing goes while somebody makes a folder of links.

    Parameters
    ----------
    keep
        How many stay of the objects whose download was cut, the last begun.

    Returns
    -------
    list of Path
        What went.
    """
    kinds = [kind for kind in (OBJECTS, OUTLINES) if (HOME / kind).is_dir()]
    if not kinds:
        return []
    try:
        lock = locks.try_lock(fetching.LINKING)
    except OSError:  # a folder that is only read
        return []
    if lock is None:
        return []
    try:
        entries = map(entry_of, (HOME / downloads.KIND).rglob("*"))
        linked = {entry for entry in entries if entry}
        gone = []
        for kind in kinds:
            needed = {name for other, name in linked if other == kind}
            gone += garbage.collect_all_but(kind, needed)
        return gone + downloads.collect_cut(OBJECTS, keep)
    finally:
        lock.close()
