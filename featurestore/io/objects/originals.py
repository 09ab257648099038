"""The objects that outlines stand for, brought to this machine when their lists are asked for.

The link of the artifact's folder then leads to the object: whoever opens a file by its name finds
all of it from then on.
"""

import os
import secrets
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock

from featurestore.io import cache, locks
from featurestore.io.objects import fetching, outlines, shared
from featurestore.io.objects.listing import connect
from featurestore.io.objects.store import NAME, OBJECTS, Store, StoredObject, object_behind


def lacking(files: Iterable[Path]) -> dict[Path, StoredObject]:
    """Return those of an artifact's files that are outlines, each with its object."""
    objects = ((file, outlines.object_of(file)) for file in files)
    return {file: stored for file, stored in objects if stored}


def elsewhere(files: Iterable[Path]) -> dict[Path, StoredObject]:
    """Return the objects that tasks on other machines read instead of files of this one.

    Where both share no store, they share the working folder: then objects that are here are files
    like others.
    """
    if shared.current() is None:
        return lacking(files)
    objects = ((file, object_behind(file)) for file in files)
    return {file: stored for file, stored in objects if stored}


def places(files: Iterable[Path]) -> list[Path]:
    """Return where the objects of those files that are outlines will be, once they are fetched."""
    entries = (cache.place(OBJECTS, one.digest) for one in lacking(files).values())
    return [(entry / NAME).resolve() for entry in entries]


def fetch(files: Iterable[Path]) -> None:
    """Bring the objects of those files of an artifact that are outlines.

    Raises
    ------
    ArtifactError
        As `featurestore.io.objects.fetching.fetched`.
    """
    waiting = lacking(files)
    if not waiting:
        return
    fetching.refuse_too_large(waiting.values())
    originals = Originals()
    with ThreadPoolExecutor(fetching.AT_ONCE) as pool:
        futures = [pool.submit(originals.fetch, file) for file in waiting]
        try:
            for future in futures:
                future.result()
        finally:
            originals.end()
            pool.shutdown(cancel_futures=True)


class Originals:
    """Brings objects, connecting to each bucket once. Threads may share it."""

    def __init__(self) -> None:
        self._stores: dict[str, Store] = {}
        self._connecting, self._ended = Lock(), Event()

    def fetch(self, file: Path) -> None:
        """Bring the object that a file of an artifact is the outline of, if it is one.

        Raises
        ------
        ArtifactError
            As `featurestore.io.objects.fetching.fetched`.
        """
        stored = outlines.object_of(file)
        if stored is None:
            return
        fresh = file.with_name(f".{secrets.token_hex(8)}")
        store = self._store(stored)
        with (
            locks.lease(fetching.LINKING),  # or the object might go before it is linked to
            fetching.fetched(store, stored, self._ended.is_set) as original,
        ):
            try:
                fresh.symlink_to(os.path.relpath(original, file.parent))
                fresh.replace(file)
            except OSError as error:
                raise cache.refusal(file, error) from error

    def end(self) -> None:
        """Go on with nothing that is under way: nobody waits for it any more."""
        self._ended.set()

    def _store(self, stored: StoredObject) -> Store:
        with self._connecting:
            if stored.root not in self._stores:
                self._stores[stored.root] = connect(stored.uri)
            return self._stores[stored.root]
