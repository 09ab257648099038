"""How near the shares of a split are to what was asked for, and where they are not."""

from collections import defaultdict
from typing import Any

import numpy as np

from featurestore.folds.extend import Codes
from featurestore.spec.split_rules import SplitRules
from featurestore.splits.assign import SIDES, groups_by_side, tiles_by_side
from featurestore.splits.cohort import Cohort

SHOWN = 3  # names in a message
FAR = 0.25  # of the share that is asked for: further from it is worth a word


def balance(cohort: Cohort, sides: Codes, rules: SplitRules) -> list[dict[str, Any]]:
    """Return the kept tiles and groups of each stratum on either side, those of all first.

    Returns
    -------
    list of dict
        ``stratum, train, test, share, train_groups, test_groups``.
    """
    tiles, groups = tiles_by_side(cohort, sides), groups_by_side(cohort, sides)
    with_tiles = sides[cohort.kept > 0]
    rows = [_row("all", tiles.sum(axis=1), np.bincount(with_tiles, minlength=len(SIDES)))]
    for place, values in enumerate(cohort.strata if rules.stratify else []):
        rows.append(_row(", ".join(values), tiles[:, place], groups[:, place]))
    return rows


def _row(stratum: str, tiles: Codes, groups: Codes) -> dict[str, Any]:
    return {
        "stratum": stratum,
        "train": int(tiles[0]),
        "test": int(tiles[1]),
        "share": float(tiles[1] / tiles.sum()),
        "train_groups": int(groups[0]),
        "test_groups": int(groups[1]),
    }


def shortcomings(rows: list[dict[str, Any]], rules: SplitRules) -> list[str]:
    """Return, in words, which strata are on one side alone, and whether the share is a far one.

    Parameters
    ----------
    rows
        As of `balance`.
    """
    one_sided: dict[str, list[str]] = defaultdict(list)
    for row in rows[1:]:
        groups = (row["train_groups"], row["test_groups"])
        if min(groups) == 0:
            reason = "in one group alone" if sum(groups) == 1 else "with all their groups"
            one_sided[reason].append(f"{row['stratum']} ({SIDES[groups.index(0) ^ 1]})")
    lines = [
        f"{len(names):,} of {len(rows) - 1:,} strata are on one side, {reason}: {_listed(names)}"
        for reason, names in one_sided.items()
    ]
    share = rows[0]["share"]
    if abs(share - rules.test) > FAR * rules.test:
        lines.append(
            f"the test part has {share:.1%} of the tiles, not {rules.test:.1%}: values of "
            f"{rules.group} are few, very unlike in size, keep their side, or are the only ones of "
            "a stratum"
        )
    return lines


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return "; ".join(names[:SHOWN]) + more


def unembedded(cohort: Cohort, sides: Codes) -> dict[str, int] | None:
    """Return the kept tiles of either side without an embedding; None where that is not known."""
    missing = cohort.unembedded
    if missing is None:
        return None
    return {name: int(missing[sides == side].sum()) for side, name in enumerate(SIDES)}


def dropped(cohort: Cohort, sides: Codes) -> dict[str, int]:
    """Return the tiles of either side that the label rules drop."""
    return {name: int(cohort.dropped[sides == side].sum()) for side, name in enumerate(SIDES)}
