"""Folds tile by tile, as tests look at them."""

from collections.abc import Sequence

import pyarrow as pa

from featurestore.folds.assign import Folds, assign_folds
from featurestore.folds.extend import Codes
from featurestore.folds.units import TILES, unit_columns
from featurestore.spec.rules import FoldRules


def units_of(tiles: pa.Table, rules: FoldRules) -> pa.Table:
    """Return what folds are assigned to: tiles, or how many a group, slide and class has."""
    if rules.kfold_strategy == "stratified":
        return tiles
    columns = list(dict.fromkeys([*unit_columns(rules), "label", "target"]))
    counts = tiles.group_by(columns).aggregate([([], "count_all")])
    return counts.rename_columns([*columns, TILES])


def assigned(tiles: pa.Table, rules: FoldRules, known: Codes | None = None) -> Folds:
    """Assign folds to tiles."""
    return assign_folds(units_of(tiles, rules), rules, known)


def by_tile(tiles: pa.Table, folds: Folds, rules: FoldRules) -> list[int | None]:
    """Return the fold of each tile; None for one of a rare class."""
    columns = unit_columns(rules)
    names = keys(folds.rows, columns)
    fold_of = dict(zip(names, folds.rows["fold"].to_pylist(), strict=True))
    return [
        None if label in folds.rare else fold_of[key]
        for key, label in zip(keys(tiles, columns), tiles["label"].to_pylist(), strict=True)
    ]


def keys(table: pa.Table, columns: Sequence[str]) -> list[tuple]:
    """Return the values of some columns, row by row."""
    return list(zip(*(table[name].to_pylist() for name in columns), strict=True))
