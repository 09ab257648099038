"""What machines share: parts, snapshots and folds, in a folder or an object store.

Each machine keeps its own copies in its working folder. What one has made the others find by its
name, which its content decides. A thing lies in a folder ``KIND/NAME/VARIANT/`` with a file that
makes it whole (a seal, the keys of a part): it comes last, proves the others, and names the variant
by the beginning of its SHA-256, so that two machines that make one thing at once never mix files.
Who uses a thing that lies there for long says so in a file beside (`USED`).
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
from featurestore.io.objects.stored import Store, Stored, translated

SEAL, PART_KEYS, PART_VALUES = "seal", "keys.parquet", "values.npy"
PROOFS = {"snapshots": SEAL, "folds": SEAL, "parts": PART_KEYS}
"""By kind, the file that makes a thing whole."""
USED = "used"
SENT = "sent"  # what executors give to a driver, until it has fetched it
PLACE = re.compile(r"([0-9a-f]{16,64})/([0-9a-f]{16})/(\w[\w.-]*)", re.ASCII)
GRACE = 24 * 3600.0
"""Seconds for which a thing stays that no snapshot names: who has just used it may be about to
share a snapshot that does. No run needs longer for that."""
AT_ONCE = 8  # things that are marked as used


class Variant(NamedTuple):
    """What one machine, or several alike, have written of a thing.

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
    files: Mapping[str, Stored]
    used: float


@dataclass
class Shared:
    """A folder, or a prefix of a bucket.

    Parameters
    ----------
    uri
        ``s3://bucket/prefix``, or a path.
    store, prefix
        The bucket, connected, and what the keys begin with.
    at_once
        Whether what is there is listed once, or asked for by each name.
    """

    uri: str
    store: Store
    prefix: str
    at_once: bool = True
    _things: dict[str, dict[str, list[Variant]]] = field(default_factory=dict)
    _damaged: set[tuple[str, str]] = field(default_factory=set)

    @classmethod
    def open(cls, uri: str, at_once: bool = True) -> "Shared":
        """Connect to it.

        Raises
        ------
        ArtifactError
            The library of its scheme is not installed, or there is no such scheme.
        """
        scheme, sign, place = uri.partition("://")
        if not sign:
            return cls(uri, Folder(uri), "", at_once)
        if scheme not in SCHEMES:
            raise ArtifactError(
                f"No store is shared through {scheme}://",
                found=uri,
                fix=f"set store to a path, or to one of {', '.join(SCHEMES)}",
            )
        prefix = place.partition("/")[2].strip("/")
        return cls(uri, connect(uri), f"{prefix}/" if prefix else "", at_once)

    def listed(self, kind: str, beginning: str = "") -> dict[str, list[Variant]]:
        """Return the variants of each thing of a kind, those that are not whole as well.

        Parameters
        ----------
        beginning
            What names begin with; a store may return others too.
        """
        files: dict[tuple[str, str], dict[str, Stored]] = defaultdict(dict)
        for key, stored in self.objects(kind, beginning).items():
            # Whoever can write there names no file outside of the folder that it comes into.
            if place := PLACE.fullmatch(key):
                files[place[1], place[2]][place[3]] = stored
        things: dict[str, list[Variant]] = defaultdict(list)
        for (name, number), by_name in sorted(files.items()):
            used = max(stored.modified for stored in by_name.values())
            by_name.pop(USED, None)
            things[name].append(Variant(number, by_name, used))
        return dict(things)

    def objects(self, kind: str, beginning: str = "") -> dict[str, Stored]:
        """Return the objects of a kind by what their keys end in, see `listed`."""
        base = f"{self.prefix}{kind}/"
        with translated(self.uri, self.store.refusal):
            objects = list(self.store.beginning(f"{base}{beginning}"))
        return {one.key.removeprefix(base): one for one in objects if one.key.startswith(base)}

    def things(self, kind: str, again: bool = False) -> Mapping[str, list[Variant]]:
        """Return the whole variants of each thing of a kind; listed once, and again on request."""
        if again or kind not in self._things:
            self._things[kind] = self._whole(kind)
        return self._things[kind]

    def _whole(self, kind: str, beginning: str = "") -> dict[str, list[Variant]]:
        """Return the whole variants of the things whose names begin so, and maybe of others."""
        whole = {
            name: [variant for variant in variants if PROOFS[kind] in variant.files]
            for name, variants in self.listed(kind, beginning).items()
        }
        return {name: variants for name, variants in whole.items() if variants}

    def variants(self, kind: str, name: str) -> list[Variant]:
        """Return the variants of a thing that were not found damaged."""
        things = self.things(kind) if self.at_once else self._whole(kind, f"{name}/")
        variants = things.get(name, [])
        return [one for one in variants if (name, one.number) not in self._damaged]

    def fetch(self, stored: Stored, to: Path) -> Path:
        """Bring a file; return where it is."""
        with translated(stored.uri, self.store.refusal), to.open("wb") as file:
            for chunk in self.store.read(stored, 0, stored.size):
                file.write(chunk)
        return to

    def read(self, stored: Stored, most: int) -> bytes:
        """Return the beginning of a file, at most so many bytes."""
        with translated(stored.uri, self.store.refusal):
            return b"".join(self.store.read(stored, 0, min(stored.size, most)))

    def damaged(self, name: str, variant: str) -> None:
        """Use a variant no more, and say so."""
        self._damaged.add((name, variant))
        warnings.warn(
            f"{place(name, variant)} is damaged in {self.uri} and is not used: "
            f"`featurestore verify --store {self.uri} --repair` removes it there",
            DamageWarning,
            stacklevel=3,
        )

    def send(self, kind: str, name: str, files: Mapping[str, Path]) -> None:
        """Write the files of a thing, those that are not there yet, what makes it whole last."""
        proof = PROOFS[kind]
        number = digests.sha256(files[proof])[:16]
        if number in [one.number for one in self._whole(kind, f"{name}/").get(name, [])]:
            return
        for file in [*(file for file in files if file != proof), proof]:
            self.write(f"{kind}/{place(name, number)}/{file}", files[file], once=file == proof)
        self._things.pop(kind, None)

    def write(self, key: str, file: Path, once: bool = False) -> None:
        """Write a file under a key; with ``once`` one that is there already stays."""
        with translated(self.uri, self.store.refusal):
            self.store.write(f"{self.prefix}{key}", file, once)

    def keep(self, kind: str, names: Iterable[str]) -> None:
        """Say of some things that they are used, those that have lain there for long."""
        before = time.time() - GRACE / 2
        keys = [
            f"{kind}/{place(name, variant.number)}/{USED}"
            for name in names
            for variant in self.things(kind).get(name, [])
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
        self._things.pop(kind, None)

    def remove(self, kind: str, name: str, variant: Variant, before: float | None = None) -> bool:
        """Remove a variant of a thing: first what makes it whole, so that nobody sees a half.

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
            files = [one for one in self.store.beginning(key) if one.key.startswith(key)]
        if before is not None and any(one.modified > before for one in files):
            return False
        self.remove_files(sorted(files, key=lambda one: one.key != f"{key}{proof}"))
        self._things.pop(kind, None)
        return True

    def remove_files(self, files: Iterable[Stored]) -> None:
        """Remove some files, one after the other."""
        with translated(self.uri, self.store.refusal):
            for stored in files:
                self.store.remove(stored)


def place(name: str, variant: str) -> str:
    """Return the folder of a variant of a thing, among those of its kind.

    The stores of Google and Azure are asked for whole folders: each thing has one.
    """
    return f"{name}/{variant}"


_SHARED: list[Shared] = []


def use(uri: str | None, at_once: bool = True) -> None:
    """Share what this process makes from now on, and look there for what others have made.

    Parameters
    ----------
    uri, at_once
        As of `Shared`; None shares nothing.
    """
    if not _SHARED or (_SHARED[0].uri, _SHARED[0].at_once) != (uri, at_once):
        _SHARED[:] = [] if uri is None else [Shared.open(uri, at_once)]


def current() -> Shared | None:
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
        shared.damaged(name, variant.number)
        shutil.rmtree(fresh)
        fresh.mkdir()
    return None


def sealed(shared: Shared, name: str, variant: Variant, fresh: Path) -> str | None:
    """Bring the files of a thing with a seal; return its digest, or None if it is damaged."""
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
    if shared.things(kind).get(folder.name):
        shared.keep(kind, [folder.name])
        return
    files = {file.name: file for file in folder.iterdir() if not file.name.startswith(".")}
    shared.send(kind, folder.name, files | {SEAL: seals.path(folder)})


def names(kind: str, again: bool = False) -> list[str]:
    """Return the names of the things of a kind that other machines have made."""
    shared = current()
    return [] if shared is None else sorted(shared.things(kind, again))
