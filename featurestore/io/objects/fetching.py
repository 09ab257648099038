"""Objects on this machine: each fetched once, verified, and gone on with after a cut.

An object lies in the cache under all that the store says of its content. An artifact is a folder of
links to its objects, so that one object more is fetched alone. The folder is what a process holds;
objects that no folder links to are for `featurestore gc`. Where lists of numbers are not asked for
yet, a link leads to the object's outline (`featurestore.io.objects.outlines`) until they are
(`featurestore.io.objects.originals`).
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from threading import Event

from featurestore.errors import ArtifactError
from featurestore.io import cache, downloads, garbage, locks, seals
from featurestore.io.atomic import HOME
from featurestore.io.objects import outlines
from featurestore.io.objects.listing import Listing, connect, listed
from featurestore.io.objects.store import (
    NAME,
    OBJECTS,
    OUTLINES,
    RECORD,
    Store,
    StoredObject,
    entry_of,
    translated,
)
from featurestore.io.seals import Checks

AT_ONCE = 8  # objects
LINKING = HOME / f"{OBJECTS}.lock"
"""Shared by those who make folders of links, held alone by who removes what none links to."""


def artifact(uri: str, outlined: bool = False) -> Path:
    """Return where the objects behind a URI lie on this machine, as long as this process lives.

    What is unchanged costs a listing. Processes that ask at once share what is fetched.

    Parameters
    ----------
    uri
        As of `featurestore.io.objects.listing.listed`.
    outlined
        Whether outlines do for Parquet files that are not here.

    Returns
    -------
    Path
        A file, where the URI names one object; else a folder with the objects' relative names.

    Raises
    ------
    ArtifactError
        There is no such object, the storage refuses or does not answer, a download is not what the
        store says, or the disk is full.
    """
    store = connect(uri)
    listing = listed(store, uri)
    lines = [f"{stored.digest} {name}" for name, stored in listing.objects.items()]
    digest = hashlib.sha256("\n".join([*lines, OUTLINES][: len(lines) + outlined]).encode())
    with translated(uri, store.refusal), ExitStack() as until_published:

        def build(folder: Path) -> None:
            until_published.enter_context(locks.wait_shared(LINKING, LINKING))
            _link(store, listing, folder, outlined)

        checks = dict.fromkeys(listing.objects, _fault)
        folder = cache.built(downloads.KIND, digest.hexdigest(), build, checks)
    return folder / next(iter(listing.objects)) if listing.is_object else folder


def _fault(link: Path) -> str | None:
    """Return what is wrong with what a link to an object leads to, in words."""
    entry = link.resolve().parent
    return seals.fault(entry, entry.name, checks_of(entry))


def checks_of(folder: Path) -> Checks:
    """Return the checks of a folder of the cache, see `featurestore.io.seals`."""
    if folder.parent.name == OUTLINES:
        return outlines.CHECKS
    links = (file for file in folder.rglob("*") if entry_of(file))
    return {file.relative_to(folder).as_posix(): _fault for file in links}


def _link(store: Store, listing: Listing, folder: Path, outlined: bool) -> None:
    """Fill a folder with links to objects, fetching what is not here, or its outline."""
    outlined_names = {
        name
        for name, stored in listing.objects.items()
        if outlined and outlines.applies(name, stored)
        if not cache.place(OBJECTS, stored.digest).exists()
    }
    refuse_too_large([listing.objects[n] for n in listing.objects.keys() - outlined_names])
    ended = Event()

    def link(name: str) -> None:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        stored = listing.objects[name]
        with (
            outlines.outline(store, stored)
            if name in outlined_names
            else fetched(store, stored, ended.is_set)
        ) as file:
            # Relative: other machines may have the working folder elsewhere.
            place.symlink_to(os.path.relpath(file, place.parent))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = [pool.submit(link, name) for name in listing.objects]
        try:
            for future in as_completed(futures):
                future.result()
        finally:  # after a refusal or an interruption nothing else begins or goes on
            ended.set()
            pool.shutdown(cancel_futures=True)


def refuse_too_large(objects: Collection[StoredObject]) -> None:
    """Refuse objects for which the disk has too little room.

    Raises
    ------
    ArtifactError
        It has.
    """
    places = {stored: cache.place(OBJECTS, stored.digest) for stored in objects}
    missing = [stored for stored, place in places.items() if not place.exists()]
    begun = sum(garbage.size(downloads.part(places[stored])) for stored in missing)
    wanted, free = sum(stored.size for stored in missing) - begun, shutil.disk_usage(HOME).free
    if wanted > free:
        raise ArtifactError(
            f"{len(missing)} objects are too large for this disk",
            found=f"{wanted / 1e9:.1f} GB to fetch, {free / 1e9:.1f} GB free in {HOME.absolute()}",
            fix="make room (`featurestore gc` removes what was downloaded and is not in use), or "
            "work in a folder on another disk",
        )


@contextmanager
def fetched(store: Store, stored: StoredObject, ended: Callable[[], bool] = bool) -> Iterator[Path]:
    """Yield the file of one object, fetched if it is not here; it stays until the block ends.

    Parameters
    ----------
    ended
        Asked while it is fetched: whether nobody waits for it any more.

    Raises
    ------
    ArtifactError
        The object was replaced, the storage refuses or does not answer, what came is not what the
        store says, or the disk is full.
    """
    build = downloads.resumable(OBJECTS, stored.digest, partial(_bring, store, stored, ended))
    entry = cache.get_or_build(OBJECTS, stored.digest, build, on_trial=False)
    with entry.lock:
        yield entry.folder / NAME


def _bring(store: Store, stored: StoredObject, ended: Callable[[], bool], folder: Path) -> None:
    """Bring one object, from the byte that is not here yet, and verify the whole."""
    file = folder / NAME
    with translated(stored.uri, store.refusal):
        begun = file.stat().st_size if file.exists() else 0
        with file.open("ab") as stream:
            for chunk in store.read(stored, begun, stored.size):
                stream.write(chunk)
                if ended():
                    raise CancelledError
        if file.stat().st_size == stored.size and store.is_whole(stored, file):
            (folder / RECORD).write_text(json.dumps({"object": asdict(stored)}))
            return
    file.unlink()
    raise ArtifactError(
        f"The download of {stored.uri} is not what the bucket says",
        found="another size or checksum",
        fix="run again: it will be fetched from its first byte",
    )
