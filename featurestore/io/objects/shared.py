"""What machines share: parts, snapshots and folds, in a folder or an object store.

Each machine keeps its own copies in its working folder. What one has made the others find by its
name, which its content decides. The file that makes it whole (a seal, the keys of a part) comes
last, and is written where it is not there yet. What comes back is compared before it is used.
"""

import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from featurestore.errors import ArtifactError, DamageWarning
from featurestore.io import seals
from featurestore.io.objects.folder import Folder
from featurestore.io.objects.listing import SCHEMES, connect
from featurestore.io.objects.stored import Store, Stored, translated

KINDS = ("snapshots", "folds")  # folders of the cache that are shared


@dataclass
class Shared:
    """A folder, or a prefix of a bucket.

    Parameters
    ----------
    uri
        ``s3://bucket/prefix``, or a path.
    store, prefix
        The bucket, connected, and what the keys begin with.
    """

    uri: str
    store: Store
    prefix: str
    _names: dict[str, dict[str, Stored]] = field(default_factory=dict)

    @classmethod
    def open(cls, uri: str) -> "Shared":
        """Connect to it.

        Raises
        ------
        ArtifactError
            The library of its scheme is not installed, or there is no such scheme.
        """
        scheme, sign, place = uri.partition("://")
        if not sign:
            return cls(uri, Folder(uri), "")
        if scheme not in SCHEMES:
            raise ArtifactError(
                f"No store is shared through {scheme}://",
                found=uri,
                fix=f"set store to a path, or to one of {', '.join(SCHEMES)}",
            )
        prefix = place.partition("/")[2].strip("/")
        return cls(uri, connect(uri), f"{prefix}/" if prefix else "")

    def files(self, kind: str, again: bool = False) -> Mapping[str, Stored]:
        """Return what there is of a kind, by its name; asked for once, and again on request."""
        if again or kind not in self._names:
            base = f"{self.prefix}{kind}/"
            with translated(self.uri, self.store.refusal):
                objects = list(self.store.beginning(base))
            names = {one.key.removeprefix(base): one for one in objects if one.key.startswith(base)}
            self._names[kind] = names
        return self._names[kind]

    def fetch(self, kind: str, name: str, to: Path) -> bool:
        """Bring a file; return whether there is one."""
        stored = self.files(kind).get(name) or self.files(kind, again=True).get(name)
        if stored is None:
            return False
        with translated(stored.uri, self.store.refusal), to.open("wb") as file:
            for chunk in self.store.read(stored, 0, stored.size):
                file.write(chunk)
        return True

    def send(self, kind: str, names: Mapping[str, Path]) -> None:
        """Write some files in their order, the last one where it is not there yet."""
        last = list(names)[-1]
        for name in names:
            with translated(self.uri, self.store.refusal):
                self.store.write(f"{self.prefix}{kind}/{name}", names[name], once=name == last)
        self._names.pop(kind, None)


_SHARED: list[Shared] = []


def use(uri: str | None) -> None:
    """Share what this process makes from now on, and look there for what others have made.

    Parameters
    ----------
    uri
        As of `Shared`; None shares nothing.
    """
    if not _SHARED or _SHARED[0].uri != uri:
        _SHARED[:] = [] if uri is None else [Shared.open(uri)]


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
    if shared is None or kind not in KINDS:
        return None
    seal = fresh.with_name(f"{fresh.name}{seals.SUFFIX}")
    try:
        if not shared.fetch(kind, f"{name}{seals.SUFFIX}", seal):
            return None
        begin = f"{name}/"
        for file in [file for file in shared.files(kind) if file.startswith(begin)]:
            to = fresh / file.removeprefix(begin)
            to.parent.mkdir(parents=True, exist_ok=True)
            shared.fetch(kind, file, to)
        digest = seals.digest_of(seal.read_bytes(), fresh)
    finally:
        seal.unlink(missing_ok=True)
    if digest is None:
        warnings.warn(
            f"{kind}/{name} is damaged in {shared.uri}: it is made again here, and stays there",
            DamageWarning,
            stacklevel=2,
        )
        shutil.rmtree(fresh)
        fresh.mkdir()
    return digest


def share(folder: Path) -> None:
    """Let other machines find a folder of the cache, unless they do."""
    shared, kind, seal = current(), folder.parent.name, seals.path(folder)
    if shared is None or kind not in KINDS or seal.name in shared.files(kind):
        return
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    names = {file.relative_to(folder.parent).as_posix(): file for file in files}
    shared.send(kind, names | {seal.name: seal})


def names(kind: str) -> list[str]:
    """Return the names of the folders of a kind that other machines have made."""
    shared = current()
    if shared is None:
        return []
    files = shared.files(kind, again=True)
    return sorted(f.removesuffix(seals.SUFFIX) for f in files if f.endswith(seals.SUFFIX))
