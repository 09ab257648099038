"""Make a snapshot: the views run once, their rows on disk."""

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ibis.expr.types as ir
import pyarrow.parquet as pq

from featurestore import validation
from featurestore.backend import engine, errors
from featurestore.contract import rules as contract_rules
from featurestore.embeddings import convert, matrix
from featurestore.embeddings.matrix import EmbeddingMatrix
from featurestore.errors import ArtifactError, FeatureStoreWarning
from featurestore.folds import artifact
from featurestore.io import cache, digests
from featurestore.io.progress import Rows
from featurestore.snapshots import leakage, meaning
from featurestore.snapshots.layout import (
    FORMAT,
    MANIFEST,
    MATRICES,
    SLIDES,
    SNAPSHOTS,
    Matrices,
    combined_digest,
)
from featurestore.snapshots.leakage import Finding, find_duplicates, find_leaks, findings_of
from featurestore.snapshots.snapshot import Snapshot
from featurestore.spec.rules import values_of
from featurestore.store import FeatureStore
from featurestore.views.folds import KEY, check_fold
from featurestore.views.joins import look_up

VIEWS = (
    "contract/parquet_table", "embeddings/batches", "embeddings/near", "folds/assign", "io/parquet",
    "snapshots/duplicates", "snapshots/leakage", "store",
    "views/classes", "views/fates", "views/folds", "views/joins", "views/labels",
    "views/leakage", "views/precision", "views/thresholds",
)  # fmt: skip
"""The files whose definitions decide what a snapshot holds."""


RULES = (*artifact.RULES, "storage")


def inputs(store: FeatureStore) -> dict[str, str | None]:
    """Return the digests of the artifacts that a snapshot is made of, and of the views' code."""
    spec = store.spec
    named = {"tiles": spec.tiles, "test_tiles": spec.test_tiles, "slides": spec.slides}
    digest_of: dict[str, str | None] = {
        name: digests.digest(store.sources.dataset(name).named, remember=False) if uri else None
        for name, uri in named.items()
    }
    for prefix in prefixes(store):
        name = prefix + "embeddings"
        digest_of[name] = matrix.content(
            digests.digest(store.sources.dataset(name).named, remember=False), spec.storage
        )
    if spec.tiles and store.assignment:  # the rows of it, however they came about
        digest_of["folds"] = store.assignment.origin.digest
    return digest_of | {"views": meaning.code(*VIEWS)}


def prefixes(store: FeatureStore) -> list[str]:
    """Return the prefixes of the cohorts that a store has: ``""``, ``"test_"``."""
    cohorts = {"": store.spec.tiles, "test_": store.spec.test_tiles}
    return [prefix for prefix, uri in cohorts.items() if uri]


def materialise(
    store: FeatureStore, rows: Rows | None = None, folds: Sequence[int] = ()
) -> Snapshot:
    """Return the snapshot of a store's spec, written on its first use.

    Parameters
    ----------
    store
        Views, rules and artifacts.
    rows
        Shows the rows of embeddings that are converted.
    folds
        Folds that must be there, or nothing is written.

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
    rules = values_of(spec, RULES)
    heard: list[str] = []

    def build(folder: Path) -> None:
        with _heard(heard):
            for prefix in prefixes(store):  # cheap refusals before the long conversion
                store.survivors(prefix)
            for fold in folds:
                check_fold(fold, store.folds())
            for violation in validation.warnings(store):
                message = f"{violation.wrong}: {violation.found}"
                warnings.warn(message, FeatureStoreWarning, stacklevel=2)
            findings = find_leaks(store) if spec.tiles else []
            leakage.raise_leaks(findings, spec.leakage)
            matrices_of = matrices(store, rows)
            manifest = content | {"digest": digest} | write(store, folder, matrices_of, findings)
            leakage.raise_leaks(findings_of(manifest), spec.leakage)
            store.sources.confirm()
        manifest["warnings"] = heard
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, default=dict))

    with cache.undone_if_refused():
        with _heard(heard):  # folds that are not assigned yet ask the views
            content = {"format": FORMAT, "inputs": inputs(store), "rules": rules}
        # What the store remembers is of these files, or nobody may call it by their digest.
        store.sources.confirm()
        digest = combined_digest(content)
        if spec.tiles and store.assignment:
            artifact.keep(store.assignment)
        entry = cache.get_or_build(SNAPSHOTS, digest, build)
        manifest = json.loads((entry.folder / MANIFEST).read_text())
        leakage.raise_leaks(findings_of(manifest), spec.leakage)  # or leakage=warn let it be
        store.sources.digests()  # remembers digests: a refusal would have written nothing
        for message in manifest["warnings"]:
            warnings.warn(message, FeatureStoreWarning, stacklevel=2)
        made = Snapshot(entry, manifest, matrices(store, rows))
        store.sources.confirm()
    return made


@contextmanager
def _heard(messages: list[str]) -> Iterator[None]:
    """Add what is warned of to some messages, in place of showing it."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", FeatureStoreWarning)
        yield
    messages += [str(w.message) for w in heard if w.category is FeatureStoreWarning]


def matrices(store: FeatureStore, rows: Rows | None = None) -> Matrices:
    """Return the embeddings of each cohort, converted on their first use."""
    return {prefix: embeddings(store, prefix, rows) for prefix in prefixes(store)}


def embeddings(
    store: FeatureStore, prefix: str, rows: Rows | None = None
) -> tuple[EmbeddingMatrix, cache.CacheEntry]:
    """Return the embeddings of the training or test tiles, converted on their first use."""
    name = prefix + "embeddings"
    dataset, storage = store.sources.dataset(name), store.spec.storage

    def build(folder: Path) -> None:
        dim = contract_rules.dimension(store.view(name))
        progress = rows or Rows(None)
        total = sum(fragment.rows for fragment in dataset.filled)
        with progress.counting(f"embeddings to {storage}", total) as advance:
            convert.convert(dataset.filled, dim, storage, folder, advance, threads=store.threads)
        store.sources.confirm()

    digest = matrix.content(digests.digest(dataset.named, remember=False), storage)
    entry = cache.get_or_build(MATRICES, digest, build, convert.CHECKS)
    return EmbeddingMatrix.open(entry.folder), entry


def write(
    store: FeatureStore, folder: Path, matrices_of: Matrices, findings: list[Finding]
) -> dict[str, Any]:
    """Write the fates of each cohort; return what a manifest says of them."""
    manifest: dict[str, Any] = {
        "cohorts": {}, "folds": [], "labels": [], "imbalance": {}, "assignment": None, "guard": []
    }  # fmt: skip
    for prefix, (embedding_matrix, _) in matrices_of.items():
        fates = _here(store, prefix + "fates")
        rows = engine.read_parquet(fates.get_backend(), [embedding_matrix.keys])
        placed = look_up(fates, rows, KEY, "row").order_by(list(KEY))
        engine.write_parquet(placed, folder / f"{prefix}fates.parquet")
        file = folder / f"{prefix}fates.parquet"
        manifest["cohorts"][prefix + "tiles"] = {
            "funnel": store.funnel(prefix),
            "rows": pq.read_metadata(file).num_rows,
            "content": meaning.rows(file),
            "matrix": embedding_matrix.folder.name,
            "dim": embedding_matrix.dim,
        }
    if store.spec.slides:
        engine.write_parquet(_here(store, "slides"), folder / SLIDES)
    if "" in matrices_of:
        manifest["folds"] = store.folds()
        manifest["labels"] = store.label_distribution().to_pylist()
        if (assignment := store.assignment) is not None:
            pq.write_table(assignment.table, folder / artifact.FILE)
            manifest["imbalance"] = assignment.imbalance
            manifest["assignment"] = assignment.record
        findings = [*findings, find_duplicates(store.spec.kfold_strategy, folder, matrices_of)]
        manifest["guard"] = [finding.as_dict() for finding in findings]
    return manifest


def _here(store: FeatureStore, name: str) -> ir.Table:
    """Return a view on this machine, where the embeddings are, whichever engine made it."""
    if store.spec.backend == "duckdb":
        return store.view(name)
    with errors.translated():
        return engine.register(engine.connect(), name, store.view(name).to_pyarrow())
