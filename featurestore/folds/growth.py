"""The assignment of a cohort: the one that there is, or an earlier cohort's extended, or a first.

Nothing is written here: `featurestore.folds.artifact.keep` does that.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow as pa

from featurestore.folds import artifact
from featurestore.folds.artifact import Kept, Wanted
from featurestore.folds.assign import assign_folds
from featurestore.folds.assignment import Assignment
from featurestore.folds.known import known_folds, shared_units
from featurestore.folds.origin import ASKED, EXTENDS, FIRST, FRESH, Origin
from featurestore.folds.units import unit_columns

Units = Callable[[], pa.Table]


def assignment(wanted: Wanted, units: Units) -> Assignment:
    """Return the assignment of a cohort; views are only asked where none is kept.

    Parameters
    ----------
    units
        Returns what folds are assigned to, see `featurestore.folds.assign.assign_folds`.

    Raises
    ------
    FoldError
        A group would have to move, or no assignment can be made.
    ArtifactError
        One that is kept is damaged.
    """
    kept = artifact.find_replayed(wanted)
    if kept is None:
        kept = artifact.find_current(wanted)
        # What scikit-learn has assigned it would assign once more.
        if kept and wanted.spec.folds == "new" and kept.origin.why not in FRESH:
            kept = None
    if kept and not kept.by_tile:
        return artifact.read(kept)
    return _made(wanted, units(), kept)


def _made(wanted: Wanted, units: pa.Table, kept: Kept | None) -> Assignment:
    """Return an assignment that goes on from one that is kept, or from that of another cohort."""
    if kept:  # of this very cohort, by an earlier version: all is known
        return _extended(wanted, units, kept, kept.origin)
    now = datetime.now(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
    origin = Origin(wanted.cohort, wanted.rules, "", now)
    if wanted.spec.folds == "new":
        return _fresh(wanted, units, replace(origin, why=ASKED))
    nearest = _nearest(wanted, units)
    if nearest is None:
        return _fresh(wanted, units, replace(origin, why=FIRST))
    origin = replace(origin, why=EXTENDS, extends=nearest.origin.digest)
    return _extended(wanted, units, nearest, origin)


def _fresh(wanted: Wanted, units: pa.Table, origin: Origin) -> Assignment:
    return Assignment.of(assign_folds(units, wanted.spec), None, origin)


def _extended(wanted: Wanted, units: pa.Table, kept: Kept, origin: Origin) -> Assignment:
    earlier = _rows(wanted, kept)
    known = known_folds(units, earlier, wanted.spec)
    return Assignment.of(assign_folds(units, wanted.spec, known), earlier, origin)


def _nearest(wanted: Wanted, units: pa.Table) -> Kept | None:
    """Return the assignment that knows the most groups of a cohort, of equal ones the latest."""
    nearest, most = None, (0, "")
    related = artifact.find_related(wanted)
    for kept in sorted(related, key=lambda one: (one.origin.rows, one.origin.made), reverse=True):
        if kept.origin.rows < most[0]:  # nor can those that follow know more
            break
        shared = shared_units(units, _rows(wanted, kept), wanted.spec)
        if shared and (shared, kept.origin.made) > most:
            nearest, most = kept, (shared, kept.origin.made)
    return nearest


def _rows(wanted: Wanted, kept: Kept) -> pa.Table:
    """Return the units of an assignment, and ``fold``; of one by tile, slides stand for groups."""
    rows, columns = artifact.read_rows(kept), unit_columns(wanted.spec)
    if kept.by_tile and wanted.spec.kfold_strategy == "stratified_group":
        return rows.group_by(["slide_id", "fold"]).aggregate([])
    return rows.select([*columns, "fold"])
