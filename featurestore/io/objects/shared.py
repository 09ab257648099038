"""What machines share: parts, snapshots and folds, in a folder or an object store.

Each machine keeps its own copies in its working folder. What one has made the others find by its
name, which its content decides. An entry lies in a folder ``KIND/NAME/VARIANT/`` with a file that
makes it whole (a seal, the keys of a part): it comes last, proves the others, and names the variant
by the beginning of its SHA-256, so that two machines that make one entry at once never mix files.
Whoever uses an old entry marks it with a file beside (`USED`).
"""

import re
import shutil
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from featurestore.errors import ArtifactError, DamageWarning
from featurestore.io import digests, seals
from featurestore.io.objects.folder import Folder
from featurestore.io.objects.listing import SCHEMES, connect
from featurestore.io.objects.store import Store, StoredObject, translated

SEAL, PART_KEYS, PART_VALUES = "seal", "keys.parquet", "values.npy"
PROOFS = {"snapshots": SEAL, "folds": SEAL, "parts": PART_KEYS}
"""By kind, the file that makes an entry whole."""
USED = "used"
SENT = "sent"  # what executors give to a driver, until it has fetched it
PLACE = re.compile(r"([0-9a-f]{16,64})/([0-9a-f]{16})/(\w[\w.-]*)", re.ASCII)
GRACE = 24 * 3600.0
"""Seconds for which an entry stays that no snapshot names: who has just used it may be about to
share a snapshot that does. No run needs longer for that."""
AT_ONCE = 8  # entries that are marked as used


class Variant(NamedTuple):
    """What one machine, or several alike, have written of an entry.

    Parameters
    ----------
    number
        The beginning of the SHA-256 of what makes it whole.
    files
        By name.
    used
        When it was last written or used, in seconds of the epoch.
    """

    number: str
    files: Mapping[str, StoredObject]
    used: float


@dataclass
class SharedStore:
    """A store that machines share: a folder, or a prefix of a bucket.

    Parameters
    ----------
    uri
        ``s3://bucket/prefix``, or a path.
    store, prefix
        The bucket, connected, and what the keys begin with.
    list_all
        Whether all entries of a kind are listed once, or each is asked for by its name.
    """

    uri: str
    store: Store
    prefix: str
    list_all: bool = True
    _entries: dict[str, dict[str, list[Variant]]] = field(default_factory=dict)
    _damaged: set[tuple[str, str]] = field(default_factory=set)

    @classmethod
    def open(cls, uri: str, list_all: bool = True) -> "SharedStore":
        """Connect to it.

        Raises
        ------
        ArtifactError
            The library of its scheme is not installed, or there is no such scheme.
        """
        scheme, sign, place = uri.partition("://")
        if not sign:
            return cls(uri, Folder(uri), "", list_all)
        if scheme not in SCHEMES:
            raise ArtifactError(
                f"No store is shared through {scheme}://",
                found=uri,
                fix=f"set store to a path, or to one of {', '.join(SCHEMES)}",
            )
        prefix = place.partition("/")[2].strip("/")
        return cls(uri, connect(uri), f"{prefix}/" if prefix else "", list_all)

    def listed(self, kind: str, beginning: str = "") -> dict[str, list[Variant]]:
        """Return the variants of each entry of a kind, those that are not whole as well.

        Parameters
        ----------
        beginning
            What names begin with; a store may return others too.
        """
        files: dict[tuple[str, str], dict[str, StoredObject]] = defaultdict(dict)
        for key, stored in self.objects(kind, beginning).items():
            # Whoever can write there names no file outside of the folder that it comes into.
            if place := PLACE.fullmatch(key):
                files[place[1], place[2]][place[3]] = stored
        entries: dict[str, list[Variant]] = defaultdict(list)
        for (name, number), by_name in sorted(files.items()):
            used = max(stored.modified for stored in by_name.values())
            by_name.pop(USED, None)
            entries[name].append(Variant(number, by_name, used))
        return dict(entries)

    def objects(self, kind: str, beginning: str = "") -> dict[str, StoredObject]:
        """Return the objects of a kind by what their keys end in, see `listed`."""
        base = f"{self.prefix}{kind}/"
        with translated(self.uri, self.store.refusal):
            objects = list(self.store.list_prefix(f"{base}{beginning}"))
        return {one.key.removeprefix(base): one for one in objects if one.key.startswith(base)}

    def entries(self, kind: str, refresh: bool = False) -> Mapping[str, list[Variant]]:
        """Return the whole variants of each entry of a kind; listed once, or refreshed."""
        if refresh or kind not in self._entries:
            self._entries[kind] = self._whole(kind)
        return self._entries[kind]

    def _whole(self, kind: str, beginning: str = "") -> dict[str, list[Variant]]:
        """Return the whole variants of the entries whose names begin so, and maybe of others."""
        whole = {
            name: [variant for variant in variants if PROOFS[kind] in variant.files]
            for name, variants in self.listed(kind, beginning).items()
        }
        return {name: variants for name, variants in whole.items() if variants}

    def variants(self, kind: str, name: str) -> list[Variant]:
        """Return the variants of an entry that were not found damaged."""
        entries = self.entries(kind) if self.list_all else self._whole(kind, f"{name}/")
        variants = entries.get(name, [])
        return [one for one in variants if (name, one.number) not in self._damaged]

    def fetch(self, stored: StoredObject, to: Path) -> Path:
        """Bring a file; return where it is."""
        with translated(stored.uri, self.store.refusal), to.open("wb") as file:
            for chunk in self.store.read(stored, 0, stored.size):
                file.write(chunk)
        return to

    def read(self, stored: StoredObject, most: int) -> bytes:
        """Return the beginning of a file, at most so many bytes."""
        with translated(stored.uri, self.store.refusal):
            return b"".join(self.store.read(stored, 0, min(stored.size, most)))

    def report_damage(self, name: str, variant: str) -> None:
        """Use a damaged variant no more, and warn of it."""
        self._damaged.add((name, variant))
        warnings.warn(
            f"{place(name, variant)} is damaged in {self.uri} and is not used: "
            f"`featurestore verify --store {self.uri} --repair` removes it there",
            DamageWarning,
            stacklevel=3,
        )

    def upload(self, kind: str, name: str, files: Mapping[str, Path]) -> None:
        """Upload the files of an entry that are not there yet, what makes it whole last."""
        proof = PROOFS[kind]
        number = digests.sha256(files[proof])[:16]
        if number in [one.number for one in self._whole(kind, f"{name}/").get(name, [])]:
            return
        for file in [*(file for file in files if file != proof), proof]:
            self.write(f"{kind}/{place(name, number)}/{file}", files[file], once=file == proof)
        self._entries.pop(kind, None)

    def write(self, key: str, file: Path, once: bool = False) -> None:
        """Write a file under a key; with ``once`` one that is there already stays."""
        with translated(self.uri, self.store.refusal):
            self.store.write(f"{self.prefix}{key}", file, once)

    def mark_used(self, kind: str, names: Iterable[str]) -> None:
        """Mark entries as used, so that they are not collected; at most once in half of `GRACE`."""
        before = time.time() - GRACE / 2
        keys = [
            f"{kind}/{place(name, variant.number)}/{USED}"
            for name in names
            for variant in self.entries(kind).get(name, [])
            if variant.used < before
        ]
        if not keys:
            return
        with (
            suppress(ArtifactError),  # a reader may not be allowed to write
            tempfile.NamedTemporaryFile() as empty,
            ThreadPoolExecutor(AT_ONCE) as pool,
        ):
            list(pool.map(lambda key: self.write(key, Path(empty.name)), keys))
        self._entries.pop(kind, None)

    def remove(self, kind: str, name: str, variant: Variant, before: float | None = None) -> bool:
        """Remove a variant of an entry: first what makes it whole, so that nobody sees a half.

        Parameters
        ----------
        before
            A time, in seconds of the epoch: what was used since stays.

        Returns
        -------
        bool
            Whether it went.
        """
        key, proof = f"{self.prefix}{kind}/{place(name, variant.number)}/", PROOFS[kind]
        with translated(self.uri, self.store.refusal):
            files = [one for one in self.store.list_prefix(key) if one.key.startswith(key)]
        if before is not None and any(one.modified > before for one in files):
            return False
        self.remove_files(sorted(files, key=lambda one: one.key != f"{key}{proof}"))
        self._entries.pop(kind, None)
        return True

    def remove_files(self, files: Iterable[StoredObject]) -> None:
        """Remove some files, one after the other."""
        with translated(self.uri, self.store.refusal):
            for stored in files:
                self.store.remove(stored)


def place(name: str, variant: str) -> str:
    """Return the folder of a variant of an entry, among those of its kind.

    The stores of Google and Azure are asked for whole folders: each entry has one.
    """
    return f"{name}/{variant}"


_SHARED: list[SharedStore] = []


def use(uri: str | None, list_all: bool = True) -> None:
    """Share what this process makes from now on, and look there for what others have made.

    Parameters
    ----------
    uri, list_all
        As of `SharedStore`; None shares nothing.
    """
    if not _SHARED or (_SHARED[0].uri, _SHARED[0].list_all) != (uri, list_all):
        _SHARED[:] = [] if uri is None else [SharedStore.open(uri, list_all)]


def current() -> SharedStore | None:
    """Return what is shared, or None."""
    return _SHARED[0] if _SHARED else None


def fetched(kind: str, name: str, fresh: Path) -> str | None:
    """Bring a folder of the cache that another machine has made, if there is one.

    Parameters
    ----------
    fresh
        The empty folder to bring it into.

    Returns
    -------
    str or None
        The digest that its seal names; None, with the folder still empty, where there is none.
    """
    shared = current()
    if shared is None or PROOFS.get(kind) != SEAL:
        return None
    for variant in shared.variants(kind, name):
        if digest := sealed(shared, name, variant, fresh):
            return digest
        shared.report_damage(name, variant.number)
        shutil.rmtree(fresh)
        fresh.mkdir()
    return None


def sealed(shared: SharedStore, name: str, variant: Variant, fresh: Path) -> str | None:
    """Bring the files of an entry with a seal; return its digest, or None if it is damaged."""
    for file, stored in variant.files.items():
        shared.fetch(stored, fresh / file)
    seal = (fresh / SEAL).read_bytes()
    is_whole = digests.sha256(fresh / SEAL).startswith(variant.number)
    (fresh / SEAL).unlink()
    digest = seals.digest_of(seal, fresh) if is_whole else None
    return digest if digest is not None and digest.startswith(name) else None


def share(folder: Path) -> None:
    """Let other machines find a folder of the cache, unless they do; say that it is used."""
    shared, kind = current(), folder.parent.name
    if shared is None:
        return
    if shared.entries(kind).get(folder.name):
        shared.mark_used(kind, [folder.name])
        return
    files = {file.name: file for file in folder.iterdir() if not file.name.startswith(".")}
    shared.upload(kind, folder.name, files | {SEAL: seals.path(folder)})


def names(kind: str, refresh: bool = False) -> list[str]:
    """Return the names of the entries of a kind that other machines have made."""
    shared = current()
    return [] if shared is None else sorted(shared.entries(kind, refresh))
