"""Leaks between training and test: looked for in a snapshot, refused or warned of."""

import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import ibis.expr.types as ir
import pyarrow as pa

from featurestore.backend import engine, errors
from featurestore.contract import rules
from featurestore.errors import FeatureStoreError, FeatureStoreWarning, LeakageError
from featurestore.snapshots.duplicates import duplicates
from featurestore.snapshots.layout import Matrices
from featurestore.spec.literals import Leakage, Strategy
from featurestore.store import FeatureStore
from featurestore.validation import COLUMNS, as_violation, row
from featurestore.views import leakage as views_leakage

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

    @property
    def concerns_test(self) -> bool:
        """Whether the test tiles are among the offenders."""
        return "test" in self.check

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> "Finding":
        """Return what `as_dict` made a row of."""
        return cls(row["check"], row["promised"], row["found"], row["first"])


def findings_of(manifest: Mapping[str, Any]) -> list[Finding]:
    """Return what the checks found when a snapshot was written."""
    return [Finding.from_dict(row) for row in manifest["guard"]]


def finding(check: str, is_error: bool, count: int, offenders: pa.Table) -> Finding:
    """Return how many offenders a check has found, and name the first of them."""
    rows = offenders.slice(0, SHOWN).to_pylist()
    first = "; ".join(", ".join(f"{name} {value}" for name, value in r.items()) for r in rows)
    return Finding(check, is_error, count, first)


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
            raise _refusal(leak)
    return [f"{leak.count:,} {leak.check}: {leak.first}" for leak in leaks]


def _refusal(leak: Finding) -> LeakageError:
    return LeakageError(
        f"There are {leak.check}, though kfold_strategy=stratified_group promises "
        "that there are none",
        found=f"{leak.count:,}; the first: {leak.first}",
        fix="correct the artifacts, or set leakage=warn or kfold_strategy=stratified",
    )


def refused(store: FeatureStore) -> pa.Table:
    """Return the leaks, of those that are found without an embedding, for which training stops.

    Of tiles that break a rule, or have no folds, none is looked for.

    Returns
    -------
    pa.Table
        As `featurestore.validation.violations`.
    """
    spec = store.spec
    leaks: list[Finding] = []
    if spec.tiles and spec.leakage == "refuse" and spec.kfold_strategy == "stratified_group":
        with suppress(FeatureStoreError):
            leaks = [leak for leak in find_leaks(store) if leak.count and leak.is_error]
    rows = [row("tiles", as_violation(_refusal(leak))) for leak in leaks]
    return pa.Table.from_pylist(rows, COLUMNS)


def find_leaks(store: FeatureStore) -> list[Finding]:
    """Run the checks for leakage that read no embedding."""
    spec, fates = store.spec, store.view("fates")
    grouped = spec.kfold_strategy == "stratified_group"
    groups = [name for name in ("slide_id", "patient_id") if name in fates.columns]
    findings: list[Finding] = []

    def look(check: str, is_error: bool, offenders: ir.Table) -> None:
        with errors.translated():
            first = offenders.limit(SHOWN).to_pyarrow()
            count = len(first)
            if count == SHOWN:  # or more; most checks find nothing, and ask once
                count = int(offenders.count().to_pyarrow().as_py())
        findings.append(finding(check, is_error, count, first))

    # Folds over patients promise whole slides as well: a slide is one patient's.
    undivided = ("slide_id", spec.kfold_group) if grouped else ()
    looked_at = list(dict.fromkeys([*groups, *undivided]))
    counts = engine.keep(views_leakage.group_counts(fates, looked_at))  # the views are asked once
    for group in looked_at:
        spread = views_leakage.groups_in_several_folds(counts, group)
        look(f"values of {group} in several folds", group in undivided, spread)
    divided = views_leakage.groups_in_several_folds(counts, "slide_id")
    sizes = _sizes(store, divided)
    overlaps = views_leakage.overlapping_tiles(fates.semi_join(divided, "slide_id"), sizes)
    look("overlapping tiles of one slide in different folds", grouped, overlaps)
    engine.release(sizes)
    if spec.test_tiles:
        test = store.view("test_fates")
        both = [name for name in groups if name in test.columns]
        test_counts = engine.keep(views_leakage.group_counts(test, both))
        for group in both:
            common = views_leakage.groups_in_train_and_test(counts, test_counts, group)
            check = f"values of {group} among both training and test tiles"
            look(check, group in undivided, common)
        engine.release(test_counts)
    engine.release(counts)
    return findings


def _sizes(store: FeatureStore, divided: ir.Table) -> ir.Table:
    """Return the size of a tile of each divided slide, and warn of those that have none.

    It is what the slides artifact says, else the spacing of the slide's tiles.

    Parameters
    ----------
    divided
        ``slide_id`` of the slides with kept tiles in several folds: others have no overlap to find.
    """
    tiles = store.view("tiles").semi_join(divided, "slide_id")
    slides = store.view("slides") if store.spec.slides else None
    if slides is None or not set(rules.EXTENTS) <= set(slides.columns):
        sizes = engine.keep(views_leakage.grid_spacing(tiles))
    else:
        given = slides.select(
            id=slides.id.cast("string"), **{n: slides[n].cast("int64") for n in rules.EXTENTS}
        )
        others = tiles.anti_join(given, tiles.slide_id == given.id)
        sizes = engine.keep(given.union(views_leakage.grid_spacing(others)))
    unknown = divided.anti_join(sizes, divided.slide_id == sizes.id)
    with errors.translated():
        number = int(unknown.count().to_pyarrow().as_py())
    if number:
        warnings.warn(
            f"{number:,} slides are divided by the folds, and how large their tiles are is not "
            "known: whether tiles overlap is not looked for there (write a slides artifact with "
            f"{' and '.join(rules.EXTENTS)})",
            FeatureStoreWarning,
            stacklevel=3,
        )
    return sizes


def find_duplicates(
    strategy: Strategy, fates_of: Mapping[str, ir.Table], matrices: Matrices
) -> Finding:
    """Look for one embedding under two keys across the folds and the test set.

    See `featurestore.snapshots.duplicates.duplicates` for what counts as one.
    """
    pairs = duplicates(fates_of, matrices)
    tiles = finding(
        "tiles with the embedding of a tile in another fold or in the test set",
        strategy == "stratified_group",
        len(pairs),
        pairs.select(["slide_id", "x", "y", "side"]),
    )
    return replace(tiles, first=f"{tiles.first}; {_slides(pairs)}" if len(pairs) else "")


def _slides(pairs: pa.Table) -> str:
    """Return the pairs of slides that most duplicates are of, for people."""
    sides = ["slide_id", "side", "other_slide_id", "other_side"]
    counted = pairs.group_by(sides).aggregate([([], "count_all")])
    order = [("count_all", "descending"), *((name, "ascending") for name in sides)]
    first = counted.sort_by(order).slice(0, SHOWN).to_pylist()
    words = (
        f"{r['count_all']:,} of slide {r['slide_id']} ({r['side']}) in "
        f"{r['other_slide_id']} ({r['other_side']})"
        for r in first
    )
    return f"by slides ({len(counted):,} pairs): {', '.join(words)}"
