"""The snapshots on this machine: listed, looked through, collected."""

import json
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from featurestore.embeddings import convert
from featurestore.embeddings.matrix import EmbeddingMatrix
from featurestore.errors import ArtifactError, FeatureStoreWarning
from featurestore.io import cache, garbage, seals
from featurestore.snapshots.layout import MANIFEST, MATRICES, SHELF
from featurestore.snapshots.snapshot import Snapshot

LISTING = pa.schema(
    {
        "snapshot": pa.string(),
        "kept": pa.int64(),
        "rows": pa.int64(),
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
    return cache.names(SHELF)


def opened(name: str) -> Snapshot:
    """Open a snapshot by its name or the beginning of it.

    Raises
    ------
    ArtifactError
        No snapshot, or more than one, has a name that begins so.
    """
    there = [known for known in names() if known.startswith(name)]
    if len(there) != 1:
        raise ArtifactError(
            f"{len(there) or 'No'} snapshots have a name that begins with {name!r}",
            found=", ".join(names()[:8]) or f"no snapshot in {cache.place(SHELF, '')}",
            fix="name one of them; `featurestore snapshots` lists them",
        )

    held = cache.found(SHELF, there[0])
    manifest = json.loads((held.folder / MANIFEST).read_text())
    matrices = {}
    for cohort, said in manifest["cohorts"].items():
        own = cache.found(MATRICES, said["matrix"], convert.CHECKS)
        matrices[cohort.removesuffix("tiles")] = (EmbeddingMatrix.open(own.folder), own)
    return Snapshot(held, manifest, matrices)


def _manifest(name: str) -> dict[str, Any] | str:
    """Return the manifest of a snapshot, or why it cannot be read, in words."""
    folder = cache.place(SHELF, name)
    wrong = seals.fault(folder, name, cache.NONE, only=[MANIFEST])
    return wrong or json.loads((folder / MANIFEST).read_text())


def _manifests() -> dict[str, dict[str, Any]]:
    """Return the manifest of each sound snapshot by its name, the last used first."""
    found = {name: _manifest(name) for name in names()}
    return {name: one for name, one in found.items() if isinstance(one, dict)}


def damaged() -> Iterator[tuple[Path, str]]:
    """Read every byte of all that has a seal; set aside what is damaged, and yield it with why.

    Raises
    ------
    ArtifactError
        It is in use.
    """
    for folder in garbage.sealed():
        checks = convert.CHECKS if folder.parent.name == MATRICES else cache.NONE
        look = partial(seals.fault, folder, folder.name, checks, wholly=True)
        wrong = look() and cache.set_aside(folder, look)
        if wrong:
            yield folder, wrong


def listing() -> pa.Table:
    """Return the snapshots, the last used first.

    Columns ``snapshot, kept`` (tiles), ``rows, dim, storage, bytes`` (of its own), ``embeddings``
    (bytes, shared by snapshots of one artifact), ``used`` (UTC) and ``in_use``.
    """
    rows = []
    for name in names():
        folder, manifest = cache.place(SHELF, name), _manifest(name)
        if isinstance(manifest, str):
            said = f"{folder} is damaged or of an earlier version ({manifest}): not listed"
            warnings.warn(said, FeatureStoreWarning, stacklevel=2)
            continue
        cohorts = manifest["cohorts"].values()
        shared = {cache.place(MATRICES, said["matrix"]) for said in cohorts}
        rows.append(
            {
                "snapshot": name,
                "kept": sum(said["funnel"][-1]["tiles"] for said in cohorts),
                "rows": sum(said["rows"] for said in cohorts),
                "dim": next((said["dim"] for said in cohorts), None),
                "storage": manifest["rules"]["storage"],
                "bytes": garbage.size(folder),
                "embeddings": sum(garbage.size(place) for place in shared),
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
        How many stay. One that a process uses stays as well.

    Returns
    -------
    list of Path
        What went.
    """
    kept = list(_manifests())[:keep]
    old = [cache.place(SHELF, name) for name in names() if name not in kept]
    gone = [folder for folder in old if cache.remove(folder)]
    cohorts = [manifest["cohorts"] for manifest in _manifests().values()]
    needed = {said["matrix"] for cohort in cohorts for said in cohort.values()}
    spare = [cache.place(MATRICES, n) for n in cache.names(MATRICES) if n not in needed]
    return gone + [folder for folder in spare if cache.remove(folder)]
