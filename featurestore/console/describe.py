"""What a cohort holds: rows, slides, classes, folds, coverages, and what would be dropped."""

from collections.abc import Sequence
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from featurestore.backend import errors
from featurestore.contract.vectors import dimension, value_types
from featurestore.spec.encoders import kind_of
from featurestore.store import FeatureStore

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def description(store: FeatureStore) -> list[tuple[str, pa.Table]]:
    """Return small tables that describe a store, each with its title.

    Raises
    ------
    FeatureStoreError
        The artifacts break the contract, or none is configured.
    """
    store.spec.check_artifacts()
    prefixes = [prefix for prefix in ("", "test_") if getattr(store.spec, prefix + "tiles")]
    for prefix in prefixes:
        store.survivors(prefix)
    tables = [("artifacts", pa.Table.from_pylist(_artifacts(store)))]
    for prefix in prefixes:
        name = (prefix + "tiles").replace("_", " ")
        fates = store.view(prefix + "fates")
        with errors.translated():
            tables += [
                (name, cohort_view(fates).to_pyarrow()),
                (f"{name}: classes", class_view(fates).to_pyarrow()),
                (
                    f"{name}: coverages",
                    quantile_view(store.view(prefix + "coverages")).to_pyarrow(),
                ),
            ]
            if not prefix:
                tables.append((_folds(store, name), balance_view(fates).to_pyarrow()))
        tables.append((f"{name}: what is dropped", _funnel(store.funnel(prefix))))
    return tables


def cohort_view(fates: ir.Table) -> ir.Table:
    """Return one row: ``tiles, kept, slides``, and ``patients`` where they are known."""
    counts = {
        "tiles": fates.count(),
        "kept": fates.count(where=fates.dropped_by.isnull()),
        "slides": fates.slide_id.nunique(),
    }
    if "patient_id" in fates.columns:
        counts["patients"] = fates.patient_id.nunique()
    return fates.aggregate(**counts)


def class_view(fates: ir.Table) -> ir.Table:
    """Return ``label, tiles, kept, slides`` (with kept tiles), the largest first."""
    kept = fates.dropped_by.isnull()
    counts = fates.group_by("label").aggregate(
        tiles=fates.count(), kept=fates.count(where=kept), slides=fates.slide_id.nunique(where=kept)
    )
    return counts.order_by([ibis.desc("tiles"), "label"])


def quantile_view(coverages: ir.Table) -> ir.Table:
    """Return quantiles of each class's coverage over the tiles that have any of it.

    Columns ``class, tiles, min, q05, q25, q50, q75, q95, max``.
    """
    covered = coverages.filter(coverages.coverage > 0)
    counts = {f"q{round(100 * q):02d}": covered.coverage.quantile(q) for q in QUANTILES}
    quantiles = covered.group_by("class").aggregate(
        tiles=covered.count(), min=covered.coverage.min(), **counts, max=covered.coverage.max()
    )
    return quantiles.order_by("class")


def balance_view(fates: ir.Table) -> ir.Table:
    """Return ``fold, tiles, slides, classes`` and the tiles of the rarest class, of kept tiles."""
    kept = fates.filter(fates.dropped_by.isnull())
    cells = kept.group_by(["fold", "label"]).aggregate(tiles=kept.count())
    rarest = cells.group_by("fold").aggregate(
        classes=cells.count(), rarest=cells.label.argmin(cells.tiles), fewest=cells.tiles.min()
    )
    folds = kept.group_by("fold").aggregate(tiles=kept.count(), slides=kept.slide_id.nunique())
    return folds.inner_join(rarest, "fold").order_by("fold")


def _folds(store: FeatureStore, name: str) -> str:
    """Return the title of the folds, with where they come from."""
    assignment = store.assignment
    origin = f" ({assignment.origin.described(assignment.is_kept)})" if assignment else ""
    return f"{name}: folds{origin}"


def _artifacts(store: FeatureStore) -> list[dict[str, Any]]:
    rows = []
    for name in store.spec.uris():
        dataset, table = store.sources.dataset(name), store.table(name)
        with errors.translated():
            count = table.count().to_pyarrow().as_py()
        is_here = set(dataset.unread) <= set(dataset.here)  # or it would be fetched for that
        kind = ""
        if kind_of(name).endswith("embeddings"):
            store.keys_of(name)  # or it has no such column, and nobody says so
            kind = f"{dimension(dataset)} {value_types(dataset)}"
        rows.append(
            {
                "artifact": name,
                "rows": count,
                "version": "" if dataset.version is None else str(dataset.version),
                "files": len(dataset.fragments),
                "megabytes": round(sum(f.path.stat().st_size for f in dataset.fragments) / 1e6, 1),
                "embedding": kind,
                "sha256": dataset.digest(remember=False)[:12] if is_here else "",
            }
        )
    return rows


def _funnel(rows: Sequence[dict[str, Any]]) -> pa.Table:
    total = max(rows[0]["tiles"], 1)
    return pa.Table.from_pylist(
        [{"reason": r["reason"], "tiles": r["tiles"], "share": r["tiles"] / total} for r in rows]
    )
