"""Make a snapshot: the views run once, their rows on disk."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import ibis.expr.types as ir
import pyarrow.parquet as pq

from featurestore import validation
from featurestore.backend import engine, errors
from featurestore.contract import join
from featurestore.contract.vectors import dimension
from featurestore.embeddings import matrix
from featurestore.embeddings.conversion import Conversion
from featurestore.embeddings.convert import Target
from featurestore.embeddings.damage import damages, remember
from featurestore.embeddings.folder import lease
from featurestore.embeddings.matrix import EmbeddingMatrix
from featurestore.embeddings.parts import known_sums, named, share, share_provenance
from featurestore.errors import ArtifactError, DamageWarning, FeatureStoreWarning
from featurestore.folds import artifact
from featurestore.io import cache, digest_cache, digests
from featurestore.io.objects import shared
from featurestore.io.parquet import Dataset
from featurestore.io.progress import Rows
from featurestore.snapshots import fingerprints, leakage, spark
from featurestore.snapshots.layout import (
    FATES,
    FORMAT,
    MANIFEST,
    PARTS,
    SLIDES,
    SNAPSHOTS,
    Matrices,
)
from featurestore.snapshots.leakage import Finding, find_duplicates, find_leaks, findings_of
from featurestore.snapshots.part_list import read_parts, remove_unnamed, write_parts
from featurestore.snapshots.snapshot import Snapshot
from featurestore.spec.rules import values_of
from featurestore.store import FeatureStore
from featurestore.undo import try_out, undone_if_refused
from featurestore.views.fates import distribution_view, funnel_view, possible_fates
from featurestore.views.folds import KEY, check_fold
from featurestore.views.joins import look_up

VIEWS = (
    "contract/artifacts", "contract/parquet_table", "embeddings/batches", "embeddings/near",
    "folds/assign", "folds/units", "graph", "io/parquet", "io/walk",
    "snapshots/duplicates", "snapshots/leakage",
    "views/classes", "views/fates", "views/filters", "views/folds", "views/joins", "views/labels",
    "views/leakage", "views/precision", "views/thresholds",
)  # fmt: skip
"""The files whose definitions decide what a snapshot holds."""


RULES = (*artifact.RULES, "storage")


def inputs(store: FeatureStore, embeddings: Mapping[str, str]) -> dict[str, str | None]:
    """Return the digests of the artifacts that a snapshot is made of, and of the views' code.

    Parameters
    ----------
    embeddings
        That of each cohort's matrix, by prefix.
    """
    spec = store.spec
    named = {"tiles": spec.tiles, "test_tiles": spec.test_tiles, "slides": spec.slides}
    digest_of: dict[str, str | None] = {
        name: digests.digest(store.sources.dataset(name).named, remember=False) if uri else None
        for name, uri in named.items()
    }
    digest_of |= {f"{prefix}embeddings": digest for prefix, digest in embeddings.items()}
    for name in other_encoders(store):  # whose keys decide which tiles there are
        digest_of[name] = store.sources.dataset(name).digest(remember=False)
    if spec.tiles and store.assignment:  # the rows of it, however they came about
        digest_of["folds"] = store.assignment.origin.digest
    return digest_of | {"views": fingerprints.of_code(*VIEWS)}


def other_encoders(store: FeatureStore) -> list[str]:
    """Return the names of the embeddings whose keys alone are read."""
    kinds = ("embeddings", "test_embeddings")
    return [name for kind in kinds for name in store.spec.artifacts(kind) if name != kind]


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
    if not prefixes(store):
        raise ArtifactError(
            "There are no tiles to make a training set of",
            found="neither data.tiles nor data.test_tiles is set",
            fix="set one of them to a URI, for example data.tiles=runs:/RUN/tiles",
        )
    if not digest_cache.exists():  # what is refused later, as another variant, undoes it
        try_out(lambda: None, digest_cache.remove)
    with undone_if_refused(), lease():
        snapshot = Materialisation(store, rows or Rows(None), folds).run()
    try:  # after all that is refused; a store that does not answer undoes nothing
        _share(store, snapshot)
    except ArtifactError as error:
        message = f"snapshot {snapshot.folder.name} is not shared: {error.wrong}: {error.found}"
        warnings.warn(message, FeatureStoreWarning, stacklevel=2)
    return snapshot


def _share(store: FeatureStore, snapshot: Snapshot) -> None:
    """Let other machines find a snapshot; it comes last, as it names the others."""
    if shared.current() is not None:
        share(part for matrix in snapshot.matrices.values() for part in matrix.parts)
        for name in store.sources.embeddings:
            share_provenance(store.sources.dataset(name), store.spec.storage)
        if store.spec.tiles and store.assignment:
            shared.share(artifact.keep(store.assignment).parent)
        shared.share(snapshot.folder)


class Materialisation:
    """The making of one snapshot.

    Parameters
    ----------
    store, rows, folds
        As of `materialise`.
    """

    def __init__(self, store: FeatureStore, rows: Rows, folds: Sequence[int]) -> None:
        self.store, self.rows, self.folds = store, rows, folds
        self.messages: list[str] = []
        self.conversions: dict[str, Conversion] = {}
        self.joins: dict[str, dict[str, Any]] = {}

    def run(self) -> Snapshot:
        """Return the snapshot, see `materialise`."""
        store, spec = self.store, self.store.spec
        store.sources.confirm()
        sums = {prefix: known_sums(self.dataset(prefix)) for prefix in prefixes(store)}
        if spec.backend == "pyspark":
            named = ["tiles", "test_tiles", "slides"]
            named = [*(name for name in named if getattr(spec, name)), *other_encoders(store)]
            read = [store.sources.dataset(name) for name in named]
            spark.hash_files(store.connection, read)
        embeddings = {prefix: self.root(prefix, known) for prefix, known in sums.items()}
        rules = values_of(spec, RULES)
        with self.recording_warnings():  # folds that are not assigned yet ask the views
            content = {"format": FORMAT, "inputs": inputs(store, embeddings), "rules": rules}
        # What the store remembers is of these files, or nobody may call it by their digest.
        store.sources.confirm()
        digest = digests.of_values(content)
        if spec.tiles and store.assignment:
            artifact.keep(store.assignment)

        def build(folder: Path) -> None:
            with self.recording_warnings():
                findings = self.findings
                matrices_of = {prefix: self.matrix(prefix, known) for prefix, known in sums.items()}
                manifest = content | {"digest": digest}
                manifest |= write(store, folder, matrices_of, findings)
                manifest["joins"] = self.joins
                for prefix, embedding_matrix in matrices_of.items():
                    files = self.conversions[self.artifact(prefix)].files
                    write_parts(embedding_matrix, files, folder / f"{prefix}{PARTS}")
                leakage.raise_leaks(findings_of(manifest), spec.leakage)
                store.sources.confirm()
            manifest["sources"] = store.sources.digests()
            manifest["warnings"] = self.messages
            (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, default=dict))

        entry = cache.get_or_build(SNAPSHOTS, digest, build)
        manifest = json.loads((entry.folder / MANIFEST).read_text())
        leakage.raise_leaks(findings_of(manifest), spec.leakage)  # or leakage=warn let it be
        for name in refused_joins(manifest, spec.allow_missing):  # or allow_missing let it be
            validation.check_join(store, name)
        # Digests are remembered from here on: a refusal would have written nothing.
        store.sources.digests()
        parts = read_parts(entry.folder, manifest)
        for prefix, cohort_parts in parts.items():
            if self.artifact(prefix) not in self.conversions and damages(cohort_parts):
                self.matrix(prefix, sums[prefix])  # what is damaged is made again
        by_name = {part.name: part for cohort_parts in parts.values() for part in cohort_parts}
        remember(by_name[name] for done in self.conversions.values() for name in done.new)
        for message in manifest["warnings"]:
            warnings.warn(message, FeatureStoreWarning, stacklevel=4)
        store.sources.confirm()
        matrices_of = {
            prefix: EmbeddingMatrix(tuple(cohort_parts)) for prefix, cohort_parts in parts.items()
        }
        assignment = store.assignment if spec.tiles else None
        return Snapshot(entry, manifest, matrices_of, bool(assignment and not assignment.is_kept))

    def artifact(self, prefix: str) -> str:
        """Return which artifact holds the embeddings of the training or test tiles."""
        return f"{prefix}embeddings" if self.store.spec.test_embeddings else "embeddings"

    def dataset(self, prefix: str) -> Dataset:
        """Return the embeddings of the training or test tiles, as files."""
        return self.store.sources.dataset(self.artifact(prefix))

    def root(self, prefix: str, sums: Mapping[Path, str]) -> str:
        """Return the digest of a cohort's embeddings."""
        files = self.dataset(prefix).filled
        if any(fragment.path not in sums for fragment in files):  # hashed as they are converted
            with self.recording_warnings():
                return self.matrix(prefix, sums).digest
        return matrix.root(named(files, self.store.spec.storage, sums))

    def matrix(self, prefix: str, sums: Mapping[Path, str]) -> EmbeddingMatrix:
        """Return the embeddings of a cohort, what is missing of them converted."""
        assert self.findings is not None  # cheap refusals before the long conversion
        name = self.artifact(prefix)
        if name not in self.conversions:
            target = Target(dimension(self.dataset(prefix)), self.store.spec.storage)
            conversion = self.conversion(self.dataset(prefix), target, sums)
            try_out(lambda: None, lambda: remove_unnamed(conversion.new))
            self.conversions[name] = conversion
            conversion.run(self.rows)
            self.store.sources.confirm()
        return self.conversions[name].matrix

    def conversion(self, dataset: Dataset, target: Target, sums: Mapping[Path, str]) -> Conversion:
        """Return what converts an artifact: threads of this process, or executors."""
        if self.store.spec.backend == "pyspark":
            return spark.SparkConversion(self.store.connection, dataset, target, sums)
        return Conversion(dataset, target, sums, self.store.threads)

    @cached_property
    def findings(self) -> list[Finding]:
        """The leaks that are found without an embedding, after all that is refused without one."""
        store, spec = self.store, self.store.spec
        for prefix in prefixes(store):
            matches = validation.check_join(store, f"{prefix}tiles")
            self.joins[f"{prefix}tiles"] = join.summary(matches)
        for fold in self.folds:
            check_fold(fold, store.folds())
        for violation in validation.warnings(store):
            message = f"{violation.wrong}: {violation.found}"
            warnings.warn(message, FeatureStoreWarning, stacklevel=2)
        findings = find_leaks(store) if spec.tiles else []
        leakage.raise_leaks(findings, spec.leakage)
        return findings

    @contextmanager
    def recording_warnings(self) -> Iterator[None]:
        """Record this project's warnings, to be given again whenever the snapshot is used."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", FeatureStoreWarning)
            yield
        self.messages += [str(w.message) for w in caught if w.category is FeatureStoreWarning]
        for one in caught:
            if one.category is DamageWarning:  # of parts, not of the snapshot
                warnings.warn(one.message, stacklevel=2)


def refused_joins(manifest: Mapping[str, Any], allowed: float) -> list[str]:
    """Return the cohorts of a snapshot that have too few embeddings, as far as it is recorded."""
    recorded = manifest.get("joins", {})  # not by earlier code
    return [name for name, counts in recorded.items() if join.is_refused(counts, allowed)]


def write(
    store: FeatureStore, folder: Path, matrices_of: Matrices, findings: list[Finding]
) -> dict[str, Any]:
    """Write the fates of each cohort; return what a manifest says of them."""
    manifest: dict[str, Any] = {
        "cohorts": {}, "folds": [], "labels": [], "imbalance": {}, "assignment": None, "guard": []
    }  # fmt: skip
    fates_of: dict[str, ir.Table] = {}
    for prefix, embedding_matrix in matrices_of.items():
        files, fates_of[prefix] = _write_fates(store, prefix, embedding_matrix, folder)
        manifest["cohorts"][prefix + "tiles"] = {
            "funnel": _rows(funnel_view(fates_of[prefix], possible_fates(store.spec))),
            "rows": sum(pq.read_metadata(file).num_rows for file in files),
            "content": fingerprints.of_rows(files),
            "parts": len(embedding_matrix.parts),
            "dim": embedding_matrix.dim,
        }
    if store.spec.slides:
        slides = _here(store, "slides")
        engine.write_parquet(slides, folder / SLIDES)
    if "" in matrices_of:
        manifest["folds"] = store.folds()
        manifest["labels"] = _rows(distribution_view(fates_of[""]))
        if (assignment := store.assignment) is not None:
            pq.write_table(assignment.table, folder / artifact.FILE)
            manifest["imbalance"] = assignment.imbalance
            manifest["assignment"] = assignment.record
        findings = [*findings, find_duplicates(store.spec.kfold_strategy, fates_of, matrices_of)]
        manifest["guard"] = [finding.as_dict() for finding in findings]
    if store.spec.backend == "pyspark":
        for fates in fates_of.values():
            engine.release(fates)
    return manifest


def _write_fates(
    store: FeatureStore, prefix: str, embedding_matrix: EmbeddingMatrix, folder: Path
) -> tuple[list[Path], ir.Table]:
    """Write the fates of a cohort; return the files, in order, and a table of the fates."""
    fates = store.view(prefix + "fates")
    placed = look_up(fates, embedding_matrix.keys(fates.get_backend()), KEY, "row")
    if store.spec.backend == "pyspark":
        kept = engine.keep(placed)
        return spark.write_fates(kept, folder, prefix + FATES), kept
    file = folder / f"{prefix}{FATES}.parquet"
    engine.write_parquet(placed.order_by(list(KEY)), file)
    return [file], engine.read_parquet(store.connection, [file])


def _rows(answer: ir.Table) -> list[dict[str, Any]]:
    with errors.translated():
        return answer.to_pyarrow().to_pylist()


def _here(store: FeatureStore, name: str) -> ir.Table:
    """Return a view on this machine, whichever engine made it."""
    if store.spec.backend == "duckdb":
        return store.view(name)
    with errors.translated():
        return engine.register(engine.connect(), name, store.view(name).to_pyarrow())
