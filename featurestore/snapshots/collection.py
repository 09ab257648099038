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
from featurestore.snapshots.layout import MANIFEST, MATRICES, SNAPSHOTS
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
    return cache.names(SNAPSHOTS)


def opened(name: str) -> Snapshot:
    """Open a snapshot by its name or the beginning of it.

    Raises
    ------
    ArtifactError
        No snapshot, or more than one, has a name that begins so.
    """
    candidates = [existing for existing in names() if existing.startswith(name)]
    if len(candidates) != 1:
        raise ArtifactError(
            f"{len(candidates) or 'No'} snapshots have a name that begins with {name!r}",
            found=", ".join(names()[:8]) or f"no snapshot in {cache.place(SNAPSHOTS, '')}",
            fix="name one of them; `featurestore snapshots` lists them",
        )

    entry = cache.open_entry(SNAPSHOTS, candidates[0])
    manifest = json.loads((entry.folder / MANIFEST).read_text())
    matrices = {}
    for cohort, part in manifest["cohorts"].items():
        matrix_entry = cache.open_entry(MATRICES, part["matrix"], convert.CHECKS)
        matrices[cohort.removesuffix("tiles")] = (
            EmbeddingMatrix.open(matrix_entry.folder),
            matrix_entry,
        )
    return Snapshot(entry, manifest, matrices)


def _manifest(name: str) -> dict[str, Any] | str:
    """Return the manifest of a snapshot, or why it cannot be read, in words."""
    folder = cache.place(SNAPSHOTS, name)
    wrong = seals.fault(folder, name, cache.NONE, only=[MANIFEST])
    return wrong or json.loads((folder / MANIFEST).read_text())


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
        folder, manifest = cache.place(SNAPSHOTS, name), _manifest(name)
        if isinstance(manifest, str):
            message = f"{folder} is damaged or of an earlier version ({manifest}): not listed"
            warnings.warn(message, FeatureStoreWarning, stacklevel=2)
            continue
        cohorts = manifest["cohorts"].values()
        shared = {cache.place(MATRICES, part["matrix"]) for part in cohorts}
        rows.append(
            {
                "snapshot": name,
                "kept": sum(part["funnel"][-1]["tiles"] for part in cohorts),
                "rows": sum(part["rows"] for part in cohorts),
                "dim": next((part["dim"] for part in cohorts), None),
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
    old = [cache.place(SNAPSHOTS, name) for name in names() if name not in kept]
    gone = [folder for folder in old if cache.remove(folder)]
    cohorts = [manifest["cohorts"] for manifest in _manifests().values()]
    needed = {part["matrix"] for cohort in cohorts for part in cohort.values()}
    spare = [cache.place(MATRICES, n) for n in cache.names(MATRICES) if n not in needed]
    return gone + [folder for folder in spare if cache.remove(folder)]
