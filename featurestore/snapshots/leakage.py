"""Leaks between training and test: looked for in a snapshot, refused or warned of."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa

from featurestore.backend import engine, errors
from featurestore.contract import rules
from featurestore.errors import LeakageError
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
    is_error
        Whether the strategy of the folds, or the test artifact, promises that it is not.
    count
        Number of offenders.
    first
        The first of them, for people.
    """

    check: str
    is_error: bool
    count: int
    first: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as a manifest keeps it."""
        return {
            "check": self.check,
            "promised": self.is_error,
            "found": self.count,
            "first": self.first,
        }

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> "Finding":
        """Return what `as_dict` made a row of."""
        return cls(row["check"], row["promised"], row["found"], row["first"])


def count_offenders(check: str, is_error: bool, offenders: pa.Table) -> Finding:
    """Count the offenders of a check and name the first."""
    rows = offenders.slice(0, SHOWN).to_pylist()
    first = "; ".join(", ".join(f"{name} {value}" for name, value in r.items()) for r in rows)
    return Finding(check, is_error, len(offenders), first)


def raise_leaks(findings: list[Finding], leakage: Leakage) -> list[str]:
    """Raise for the first broken promise, or return a line for each leak.

    Raises
    ------
    LeakageError
        ``leakage`` is ``refuse``, and there is a leak that is promised not to be.
    """
    leaks = [finding for finding in findings if finding.count]
    for leak in leaks:
        if leak.is_error and leakage == "refuse":
            raise LeakageError(
                f"There are {leak.check}, though kfold_strategy=stratified_group promises "
                "that there are none",
                found=f"{leak.count:,}; the first: {leak.first}",
                fix="correct the artifacts, or set leakage=warn or kfold_strategy=stratified",
            )
    return [f"{leak.count:,} {leak.check}: {leak.first}" for leak in leaks]


COMPARED = 1024  # embeddings held in memory at a time, to compare them


def find_leaks(store: FeatureStore) -> list[Finding]:
    """Run the checks for leakage that read no embedding."""
    spec, fates = store.spec, store.view("fates")
    grouped = spec.kfold_strategy == "stratified_group"
    groups = [name for name in ("slide_id", "patient_id") if name in fates.columns]
    findings: list[Finding] = []

    def look(check: str, is_error: bool, offenders: ir.Table) -> None:
        with errors.translated():
            findings.append(count_offenders(check, is_error, offenders.to_pyarrow()))

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
    return findings


def find_duplicates(strategy: Strategy, folder: Path, matrices: Matrices) -> Finding:
    """Look for one embedding under two keys across the folds and the test set."""
    here, sides = engine.connect(), []
    for prefix in matrices:
        fates = engine.read_parquet(here, [folder / f"{prefix}fates.parquet"])
        side = ibis.literal("test") if prefix else fates.fold.cast("string")
        sides.append(views_leakage.kept_tiles(fates).select(*KEY, "row", "content", side=side))
    with errors.translated():
        twins = views_leakage.duplicate_embeddings(
            ibis.union(*sides) if len(sides) > 1 else sides[0]
        ).to_pyarrow()
    return count_offenders(
        "tiles with the embedding of a tile in another fold or in the test set",
        strategy == "stratified_group",
        _same(twins, matrices),
    )


def _same(twins: pa.Table, matrices: Matrices) -> pa.Table:
    """Keep the tiles whose embedding equals that of a neighbour: equal digests need not mean it."""
    same = np.zeros(len(twins), dtype=bool)
    sides = np.asarray(twins["side"].to_pylist(), dtype=object) == "test"
    for start in range(0, len(twins) - 1, COMPARED):
        rows = twins["row"].slice(start, COMPARED + 1).to_numpy()
        test = sides[start : start + COMPARED + 1]
        block = np.empty((len(rows), matrices[""][0].dim), dtype=np.float32)
        for prefix, mask in (("", ~test), ("test_", test)):
            if mask.any():
                block[mask] = matrices[prefix][0].values[rows[mask]]
        equal = (block[1:] == block[:-1]).all(axis=1)
        same[start : start + len(rows) - 1] |= equal
        same[start + 1 : start + len(rows)] |= equal
    return twins.filter(pa.array(same)).drop_columns(["row", "content"])
