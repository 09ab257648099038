"""What of the objects on this machine nobody needs any more."""

from pathlib import Path

from featurestore.io import downloads, garbage, locks
from featurestore.io.atomic import HOME
from featurestore.io.objects import fetching, ranges


def collect(keep: int) -> list[Path]:
    """Remove the objects that no folder of links needs, and columns that were read of objects.

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
    gone = garbage.collect(ranges.KIND, 0)
    if not (HOME / fetching.KIND).is_dir():
        return gone
    try:
        lock = locks.try_lock(fetching.LINKING)
    except OSError:  # a folder that is only read
        return gone
    if lock is None:
        return gone
    try:
        links = (path for path in (HOME / downloads.KIND).rglob("*") if path.is_symlink())
        linked = {path.readlink().parent.name for path in links}
        gone += garbage.collect_all_but(fetching.KIND, linked)
        return gone + downloads.collect_cut(fetching.KIND, keep)
    finally:
        lock.close()
