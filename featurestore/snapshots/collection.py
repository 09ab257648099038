"""The snapshots on this machine: listed, looked through, collected."""

import json
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from featurestore.embeddings import parts as embedding_parts
from featurestore.embeddings.part import folder as parts_folder
from featurestore.errors import ArtifactError, FeatureStoreWarning
from featurestore.io import cache, garbage, seals
from featurestore.io.objects import fetching, shared
from featurestore.snapshots.layout import FORMAT, MANIFEST, MATRICES, SNAPSHOTS
from featurestore.snapshots.part_list import read_parts, remove_unnamed
from featurestore.snapshots.snapshot import Snapshot
from featurestore.snapshots.tags import tags

LISTING = pa.schema(
    {
        "snapshot": pa.string(),
        "tags": pa.list_(pa.string()),
        "kept": pa.int64(),
        "rows": pa.int64(),
        "parts": pa.int64(),
        "dim": pa.int64(),
        "storage": pa.string(),
        "bytes": pa.int64(),
        "embeddings": pa.int64(),
        "used": pa.string(),
        "in_use": pa.bool_(),
    }
)


def names() -> list[str]:
    """Return the names of the snapshots, the last used first."""
    return cache.names(SNAPSHOTS)


def opened(name: str) -> Snapshot:
    """Open a snapshot by its tag, its digest or the beginning of that.

    Raises
    ------
    ArtifactError
        No snapshot, or more than one, has a name that begins so; or it, or a part of its
        embeddings, is damaged.
    """
    full = full_name(name)
    if store := shared.current():
        store.mark_used(SNAPSHOTS, [full])
    entry = cache.open_entry(SNAPSHOTS, full)
    manifest = json.loads((entry.folder / MANIFEST).read_text())
    if fault := _earlier(manifest):
        raise ArtifactError(f"{entry.folder} cannot be used", found=fault, fix=cache.AGAIN)
    parts = read_parts(entry.folder, manifest)
    return Snapshot(
        entry, manifest, {prefix: embedding_parts.opened(each) for prefix, each in parts.items()}
    )


def full_name(name: str) -> str:
    """Return the name of a snapshot's folder by its tag, its digest or the beginning of that.

    Raises
    ------
    ArtifactError
        No snapshot, or more than one, has a name that begins so.
    """
    wanted = tags().get(name, name)[: cache.NAME_LENGTH]
    existing = dict.fromkeys([*names(), *shared.names(SNAPSHOTS, refresh=True)])
    candidates = [name for name in existing if name.startswith(wanted)]
    if len(candidates) != 1:
        named = [*tags(), *names()]
        raise ArtifactError(
            f"{len(candidates) or 'No'} snapshots have a name that begins with {name!r}",
            found=", ".join(named[:8]) or f"no snapshot in {cache.place(SNAPSHOTS, '')}",
            fix="name one of them; `featurestore snapshots` lists them",
        )
    return candidates[0]


def _manifest(name: str) -> dict[str, Any] | str:
    """Return the manifest of a snapshot, or why it cannot be read, in words."""
    folder = cache.place(SNAPSHOTS, name)
    wrong = seals.fault(folder, name, cache.NONE, only=[MANIFEST])
    if wrong:
        return wrong
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    return _earlier(manifest) or manifest


def _earlier(manifest: dict[str, Any]) -> str | None:
    """Return that a snapshot is of an earlier version, in words, if it is."""
    if manifest["format"] == FORMAT:
        return None
    return f"it is of format {manifest['format']}, today's is {FORMAT}"


def _manifests() -> dict[str, dict[str, Any]]:
    """Return the manifest of each sound snapshot by its name, the last used first."""
    manifests = {name: _manifest(name) for name in names()}
    return {name: one for name, one in manifests.items() if isinstance(one, dict)}


def damaged() -> Iterator[tuple[Path, str]]:
    """Read every byte of all that has a seal; set aside what is damaged, and yield it with why.

    Raises
    ------
    ArtifactError
        It is in use.
    """
    for folder in garbage.sealed():
        checks = fetching.checks_of(folder)
        look = partial(seals.fault, folder, folder.name, checks, wholly=True)
        wrong = look() and cache.set_aside(folder, look)
        if wrong:
            yield folder, wrong
    for name, wrong in embedding_parts.verify():
        yield parts_folder() / name, wrong


def listing() -> pa.Table:
    """Return the snapshots, the last used first.

    Columns ``snapshot, tags, kept`` (tiles), ``rows, parts, dim, storage, bytes`` (of its own),
    ``embeddings`` (bytes, of parts that snapshots share), ``used`` (UTC) and ``in_use``.
    """
    rows = []
    for name in names():
        folder, manifest = cache.place(SNAPSHOTS, name), _manifest(name)
        if isinstance(manifest, str):
            message = f"{folder} is damaged or of an earlier version ({manifest}): not listed"
            warnings.warn(message, FeatureStoreWarning, stacklevel=2)
            continue
        cohorts = manifest["cohorts"].values()
        parts = set().union(*read_parts(folder, manifest).values())
        rows.append(
            {
                "snapshot": name,
                "tags": [tag for tag, tagged in tags().items() if tagged == name],
                "kept": sum(part["funnel"][-1]["tiles"] for part in cohorts),
                "rows": sum(part["rows"] for part in cohorts),
                "parts": len(parts),
                "dim": next((part["dim"] for part in cohorts), None),
                "storage": manifest["rules"]["storage"],
                "bytes": garbage.size(folder),
                "embeddings": sum(part.values_bytes for part in parts),
                "used": datetime.fromtimestamp(cache.used(folder), UTC).isoformat(" ", "seconds"),
                "in_use": cache.in_use(folder),
            }
        )
    return pa.Table.from_pylist(rows, LISTING)


def collect(keep: int) -> list[Path]:
    """Remove all but the last used snapshots, and the embeddings that none needs any more.

    Parameters
    ----------
    keep
        How many stay. One that a process uses, or that has a tag, stays as well.

    Returns
    -------
    list of Path
        What went.
    """
    kept = [*list(_manifests())[:keep], *tags().values()]
    old = [cache.place(SNAPSHOTS, name) for name in names() if name not in kept]
    gone = [folder for folder in old if cache.remove(folder)]
    return gone + remove_unnamed() + garbage.collect(MATRICES, 0)
