"""What machines share, as `featurestore.snapshots.collection` is of one: collected and verified."""

import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.embeddings import layout, parts
from featurestore.embeddings.damage import damage, damages
from featurestore.embeddings.part import Part
from featurestore.errors import ArtifactError
from featurestore.folds import artifact
from featurestore.io import cache, digests, seals
from featurestore.io.atomic import HOME
from featurestore.io.objects import shared
from featurestore.io.objects.shared import (
    GRACE,
    PART_KEYS,
    PART_VALUES,
    PROOFS,
    SharedStore,
    Variant,
)
from featurestore.snapshots.collection import opened
from featurestore.snapshots.layout import PARTS, SNAPSHOTS
from featurestore.snapshots.tags import shared_tags


def share_snapshot(name: str) -> None:
    """Let other machines find a snapshot of this one, with its parts, unless they do.

    Raises
    ------
    ArtifactError
        It, or a part of it, is damaged; or the store does not answer.
    """
    store = shared.current()
    if store is not None and name not in store.entries(SNAPSHOTS):
        snapshot = opened(name)
        parts.share(part for matrix in snapshot.matrices.values() for part in matrix.parts)
        shared.share(snapshot.folder)


# -- collected ------------------------------------------------------------------------------------


def collect(store: SharedStore, keep: int) -> list[str]:
    """Remove from a store what none of its last used or tagged snapshots names.

    What was written or used within `GRACE` stays: the snapshot that names it may be about to come.
    Assignments of folds stay.

    Parameters
    ----------
    keep
        How many of the last used snapshots stay.

    Returns
    -------
    list of str
        What went.

    Raises
    ------
    ArtifactError
        A snapshot that stays is damaged: nobody knows which parts it names.
    """
    before = time.time() - GRACE
    snapshots = store.entries(SNAPSHOTS, refresh=True)
    used = {name: max(one.used for one in variants) for name, variants in snapshots.items()}
    last_used = sorted(used, key=lambda name: -used[name])
    recent = [name for name in used if used[name] > before]
    kept = {*last_used[:keep], *recent, *shared_tags(store).values()} & used.keys()
    named = {part for name in kept for part in _named_parts(store, name)}
    gone = _remove(store, SNAPSHOTS, kept, before)
    gone += _remove(store, layout.FOLDER, named, before)
    gone += _remove_sent(store, before)
    return gone + _remove(store, artifact.NAME, store.entries(artifact.NAME), before)


def _named_parts(store: SharedStore, name: str) -> set[str]:
    for variant in store.variants(SNAPSHOTS, name):
        with _folder() as fresh:
            if shared.sealed(store, name, variant, fresh):
                lists = [pq.read_table(file)["part"] for file in fresh.glob(f"*{PARTS}")]
                return {part for names in lists for part in names.to_pylist()}
    raise ArtifactError(
        f"The parts of snapshot {name} are not known, so none is removed",
        found=f"the snapshot is damaged in {store.uri}",
        fix=f"remove it: featurestore verify --store {store.uri} --repair",
    )


def _remove(store: SharedStore, kind: str, needed: Collection[str], before: float) -> list[str]:
    """Remove what is not needed, and what killed writers left, unless it was used since."""
    return [
        f"{kind}/{shared.place(name, variant.number)}"
        for name, variants in store.listed(kind).items()
        for variant in variants
        if name not in needed or PROOFS[kind] not in variant.files
        if variant.used < before and store.remove(kind, name, variant, before)
    ]


def _remove_sent(store: SharedStore, before: float) -> list[str]:
    """Remove what executors have sent to a driver that was killed."""
    old = {key: one for key, one in store.objects(shared.SENT).items() if one.modified < before}
    store.remove_files(old.values())
    return [f"{shared.SENT}/{key}" for key in old]


# -- verified -------------------------------------------------------------------------------------


class Damage(NamedTuple):
    """A thing in a store that is not what was written.

    Parameters
    ----------
    place
        Where it lies in the store.
    fault
        What is wrong with it.
    advice
        What was done about it, or is to be done.
    """

    place: str
    fault: str
    advice: str


def verify(store: SharedStore, repair: bool) -> Iterator[Damage]:
    """Read every byte of what machines share; yield what is damaged.

    Parameters
    ----------
    repair
        Whether to remove it, and to send it again where this machine has it whole.
    """
    for kind in PROOFS:
        for name, variants in store.entries(kind, refresh=True).items():
            for variant in variants:
                if fault := _fault(store, kind, name, variant):
                    advice = f"featurestore verify --store {store.uri} --repair"
                    if repair:
                        store.remove(kind, name, variant)
                        advice = _send_again(kind, name)
                    place = shared.place(name, variant.number)
                    yield Damage(f"{kind}/{place}", fault, advice)


def _fault(store: SharedStore, kind: str, name: str, variant: Variant) -> str | None:
    with _folder() as fresh:
        if kind == layout.FOLDER:
            return _part_fault(store, name, variant, fresh)
        if shared.sealed(store, name, variant, fresh) is None:
            return "its files are not those of its seal"
    return None


def _part_fault(store: SharedStore, name: str, variant: Variant, fresh: Path) -> str | None:
    if PART_VALUES not in variant.files:
        return f"{PART_VALUES} is missing"
    keys = store.fetch(variant.files[PART_KEYS], fresh / PART_KEYS)
    if not digests.sha256(keys).startswith(variant.number):
        return f"{PART_KEYS} has another SHA-256 than what was written"
    try:
        part = Part.read(name, keys)
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
        return f"{PART_KEYS} cannot be read: {str(error).splitlines()[0]}"
    return damage(part, store.fetch(variant.files[PART_VALUES], fresh / PART_VALUES), keys)


def _send_again(kind: str, name: str) -> str:
    """Send a thing that this machine has whole; return what was done, in words."""
    if kind == layout.FOLDER:
        part = parts.present([name]).get(name)
        if part is not None and part.values.exists() and not damages([part], wholly=True):
            parts.share([part])
            return "nothing: it was removed there, and sent again"
    else:
        folder = cache.place(kind, name)
        if folder.exists() and seals.fault(folder, name, cache.NONE, wholly=True) is None:
            shared.share(folder)
            return "nothing: it was removed there, and sent again"
    if kind == artifact.NAME:
        return (
            "it was removed there: use the store on a machine that has it; made again, folds "
            "may be others"
        )
    return "it was removed there: the next run that uses the store makes it again"


@contextmanager
def _folder() -> Iterator[Path]:
    """Yield a folder for what comes from the store, on the disk that has room for parts."""
    HOME.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=HOME) as folder:
        yield Path(folder)
