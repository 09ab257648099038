"""Which group is on which side: as near to the share of each stratum as whole groups allow.

Groups are dealt one after another by the criterion of scikit-learn's `StratifiedGroupKFold`
(`featurestore.folds.extend`), then exchanged between the sides until no exchange helps
(`featurestore.folds.balance`), as folds are, but for the sides' sizes.
"""

import numpy as np

from featurestore.errors import SplitError
from featurestore.folds.balance import exchanged
from featurestore.folds.extend import NEW, Codes, extended_groups
from featurestore.spec.split_rules import SplitRules
from featurestore.splits.cohort import Cohort

TRAIN, TEST = range(2)
SIDES = ("train", "test")
EXCHANGED = 2_000
"""Groups, of more than which dealing alone ends as near: they are small next to their strata."""


def assign_sides(cohort: Cohort, known: Codes, rules: SplitRules) -> Codes:
    """Return the side of each group: `TRAIN` or `TEST`.

    First each stratum of several groups gets one on either side, where that can be found; then the
    shares of the strata, and of all tiles, come as near to what is asked for as they do.

    Parameters
    ----------
    known
        The side of each group, shape (groups,), which it keeps; `featurestore.folds.extend.NEW`
        where it has none.

    Returns
    -------
    ndarray of int, shape (groups,)

    Raises
    ------
    SplitError
        There are fewer than two groups with tiles, or a side would have none.
    """
    _check_groups(cohort, rules)
    sides, sizes = known.copy(), [2 * (1 - rules.test), 2 * rules.test]
    kept, rest = np.flatnonzero(cohort.kept), np.flatnonzero(cohort.kept == 0)
    counts, had = cohort.counts[kept], known[kept]
    dealt = extended_groups(counts, had, len(SIDES), rules.seed, sizes)
    if len(kept) <= EXCHANGED:
        dealt = exchanged(counts, len(SIDES), dealt, free=had == NEW, sizes=sizes)
    sides[kept] = _filled(counts.sum(axis=1), dealt, had == NEW, rules)
    if len(rest):  # whoever has no tile of any stratum: by the tiles that other rules may keep
        dropped = cohort.dropped[rest, None]
        sides[rest] = extended_groups(dropped, known[rest], len(SIDES), rules.seed, sizes)
    _check_sides(cohort, sides, rules)
    return sides


def _filled(tiles: Codes, sides: Codes, free: Codes, rules: SplitRules) -> Codes:
    """Return sides of which none is empty: the new group nearest in size fills one that would be.

    So it is where every stratum is in one group: no test part at all would be the nearest.
    """
    share = (1 - rules.test, rules.test)
    for side in (TRAIN, TEST):
        movable = np.flatnonzero(free & (sides != side))
        if (sides != side).all() and len(movable):
            sides = sides.copy()
            sides[movable[np.argmin(np.abs(tiles[movable] - share[side] * tiles.sum()))]] = side
    return sides


def _check_groups(cohort: Cohort, rules: SplitRules) -> None:
    number = int((cohort.kept > 0).sum())
    if number < len(SIDES):
        raise SplitError(
            f"One {rules.group} cannot be on two sides",
            found=f"all tiles that the label rules keep are of {rules.group} "
            f"{cohort.names[int(np.argmax(cohort.kept))].as_py()}",
            fix="name a column with more values (--group), add slides, or loosen the thresholds",
        )


def _check_sides(cohort: Cohort, sides: Codes, rules: SplitRules) -> None:
    for side, name in enumerate(SIDES):
        if not cohort.kept[sides == side].sum():
            raise SplitError(
                f"The {name} part would have no tile",
                found=f"all {int((cohort.kept > 0).sum())} values of {rules.group} are on the "
                "other side",
                fix="add slides, or assign every group anew: --new",
            )


def tiles_by_side(cohort: Cohort, sides: Codes) -> Codes:
    """Return the kept tiles of each side and stratum, shape (2, strata)."""
    table = np.zeros((len(SIDES), cohort.counts.shape[1]), dtype=np.int64)
    np.add.at(table, sides, cohort.counts)
    return table


def groups_by_side(cohort: Cohort, sides: Codes) -> Codes:
    """Return the groups of each side with kept tiles of each stratum, shape (2, strata)."""
    table = np.zeros((len(SIDES), cohort.counts.shape[1]), dtype=np.int64)
    np.add.at(table, sides, (cohort.counts > 0).astype(np.int64))
    return table
