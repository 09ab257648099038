"""What machines share: parts, snapshots and folds, in a folder or an object store.

Each machine keeps its own copies in its working folder. What one has made the others find by its
name, which its content decides. A thing lies in a folder ``KIND/NAME-VARIANT/`` with a file that
makes it whole (a seal, the keys of a part): it comes last, proves the others, and names the variant
by the beginning of its SHA-256, so that two machines that make one thing at once never mix files.
"""

import re
import shutil
import warnings
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from featurestore.errors import ArtifactError, DamageWarning
from featurestore.io import digests, seals
from featurestore.io.objects.folder import Folder
from featurestore.io.objects.listing import SCHEMES, connect
from featurestore.io.objects.stored import Store, Stored, translated

SEAL, PART_KEYS, PART_VALUES = "seal", "keys.parquet", "values.npy"
PROOFS = {"snapshots": SEAL, "folds": SEAL, "parts": PART_KEYS}
"""By kind, the file that makes a thing whole."""
PLACE = re.compile(r"([0-9a-f]{16,64})-([0-9a-f]{16})/(\w[\w.-]*)", re.ASCII)

Variant = tuple[str, Mapping[str, Stored]]
"""The beginning of the SHA-256 of what makes it whole, and its files by name."""


@dataclass
class Shared:
    """A folder, or a prefix of a bucket.

    Parameters
    ----------
    uri
        ``s3://bucket/prefix``, or a path.
    store, prefix
        The bucket, connected, and what the keys begin with.
    listed
        Whether what is there is listed once, or asked for by each name.
    """

    uri: str
    store: Store
    prefix: str
    listed: bool = True
    _things: dict[str, dict[str, list[Variant]]] = field(default_factory=dict)
    _damaged: set[tuple[str, str]] = field(default_factory=set)

    @classmethod
    def open(cls, uri: str, listed: bool = True) -> "Shared":
        """Connect to it.

        Raises
        ------
        ArtifactError
            The library of its scheme is not installed, or there is no such scheme.
        """
        scheme, sign, place = uri.partition("://")
        if not sign:
            return cls(uri, Folder(uri), "", listed)
        if scheme not in SCHEMES:
            raise ArtifactError(
                f"No store is shared through {scheme}://",
                found=uri,
                fix=f"set store to a path, or to one of {', '.join(SCHEMES)}",
            )
        prefix = place.partition("/")[2].strip("/")
        return cls(uri, connect(uri), f"{prefix}/" if prefix else "", listed)

    def things(self, kind: str, again: bool = False) -> Mapping[str, list[Variant]]:
        """Return the whole variants of each thing of a kind; listed once, and again on request."""
        if again or kind not in self._things:
            self._things[kind] = self._whole(kind, "")
        return self._things[kind]

    def _whole(self, kind: str, beginning: str) -> dict[str, list[Variant]]:
        """Return the whole variants of the things whose names begin so, and maybe of others."""
        base = f"{self.prefix}{kind}/"
        with translated(self.uri, self.store.refusal):
            objects = list(self.store.beginning(f"{base}{beginning}"))
        files: dict[tuple[str, str], dict[str, Stored]] = defaultdict(dict)
        for one in objects:
            # Whoever can write there names no file outside of the folder that it comes into.
            if one.key.startswith(base) and (place := PLACE.fullmatch(one.key[len(base) :])):
                files[place[1], place[2]][place[3]] = one
        things: dict[str, list[Variant]] = defaultdict(list)
        for (name, variant), stored in sorted(files.items()):
            if PROOFS[kind] in stored:
                things[name].append((variant, stored))
        return dict(things)

    def variants(self, kind: str, name: str) -> list[Variant]:
        """Return the variants of a thing that were not found damaged."""
        things = self.things(kind) if self.listed else self._whole(kind, f"{name}-")
        return [one for one in things.get(name, []) if (name, one[0]) not in self._damaged]

    def fetch(self, stored: Stored, to: Path) -> Path:
        """Bring a file; return where it is."""
        with translated(stored.uri, self.store.refusal), to.open("wb") as file:
            for chunk in self.store.read(stored, 0, stored.size):
                file.write(chunk)
        return to

    def damaged(self, name: str, variant: str) -> None:
        """Use a variant no more, and say so: it has to be removed where it lies."""
        self._damaged.add((name, variant))
        warnings.warn(
            f"{name}-{variant} is damaged in {self.uri}: remove it there; it is not used",
            DamageWarning,
            stacklevel=3,
        )

    def send(self, kind: str, name: str, files: Mapping[str, Path]) -> None:
        """Write the files of a thing, those that are not there yet, what makes it whole last."""
        proof = PROOFS[kind]
        variant = digests.sha256(files[proof])[:16]
        if variant in dict(self._whole(kind, f"{name}-").get(name, [])):
            return
        for file in [*(file for file in files if file != proof), proof]:
            key = f"{self.prefix}{kind}/{name}-{variant}/{file}"
            with translated(self.uri, self.store.refusal):
                self.store.write(key, files[file], once=file == proof)
        self._things.pop(kind, None)


_SHARED: list[Shared] = []


def use(uri: str | None, listed: bool = True) -> None:
    """Share what this process makes from now on, and look there for what others have made.

    Parameters
    ----------
    uri, listed
        As of `Shared`; None shares nothing.
    """
    if not _SHARED or (_SHARED[0].uri, _SHARED[0].listed) != (uri, listed):
        _SHARED[:] = [] if uri is None else [Shared.open(uri, listed)]


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
    for variant, files in shared.variants(kind, name):
        for file, stored in files.items():
            shared.fetch(stored, fresh / file)
        seal = (fresh / SEAL).read_bytes()
        whole = digests.sha256(fresh / SEAL).startswith(variant)
        (fresh / SEAL).unlink()
        digest = seals.digest_of(seal, fresh) if whole else None
        if digest is not None and digest.startswith(name):
            return digest
        shared.damaged(name, variant)
        shutil.rmtree(fresh)
        fresh.mkdir()
    return None


def share(folder: Path) -> None:
    """Let other machines find a folder of the cache, unless they do."""
    shared, kind = current(), folder.parent.name
    if shared is not None and not shared.things(kind).get(folder.name):
        files = {file.name: file for file in folder.iterdir() if not file.name.startswith(".")}
        shared.send(kind, folder.name, files | {SEAL: seals.path(folder)})


def names(kind: str, again: bool = False) -> list[str]:
    """Return the names of the things of a kind that other machines have made."""
    shared = current()
    return [] if shared is None else sorted(shared.things(kind, again))
