"""Snapshots: a training set on disk, named by all that determines it.

A snapshot holds the fate of every tile (``fates.parquet``, ``test_fates.parquet``: labels, folds,
reasons, and the row of each embedding), the slides, the assigned folds and a manifest. The
embeddings lie beside it as a matrix of the whole artifact (`featurestore.matrix`), shared by every
snapshot of that artifact.
"""

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore import (
    assignment,
    backend,
    check,
    columns,
    contract,
    digests,
    guard,
    matrix,
    meaning,
    seals,
    shelf,
)
from featurestore.classes import ClassSpec, class_names, class_specs
from featurestore.errors import ArtifactError, EmptyViewError, FeatureStoreWarning
from featurestore.folds import KEY, Strategy, check_fold, imbalances, shared_groups, split_view
from featurestore.guard import Finding
from featurestore.joins import look_up
from featurestore.matrix import Matrix
from featurestore.progress import Rows
from featurestore.spec import TileSet
from featurestore.store import FeatureStore

SHELF, MATRICES = "snapshots", "matrices"
FORMAT = 3  # of the folder
MANIFEST = "manifest.json"
SLIDES = "slides.parquet"
VIEWS = (
    "balance", "batches", "classes", "folds", "funnel", "guard", "joins", "labels", "parquet",
    "parquet_table", "precision", "store", "thresholds",
)  # fmt: skip
"""The files whose code decides what a snapshot holds."""
RULES = (*assignment.RULES, "storage")
COMPARED = 1024  # embeddings held in memory at a time, to compare them

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

Matrices = dict[str, tuple[Matrix, shelf.Held]]
"""By the prefix of a cohort."""


@dataclass(frozen=True)
class Snapshot:
    """A training set that is whole, and that nobody removes as long as this object lives.

    Parameters
    ----------
    held
        Its folder.
    manifest
        What determined it and what it holds, see `write`.
    matrices
        Embeddings of the training and of the test tiles, by prefix: ``""`` and ``"test_"``.
    """

    held: shelf.Held
    manifest: dict[str, Any]
    matrices: Matrices

    @property
    def digest(self) -> str:
        """SHA-256 of all that determines the content."""
        return self.manifest["digest"]

    @property
    def content(self) -> str:
        """SHA-256 of the fates: equal where the rows are, however they came about."""
        return _digest({name: said["content"] for name, said in self.manifest["cohorts"].items()})

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.held.folder

    def file(self, prefix: str = "") -> Path:
        """Return the Parquet file with the fates of the training or test tiles."""
        return self.folder / f"{prefix}fates.parquet"

    def fates(self, prefix: str = "") -> ir.Table:
        """Return the fates of the training or test tiles, each with its ``row``."""
        self._need(prefix)
        return backend.read_parquet(backend.connect(), [self.file(prefix)])

    @property
    def classes(self) -> tuple[ClassSpec, ...]:
        """The classes of the training tiles, in the order of their columns."""
        rules = self.manifest["rules"]
        names = class_names(self.fates().columns)
        return class_specs(names, rules["class_indices"] or {}, rules["thresholds"] or {})

    def _need(self, prefix: str) -> None:
        if prefix not in self.matrices:
            name = prefix + "tiles"
            raise ArtifactError(
                f"This needs the artifact {name}, and none is configured",
                found=f"data.{name} is not set",
                fix=f"set data.{name} to a URI, for example data.{name}=runs:/RUN/{name}",
            )

    def fit_set(self, fold: int, more: Sequence[str] = ()) -> TileSet:
        """Return the training and validation tiles of a fold, with more columns.

        Raises
        ------
        FoldError
            There is no such fold.
        EmptyViewError
            One of the two sides has no tile.
        SchemaError
            Neither tiles nor slides have a column that is asked for.
        """
        view = self.split(fold)
        tiles = self._tile_set("", view.filter(view.dropped_by.isnull()), more)
        sides = tiles.keys["split"].value_counts().to_pylist()
        if len(sides) < 2:
            raise EmptyViewError(
                f"Fold {fold} leaves one side of the split without a tile",
                found=", ".join(f"{side['counts']:,} {side['values']}" for side in sides) or "none",
                fix="choose another fold, or loosen the thresholds",
            )
        return tiles

    def split(self, fold: int) -> ir.Table:
        """Return the fates with ``split``: train or validation (null for a dropped tile)."""
        fates = self.fates()
        check_fold(fold, self.manifest["folds"])
        return split_view(fates, fold)

    def fold_set(self, more: Sequence[str] = ()) -> TileSet:
        """Return all kept training tiles, each with its ``fold`` (``split`` is ``train``)."""
        kept = guard.kept(self.fates()).mutate(split=ibis.literal("train"))
        return self._tile_set("", kept, more, "fold")

    def test_set(self, more: Sequence[str] = ()) -> TileSet:
        """Return the held-out tiles that survive the same rules (``split`` is ``test``)."""
        kept = guard.kept(self.fates("test_"))
        return self._tile_set("test_", kept.mutate(split=ibis.literal("test")), more)

    def _tile_set(self, prefix: str, view: ir.Table, more: Sequence[str], *own: str) -> TileSet:
        file = self.folder / SLIDES
        slides = backend.read_parquet(view.get_backend(), [file]) if file.exists() else None
        view = columns.with_columns(view, slides, more)
        return TileSet(_chosen(view, *own, *more), self.matrices[prefix][0])

    def shared(self, fold: int) -> dict[str, int]:
        """Count the slides, and the fold groups, on both sides of a fold's split."""
        split = self.split(fold)
        groups = dict.fromkeys(["slide_id", self.manifest["rules"]["kfold_group"]])
        with backend.translated():
            return {
                group: int(shared_groups(split, group).count().to_pyarrow().as_py())
                for group in groups
                if group in split.columns
            }

    @property
    def findings(self) -> list[Finding]:
        """What the guard found when the snapshot was written."""
        return [Finding(**row) for row in self.manifest["guard"]]

    def keep_folds(self) -> str | None:
        """Log the assigned folds as an artifact with a run of its own; return its URI.

        None where the tiles bring their folds.
        """
        file = self.folder / assignment.FILE
        if not file.exists():
            return None
        return assignment.kept(pq.read_table(file), self.manifest["inputs"]["folds"])


def _chosen(view: ir.Table, *more: str) -> pa.Table:
    """Return the keys of a tile set, in order."""
    chosen = view.select(*KEY, view.target.cast("int64").name("target"), "split", "row", *more)
    with backend.translated():
        return chosen.order_by(list(KEY)).to_pyarrow()


# -- what determines it ---------------------------------------------------------------------------


def inputs(store: FeatureStore) -> dict[str, str | None]:
    """Return the digests of the artifacts that a snapshot is made of, and of the views' code."""
    spec = store.spec
    named = {"tiles": spec.tiles, "test_tiles": spec.test_tiles, "slides": spec.slides}
    found: dict[str, str | None] = {
        name: digests.digest(store.dataset(name).named, remember=False) if uri else None
        for name, uri in named.items()
    }
    for prefix in prefixes(store):
        name = prefix + "embeddings"
        found[name] = matrix.content(
            digests.digest(store.dataset(name).named, remember=False), spec.storage
        )
    if spec.tiles:
        found["folds"] = assignment.content(spec, store.dataset("tiles").named)
    return found | {"views": meaning.code(*VIEWS)}


def prefixes(store: FeatureStore) -> list[str]:
    """Return the prefixes of the cohorts that a store has: ``""``, ``"test_"``."""
    cohorts = {"": store.spec.tiles, "test_": store.spec.test_tiles}
    return [prefix for prefix, uri in cohorts.items() if uri]


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=dict).encode()).hexdigest()


# -- how it comes about ---------------------------------------------------------------------------


def materialise(store: FeatureStore, rows: Rows | None = None, fold: int | None = None) -> Snapshot:
    """Return the snapshot of a store's spec, written on its first use.

    Parameters
    ----------
    store
        Views, rules and artifacts.
    rows
        Shows the rows of embeddings that are converted.
    fold
        A fold that must be there, or nothing is written.

    Raises
    ------
    FeatureStoreError
        Whatever the contract, the rules or the disk refuse; nothing is left half written.
    """
    spec = store.spec
    if not prefixes(store):
        raise ArtifactError(
            "There are no tiles to make a training set of",
            found="neither data.tiles nor data.test_tiles is set",
            fix="set one of them to a URI, for example data.tiles=runs:/RUN/tiles",
        )
    rules = {name: getattr(spec, name) for name in RULES}
    content = {"format": FORMAT, "inputs": inputs(store), "rules": rules}
    store.confirm()  # what it remembers is of these files, or nobody may call it by their digest
    digest = _digest(content)

    def build(folder: Path) -> None:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always", FeatureStoreWarning)
            for prefix in prefixes(store):  # cheap refusals before the long conversion
                store.survivors(prefix)
            if fold is not None:
                check_fold(fold, store.folds())
            for found in check.warnings(store):
                said = f"{found.wrong}: {found.found}"
                warnings.warn(said, FeatureStoreWarning, stacklevel=2)
            findings = watch(store) if spec.tiles else []
            guard.refuse(findings, spec.leakage)
            held = matrices(store, rows)
            whole = content | {"digest": digest} | write(store, folder, held, findings)
            store.confirm()
        whole["warnings"] = [str(w.message) for w in heard if w.category is FeatureStoreWarning]
        (folder / MANIFEST).write_text(json.dumps(whole, indent=1, default=dict))

    held = shelf.held(SHELF, digest, build)
    store.sources()  # remembers digests: a refusal would have written nothing
    manifest = json.loads((held.folder / MANIFEST).read_text())
    for said in manifest["warnings"]:
        warnings.warn(said, FeatureStoreWarning, stacklevel=2)
    made = Snapshot(held, manifest, matrices(store, rows))
    store.confirm()
    return made


def matrices(store: FeatureStore, rows: Rows | None = None) -> Matrices:
    """Return the embeddings of each cohort, converted on their first use."""
    return {prefix: embeddings(store, prefix, rows) for prefix in prefixes(store)}


def embeddings(
    store: FeatureStore, prefix: str, rows: Rows | None = None
) -> tuple[Matrix, shelf.Held]:
    """Return the embeddings of the training or test tiles, converted on their first use."""
    name = prefix + "embeddings"
    dataset, storage = store.dataset(name), store.spec.storage

    def build(folder: Path) -> None:
        dim = contract.dimension(store.view(name))
        shown = rows or Rows(None)
        total = sum(fragment.rows for fragment in dataset.filled)
        with shown.counting(f"embeddings to {storage}", total) as advance:
            matrix.convert(dataset.filled, dim, storage, folder, advance, store.threads)
        store.confirm()

    digest = matrix.content(digests.digest(dataset.named, remember=False), storage)
    held = shelf.held(MATRICES, digest, build, matrix.CHECKS)
    return Matrix.open(held.folder), held


def watch(store: FeatureStore) -> list[Finding]:
    """Run those of the guard's checks that read no embedding."""
    spec, fates = store.spec, store.view("fates")
    grouped = spec.kfold_strategy == "stratified_group"
    groups = [name for name in ("slide_id", "patient_id") if name in fates.columns]
    found: list[Finding] = []

    def look(check: str, promised: bool, offenders: ir.Table) -> None:
        with backend.translated():
            found.append(guard.finding(check, promised, offenders.to_pyarrow()))

    for group in dict.fromkeys([*groups, *([spec.kfold_group] if grouped else [])]):
        promised = grouped and group == spec.kfold_group
        look(f"values of {group} in several folds", promised, guard.spread_view(fates, group))
    slides = store.view("slides") if spec.slides else None
    if slides is not None and set(contract.EXTENTS) <= set(slides.columns):
        overlaps = guard.overlap_view(fates, slides)
        look("overlapping tiles of one slide in different folds", grouped, overlaps)
    if spec.test_tiles:
        test = store.view("test_fates")
        for group in (name for name in groups if name in test.columns):
            promised = grouped and group in ("slide_id", spec.kfold_group)
            common = guard.common_view(fates, test, group)
            look(f"values of {group} among both training and test tiles", promised, common)
    return found


def write(
    store: FeatureStore, folder: Path, held: Matrices, findings: list[Finding]
) -> dict[str, Any]:
    """Write the fates of each cohort; return what a manifest says of them."""
    said: dict[str, Any] = {
        "cohorts": {}, "folds": [], "labels": [], "imbalance": {}, "guard": []
    }  # fmt: skip
    for prefix, (own, _) in held.items():
        fates = _here(store, prefix + "fates")
        rows = backend.read_parquet(fates.get_backend(), [own.keys])
        placed = look_up(fates, rows, KEY, "row", "content").order_by(list(KEY))
        backend.write_parquet(placed, folder / f"{prefix}fates.parquet")
        file = folder / f"{prefix}fates.parquet"
        said["cohorts"][prefix + "tiles"] = {
            "funnel": store.funnel(prefix),
            "rows": pq.read_metadata(file).num_rows,
            "content": meaning.rows(file),
            "matrix": own.folder.name,
            "dim": own.dim,
        }
    if store.spec.slides:
        backend.write_parquet(_here(store, "slides"), folder / SLIDES)
    if "" in held:
        said["folds"] = store.folds()
        said["labels"] = store.label_distribution().to_pylist()
        if (folds := store.fold_table) is not None:
            pq.write_table(folds, folder / assignment.FILE)
            said["imbalance"] = imbalances(folds)
        findings = [*findings, _twins(store.spec.kfold_strategy, folder, held)]
        said["guard"] = [finding.as_dict() for finding in findings]
    return said


def _here(store: FeatureStore, name: str) -> ir.Table:
    """Return a view on this machine, where the embeddings are, whichever engine made it."""
    if store.spec.backend == "duckdb":
        return store.view(name)
    with backend.translated():
        return backend.register(backend.connect(), name, store.view(name).to_pyarrow())


def _twins(strategy: Strategy, folder: Path, held: Matrices) -> Finding:
    """Look for one embedding under two keys across the folds and the test set."""
    here, sides = backend.connect(), []
    for prefix in held:
        fates = backend.read_parquet(here, [folder / f"{prefix}fates.parquet"])
        side = ibis.literal("test") if prefix else fates.fold.cast("string")
        sides.append(guard.kept(fates).select(*KEY, "row", "content", side=side))
    with backend.translated():
        twins = guard.twin_view(ibis.union(*sides) if len(sides) > 1 else sides[0]).to_pyarrow()
    return guard.finding(
        "tiles with the embedding of a tile in another fold or in the test set",
        strategy == "stratified_group",
        _same(twins, held),
    )


def _same(twins: pa.Table, held: Matrices) -> pa.Table:
    """Keep the tiles whose embedding equals that of a neighbour: equal digests need not mean it."""
    same = np.zeros(len(twins), dtype=bool)
    sides = np.asarray(twins["side"].to_pylist(), dtype=object) == "test"
    for start in range(0, len(twins) - 1, COMPARED):
        rows = twins["row"].slice(start, COMPARED + 1).to_numpy()
        test = sides[start : start + COMPARED + 1]
        block = np.empty((len(rows), held[""][0].dim), dtype=np.float32)
        for prefix, mask in (("", ~test), ("test_", test)):
            if mask.any():
                block[mask] = held[prefix][0].values[rows[mask]]
        equal = (block[1:] == block[:-1]).all(axis=1)
        same[start : start + len(rows) - 1] |= equal
        same[start + 1 : start + len(rows)] |= equal
    return twins.filter(pa.array(same)).drop_columns(["row", "content"])


# -- the shelf of snapshots -------------------------------------------------------------------


def names() -> list[str]:
    """Return the names of the snapshots, the last used first."""
    return shelf.names(SHELF)


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
            found=", ".join(names()[:8]) or f"no snapshot in {shelf.place(SHELF, '')}",
            fix="name one of them; `featurestore snapshots` lists them",
        )

    held = shelf.found(SHELF, there[0])
    manifest = json.loads((held.folder / MANIFEST).read_text())
    matrices = {}
    for cohort, said in manifest["cohorts"].items():
        own = shelf.found(MATRICES, said["matrix"], matrix.CHECKS)
        matrices[cohort.removesuffix("tiles")] = (Matrix.open(own.folder), own)
    return Snapshot(held, manifest, matrices)


def _manifest(name: str) -> dict[str, Any] | str:
    """Return the manifest of a snapshot, or why it cannot be read, in words."""
    folder = shelf.place(SHELF, name)
    wrong = seals.fault(folder, name, shelf.NONE, only=[MANIFEST])
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
    for folder in shelf.sealed():
        checks = matrix.CHECKS if folder.parent.name == MATRICES else shelf.NONE
        look = partial(seals.fault, folder, folder.name, checks, wholly=True)
        wrong = look() and shelf.set_aside(folder, look)
        if wrong:
            yield folder, wrong


def listing() -> pa.Table:
    """Return the snapshots, the last used first.

    Columns ``snapshot, kept`` (tiles), ``rows, dim, storage, bytes`` (of its own), ``embeddings``
    (bytes, shared by snapshots of one artifact), ``used`` (UTC) and ``in_use``.
    """
    rows = []
    for name in names():
        folder, manifest = shelf.place(SHELF, name), _manifest(name)
        if isinstance(manifest, str):
            said = f"{folder} is damaged or of an earlier version ({manifest}): not listed"
            warnings.warn(said, FeatureStoreWarning, stacklevel=2)
            continue
        cohorts = manifest["cohorts"].values()
        shared = {shelf.place(MATRICES, said["matrix"]) for said in cohorts}
        rows.append(
            {
                "snapshot": name,
                "kept": sum(said["funnel"][-1]["tiles"] for said in cohorts),
                "rows": sum(said["rows"] for said in cohorts),
                "dim": next((said["dim"] for said in cohorts), None),
                "storage": manifest["rules"]["storage"],
                "bytes": shelf.size(folder),
                "embeddings": sum(shelf.size(place) for place in shared),
                "used": datetime.fromtimestamp(shelf.used(folder), UTC).isoformat(" ", "seconds"),
                "in_use": shelf.in_use(folder),
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
    old = [shelf.place(SHELF, name) for name in names() if name not in kept]
    gone = [folder for folder in old if shelf.remove(folder)]
    cohorts = [manifest["cohorts"] for manifest in _manifests().values()]
    needed = {said["matrix"] for cohort in cohorts for said in cohort.values()}
    spare = [shelf.place(MATRICES, n) for n in shelf.names(MATRICES) if n not in needed]
    return gone + [folder for folder in spare if shelf.remove(folder)]
