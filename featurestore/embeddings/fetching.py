"""Parts that another machine has made: brought from where machines share them, and compared."""

import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from featurestore.embeddings.damage import damage
from featurestore.embeddings.layout import FOLDER, KEYS, LOCK, VALUES
from featurestore.embeddings.part import Part, folder
from featurestore.io import atomic, digests, locks
from featurestore.io.cache import BUILDING
from featurestore.io.objects import shared

SHARED = {VALUES: shared.PART_VALUES, KEYS: shared.PART_KEYS}
"""What the files of a part are called where machines share them."""

Files = Mapping[str, Path]
"""Files of a part by how their names end."""


def fetch(part: Part) -> None:
    """Bring a part from where machines share it, if its embeddings are not here.

    Raises
    ------
    ArtifactError
        The store does not answer, or the disk is full.
    """
    if part.values.exists():
        return
    folder().mkdir(parents=True, exist_ok=True)
    lock = folder() / f".fetching-{part.name}{LOCK}"
    with locks.lease(folder() / LOCK), locks.exclusive(lock):
        if part.values.exists():  # another process has brought it in the meantime
            return

        def is_whole(_: str, files: Files) -> bool:
            return damage(part, files[VALUES], files[KEYS]) is None

        if _bring(part.name, (KEYS, VALUES), is_whole):  # the embeddings are what is asked for
            digests.remember(dict.fromkeys((part.keys, part.values), part.when_whole))


def fetch_keys(name: str) -> None:
    """Bring the keys of a part from where machines share it, if they are not here.

    What they are is in the name of their variant; the embeddings come when they are asked for.
    """
    if not (folder() / f"{name}{KEYS}").exists():
        _bring(
            name, (KEYS,), lambda variant, files: digests.sha256(files[KEYS]).startswith(variant)
        )


def _bring(name: str, ends: Iterable[str], is_whole: Callable[[str, Files], bool]) -> bool:
    """Give files of a part their names, the last one last; return whether they are here.

    Parameters
    ----------
    is_whole
        Whether those of a variant are what was written.
    """
    store = shared.current()
    if store is None:
        return False
    for variant in store.variants(FOLDER, name):
        folder().mkdir(parents=True, exist_ok=True)
        files = {end: folder() / f"{BUILDING}{secrets.token_hex(8)}{end}" for end in ends}
        try:
            if _fetched(store, variant, files) and is_whole(variant.number, files):
                for end, file in files.items():
                    atomic.publish(file, folder() / f"{name}{end}")
                return True
            store.report_damage(name, variant.number)
        finally:
            for file in files.values():
                file.unlink(missing_ok=True)
    return False


def _fetched(store: shared.SharedStore, variant: shared.Variant, files: Files) -> bool:
    """Bring files of a part, if it has lost none."""
    if not variant.files.keys() >= set(SHARED.values()):
        return False
    for end, file in files.items():
        store.fetch(variant.files[SHARED[end]], file)
    return True
