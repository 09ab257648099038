"""Which objects a URI names now, and what they are called within the artifact."""

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from featurestore.errors import ArtifactError
from featurestore.io.objects.clouds import Cloud
from featurestore.io.objects.s3 import S3
from featurestore.io.objects.store import Store, StoredObject, translated

SIGNS = "*?["
SCHEMES: Mapping[str, Callable[[str], Store]] = {
    "s3": S3, "gs": Cloud, "az": Cloud, "abfs": Cloud, "abfss": Cloud,
}  # fmt: skip


@dataclass(frozen=True)
class Listing:
    """The objects behind a URI.

    Parameters
    ----------
    objects
        Each by its name: the path within the artifact, whose folders may be partitions.
    is_object
        Whether the URI names one object by its whole key.
    """

    objects: Mapping[str, StoredObject]
    is_object: bool


def connect(uri: str) -> Store:
    """Return the bucket that a URI lies in, connected as the environment says.

    Raises
    ------
    ArtifactError
        The library of its scheme is not installed, or the environment does not do.
    """
    scheme, _, place = uri.partition("://")
    return SCHEMES[scheme](f"{scheme}://{place.partition('/')[0]}")


def listed(store: Store, uri: str) -> Listing:
    """Return the objects behind a URI, at the cost of a listing.

    Parameters
    ----------
    uri
        ``s3://bucket/key`` of an object, a prefix or a glob. The key is taken as it is written.

    Raises
    ------
    ArtifactError
        There is none, two would have one name, or the storage refuses or does not answer.
    """
    key = uri.removeprefix(store.root).removeprefix("/")  # no URI: keys may hold ? and #
    glob = key[: _fixed(key)]
    with translated(uri, store.refusal):
        objects = [
            stored
            for stored in (store.list_key(key) if glob == key else store.list_prefix(glob))
            if not stored.key.endswith("/")  # a folder's mark
        ]
    base, chosen = _chosen(key, objects)
    if not chosen:
        raise ArtifactError(
            f"There is no object at {uri}",
            found=f"nothing in {store.root} by that key, prefix or glob",
            fix=f"correct the URI: {store.root}/file.parquet, {store.root}/folder or a glob",
        )
    return Listing(_named(base, chosen), [stored.key for stored in chosen] == [key])


def _fixed(key: str) -> int:
    """Return how many letters stand before the signs of a glob."""
    return min((key.find(sign) for sign in SIGNS if sign in key), default=len(key))


def _chosen(key: str, objects: Iterable[StoredObject]) -> tuple[str, list[StoredObject]]:
    """Return what names leave out of the keys, and the object, those below it, or a glob's."""
    by_key = {stored.key: stored for stored in objects}
    if key in by_key:  # though it may hold the signs of a glob
        return key[: key.rfind("/") + 1], [by_key[key]]
    below = key if not key or key.endswith("/") else key + "/"
    if inside := [stored for stored in by_key.values() if stored.key.startswith(below)]:
        return below, inside
    matches = [stored for stored in by_key.values() if fnmatch.fnmatchcase(stored.key, key)]
    return key[: key.rfind("/", 0, _fixed(key)) + 1], matches


def _named(base: str, objects: Iterable[StoredObject]) -> dict[str, StoredObject]:
    by_name: dict[str, StoredObject] = {}
    for stored in objects:
        parts = [part for part in stored.key.removeprefix(base).split("/") if part not in ("", ".")]
        if not parts or ".." in parts:
            raise ArtifactError(
                "An object's key leads out of its folder",
                found=stored.key,
                fix="rename the object",
            )
        other = by_name.setdefault("/".join(parts), stored)
        if other is not stored:
            raise _clash(other, stored)
    for name, stored in by_name.items():
        for end in (place for place, letter in enumerate(name) if letter == "/"):
            if name[:end] in by_name:
                raise _clash(by_name[name[:end]], stored)
    return dict(sorted(by_name.items()))


def _clash(one: StoredObject, other: StoredObject) -> ArtifactError:
    return ArtifactError(
        "Two objects cannot lie in one folder of files",
        found=f"{one.key} and {other.key}",
        fix="rename one of them, or name a key or glob that leaves one out",
    )
