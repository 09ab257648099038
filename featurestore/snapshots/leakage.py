"""Leaks between training and test: looked for in a snapshot, refused or warned of."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa

from featurestore.backend import engine, errors
from featurestore.contract import rules
from featurestore.errors import LeakageError
from featurestore.snapshots import leakage as snapshots_leakage
from featurestore.snapshots.layout import Matrices
from featurestore.spec.literals import Leakage, Strategy
from featurestore.store import FeatureStore
from featurestore.views import leakage as views_leakage
from featurestore.views.folds import KEY

SHOWN = 3  # offenders named in a message


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Parameters
    ----------
    check
        What must not be.
    promised
        Whether the strategy of the folds, or the test artifact, promises that it is not.
    found
        Number of offenders.
    first
        The first of them, for people.
    """

    check: str
    promised: bool
    found: int
    first: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def count_offenders(check: str, promised: bool, offenders: pa.Table) -> Finding:
    """Count the offenders of a check and name the first."""
    rows = offenders.slice(0, SHOWN).to_pylist()
    first = "; ".join(", ".join(f"{name} {value}" for name, value in r.items()) for r in rows)
    return Finding(check, promised, len(offenders), first)


def raise_leaks(findings: list[Finding], leakage: Leakage) -> list[str]:
    """Raise for the first broken promise, or return a line for each leak.

    Raises
    ------
    LeakageError
        ``leakage`` is ``refuse``, and there is a leak that is promised not to be.
    """
    leaks = [finding for finding in findings if finding.found]
    for leak in leaks:
        if leak.promised and leakage == "refuse":
            raise LeakageError(
                f"There are {leak.check}, though kfold_strategy=stratified_group promises "
                "that there are none",
                found=f"{leak.found:,}; the first: {leak.first}",
                fix="correct the artifacts, or set leakage=warn or kfold_strategy=stratified",
            )
    return [f"{leak.found:,} {leak.check}: {leak.first}" for leak in leaks]


COMPARED = 1024  # embeddings held in memory at a time, to compare them


def find_leaks(store: FeatureStore) -> list[Finding]:
    """Run those of the guard's checks that read no embedding."""
    spec, fates = store.spec, store.view("fates")
    grouped = spec.kfold_strategy == "stratified_group"
    groups = [name for name in ("slide_id", "patient_id") if name in fates.columns]
    found: list[Finding] = []

    def look(check: str, promised: bool, offenders: ir.Table) -> None:
        with errors.translated():
            found.append(snapshots_leakage.count_offenders(check, promised, offenders.to_pyarrow()))

    for group in dict.fromkeys([*groups, *([spec.kfold_group] if grouped else [])]):
        promised = grouped and group == spec.kfold_group
        look(
            f"values of {group} in several folds",
            promised,
            views_leakage.groups_in_several_folds(fates, group),
        )
    slides = store.view("slides") if spec.slides else None
    if slides is not None and set(rules.EXTENTS) <= set(slides.columns):
        overlaps = views_leakage.overlapping_tiles(fates, slides)
        look("overlapping tiles of one slide in different folds", grouped, overlaps)
    if spec.test_tiles:
        test = store.view("test_fates")
        for group in (name for name in groups if name in test.columns):
            promised = grouped and group in ("slide_id", spec.kfold_group)
            common = views_leakage.groups_in_train_and_test(fates, test, group)
            look(f"values of {group} among both training and test tiles", promised, common)
    return found


def find_duplicates(strategy: Strategy, folder: Path, held: Matrices) -> Finding:
    """Look for one embedding under two keys across the folds and the test set."""
    here, sides = engine.connect(), []
    for prefix in held:
        fates = engine.read_parquet(here, [folder / f"{prefix}fates.parquet"])
        side = ibis.literal("test") if prefix else fates.fold.cast("string")
        sides.append(views_leakage.kept_tiles(fates).select(*KEY, "row", "content", side=side))
    with errors.translated():
        twins = views_leakage.duplicate_embeddings(
            ibis.union(*sides) if len(sides) > 1 else sides[0]
        ).to_pyarrow()
    return snapshots_leakage.count_offenders(
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
