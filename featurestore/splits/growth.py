"""The split of a cohort: the one that there is, or an earlier cohort's extended, or a first."""

from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from featurestore.errors import SplitError
from featurestore.folds.assign import Folds
from featurestore.folds.assignment import GONE, Assignment
from featurestore.folds.extend import NEW, Codes
from featurestore.folds.known import SHOWN, Told, earlier_folds, moves
from featurestore.folds.origin import ASKED, EXTENDS, FIRST, FRESH, Origin
from featurestore.folds.units import group_codes
from featurestore.spec.split_rules import SplitRules
from featurestore.splits import kept
from featurestore.splits.assign import SIDES, assign_sides
from featurestore.splits.cohort import Cohort
from featurestore.splits.folder import read_manifest
from featurestore.splits.kept import Kept, Wanted


def earlier(wanted: Wanted, folder: Path, new: bool) -> list[Kept]:
    """Return the splits that may be the one that is asked for, or be extended.

    That in the folder is the only one, where there is one.

    Parameters
    ----------
    folder
        Where the user keeps the split.
    new
        Whether every group is to be assigned anew.

    Raises
    ------
    SplitError
        The one in the folder was made by other rules.
    """
    here = kept.in_folder(folder)
    if here is None:
        return kept.find(wanted)
    if here.origin.rules == wanted.under:
        return [here]
    if new:
        return []
    before, asked = read_manifest(folder) or {}, asdict(wanted.rules)
    unlike = [
        f"--{name} {_text(before.get(name))}, now {_text(value)}"
        for name, value in asked.items()
        if _text(before.get(name)) != _text(value)
    ]
    raise SplitError(
        f"{folder} holds a split that was made by other rules",
        found="; ".join(unlike) or "an earlier version of the method",
        fix="name another folder, the same rules, or assign every group anew: --new",
    )


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def assignment(wanted: Wanted, cohort: Cohort, splits: list[Kept], new: bool) -> Assignment:
    """Return the assignment of a cohort's groups to sides, in place of folds.

    Parameters
    ----------
    splits
        Those that there are, see `earlier`.
    new
        Whether every group is to be assigned anew.

    Raises
    ------
    SplitError
        A group would have to change sides, or a side would have no tile.
    """
    current = [one for one in splits if one.origin.cohort == wanted.cohort]
    if current:
        latest = max(current, key=lambda one: one.origin.made)
        if not new or latest.origin.why in FRESH:  # which would be dealt alike once more
            return kept.read(latest, wanted.rules)
    now = datetime.now(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
    origin = Origin(wanted.cohort, wanted.under, "", now)
    nobody = np.full(len(cohort.names), NEW, dtype=np.int64)
    if new:
        return _made(wanted.rules, cohort, nobody, None, replace(origin, why=ASKED))
    nearest = _nearest(wanted.rules, cohort, splits)
    if nearest is None:
        return _made(wanted.rules, cohort, nobody, None, replace(origin, why=FIRST))
    one, rows = nearest
    known = _known(cohort, rows, wanted.rules)
    origin = replace(origin, why=EXTENDS, extends=one.origin.digest)
    return _made(wanted.rules, cohort, known, rows, origin)


def _nearest(rules: SplitRules, cohort: Cohort, splits: list[Kept]) -> tuple[Kept, pa.Table] | None:
    """Return the split that knows the most groups of a cohort, of equal ones the latest."""
    nearest, most = None, (0, "")
    for one in splits:
        rows = kept.read(one, rules).table
        shared = (len(_earlier_sides(cohort, rows, rules)[0]), one.origin.made)
        if shared[0] and shared > most:
            nearest, most = (one, rows), shared
    return nearest


def _earlier_sides(cohort: Cohort, rows: pa.Table, rules: SplitRules) -> tuple[Told, list[str]]:
    return earlier_folds(_members(cohort, rules), rows, rules.group)


def _members(cohort: Cohort, rules: SplitRules) -> pa.Table:
    """Return the slides of each group, under the group's own name."""
    columns = {rules.group: cohort.slides["group"], "slide_id": cohort.slides["slide_id"]}
    return pa.table(columns)


def _known(cohort: Cohort, rows: pa.Table, rules: SplitRules) -> Codes:
    """Return the side that each group had.

    Raises
    ------
    SplitError
        A group would have to change sides: what is one of them now was on both.
    """
    earlier_by_group, names = _earlier_sides(cohort, rows, rules)
    by_name = {names[code]: members for code, members in earlier_by_group.items()}
    if lines := moves(by_name, rules.group, SIDES.__getitem__):
        raise SplitError(
            f"{len(lines)} values of {rules.group} were on both sides: what was trained on would "
            "be tested",
            found="; ".join(lines[:SHOWN]),
            fix=f"correct {rules.group}, or assign every group anew: --new",
        )
    known = np.full(len(names), NEW, dtype=np.int64)
    for code, members in earlier_by_group.items():
        known[code] = next(iter(members.values()))
    return known


def _made(
    rules: SplitRules, cohort: Cohort, known: Codes, rows: pa.Table | None, origin: Origin
) -> Assignment:
    sides = assign_sides(cohort, known, rules)
    members = _members(cohort, rules)
    codes, _ = group_codes(members[rules.group])
    present = members.append_column("fold", pa.array(sides[codes]))
    columns = list(dict.fromkeys([rules.group, "slide_id"]))
    present = present.sort_by([(name, "ascending") for name in columns])
    before = None if rows is None else rows.drop_columns([GONE])
    had = int((known != NEW).sum())
    return Assignment.of(Folds(present, {}, had, len(known) - had), before, origin)


def sides_of(cohort: Cohort, assignment: Assignment, rules: SplitRules) -> Codes:
    """Return the side of each group of a cohort in its own assignment."""
    rows = assignment.present
    side_of = dict(
        zip(map(str, rows[rules.group].to_pylist()), rows["fold"].to_pylist(), strict=True)
    )
    return np.array([side_of[str(name)] for name in cohort.names.to_pylist()])
