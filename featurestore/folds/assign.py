"""Assignment to folds: by scikit-learn, or beside the folds that are known already."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.errors import FoldError
from featurestore.folds.balance import exchanged, imbalance, optimal_folds
from featurestore.folds.extend import NEW, Codes, extended_groups, extended_tiles
from featurestore.folds.units import TILES, group_codes, unit_columns
from featurestore.spec.rules import FoldRules
from featurestore.views.folds import KEY

ANEW, SKLEARN = "folds=new, ", "fold_rule=sklearn, "


@dataclass(frozen=True)
class Folds:
    """Folds of groups, or of tiles.

    Parameters
    ----------
    rows
        The columns of a unit (`featurestore.folds.units.unit_columns`), then ``fold``: a row for
        each tile, or for each slide of each group. What has no tile of a class that is in ``k``
        groups has none.
    rare
        The classes that are dropped, with the number of groups (tiles, under ``stratified``) that
        each is in.
    known
        How many groups, or tiles, had their folds.
    new
        How many had none.
    imbalance
        How uneven folds of groups are, before and after they are evened out.
    """

    rows: pa.Table
    rare: dict[str, int]
    known: int
    new: int
    imbalance: dict[str, float] = field(default_factory=dict)


def assign_folds(units: pa.Table, rules: FoldRules, known: Codes | None = None) -> Folds:
    """Assign each group, or each tile, to one of ``k`` folds, class shares kept alike.

    Parameters
    ----------
    units
        Under ``stratified`` a row for each surviving tile, sorted by key so that the seed alone
        decides: ``slide_id, x, y, label, target``. Under ``stratified_group`` a row for each group,
        slide and class, in any order: the group's column, ``slide_id, label, target`` and how many
        tiles that is (`featurestore.folds.units.TILES`).
    rules
        Strategy, group, number of folds, seed and balance.
    known
        The fold of each tile, or of each group in the order of their values, which it keeps;
        `featurestore.folds.extend.NEW` where it has none. Without any, scikit-learn assigns: ties
        are broken as there on the classes' indices and the groups' own values.

    Raises
    ------
    FoldError
        There are fewer than ``k`` groups, or a fold would stay empty, or without a class.

    Examples
    --------
    >>> units = pa.table(
    ...     {
    ...         "slide_id": ["a", "a", "b", "b"],
    ...         "label": ["Fat", "Nerve", "Fat", "Nerve"],
    ...         "target": [0, 1, 0, 1],
    ...         "kept_tiles": [1, 1, 1, 1],
    ...     }
    ... )
    >>> folds = assign_folds(units, FoldRules("stratified_group", k=2)).rows
    >>> folds.column_names, folds["slide_id"].to_pylist(), sorted(folds["fold"].to_pylist())
    (['slide_id', 'fold'], ['a', 'b'], [0, 1])
    """
    if rules.kfold_strategy == "stratified":
        return _tile_folds(units, rules, known)
    return _group_folds(units, rules, known)


def _tile_folds(tiles: pa.Table, rules: FoldRules, known: Codes | None) -> Folds:
    labels, names = _classes(tiles)
    spread = np.bincount(labels, minlength=len(names))
    rare = rare_classes(dict(zip(names, spread.tolist(), strict=True)), rules)
    kept = np.flatnonzero(spread[labels] >= rules.k)
    if known is None:
        from sklearn.model_selection import StratifiedKFold  # more than a second; few need it

        folds = _split(StratifiedKFold, labels[kept], None, rules)
    else:
        folds = extended_tiles(labels[kept], known[kept], rules.k, rules.seed)
    cells = np.zeros((rules.k, len(names)), dtype=np.int64)
    np.add.at(cells, (folds, labels[kept]), 1)
    check_cells(cells, names, rules, ANEW)
    had = 0 if known is None else int((known[kept] != NEW).sum())
    rows = tiles.select(list(KEY)).take(kept).append_column("fold", pa.array(folds))
    return Folds(rows, rare, had, len(kept) - had)


def _group_folds(units: pa.Table, rules: FoldRules, known: Codes | None) -> Folds:
    groups, values = group_codes(units[rules.kfold_group])
    labels, names = _classes(units)
    counts = np.zeros((len(values), len(names)), dtype=np.int64)
    np.add.at(counts, (groups, labels), units[TILES].to_numpy())
    spread = (counts > 0).sum(axis=0)
    rare = rare_classes(dict(zip(names, spread.tolist(), strict=True)), rules)
    held = np.flatnonzero(spread >= rules.k)
    present = np.flatnonzero(counts[:, held].sum(axis=1))
    counts = counts[present][:, held]
    had = None if known is None else known[present]
    folds, imbalances = _fresh(counts, rules) if had is None else _extended(counts, had, rules)
    cells = np.zeros((rules.k, len(held)), dtype=np.int64)
    np.add.at(cells, folds, counts)
    even = "balance=optimal, " if rules.balance == "greedy" else ""
    advice = even if had is None else ANEW
    check_cells(cells, [names[code] for code in held], rules, advice)
    fold_of = np.full(len(values), NEW)
    fold_of[present] = folds
    rows = _slides(units.filter(pa.array(fold_of[groups] != NEW)), unit_columns(rules))
    numbers = pc.index_in(rows[rules.kfold_group], value_set=values).to_numpy()
    rows = rows.append_column("fold", pa.array(fold_of[numbers]))
    number = 0 if had is None else int((had != NEW).sum())
    return Folds(rows, rare, number, len(present) - number, imbalances)


def _fresh(counts: Codes, rules: FoldRules) -> tuple[Codes, dict[str, float]]:
    """Return the fold of each group, evened out if asked for, and how uneven folds are."""
    folds = _scikit_learns(counts, rules)
    imbalances = {"greedy": imbalance(counts, folds, rules.k)}
    if rules.balance == "optimal":
        folds = optimal_folds(counts, rules.k, folds)
        imbalances["optimal"] = imbalance(counts, folds, rules.k)
    return folds, imbalances


def _extended(counts: Codes, had: Codes, rules: FoldRules) -> tuple[Codes, dict[str, float]]:
    """Return as `_fresh`; what had a fold keeps it."""
    folds = extended_groups(counts, had, rules.k, rules.seed)
    imbalances = {"greedy": imbalance(counts, folds, rules.k)}
    if rules.balance == "optimal":
        folds = exchanged(counts, rules.k, folds, free=had == NEW)
        imbalances["optimal"] = imbalance(counts, folds, rules.k)
    return folds, imbalances


def _slides(units: pa.Table, columns: list[str]) -> pa.Table:
    distinct = units.select(columns).group_by(columns).aggregate([])
    return distinct.sort_by([(name, "ascending") for name in columns])


def _scikit_learns(counts: Codes, rules: FoldRules) -> Codes:
    """Return the fold that scikit-learn gives each group, which asks for a row a tile."""
    from sklearn.model_selection import StratifiedGroupKFold  # more than a second; few need it

    groups, classes = counts.shape
    tiles = counts.ravel()
    labels = np.repeat(np.tile(np.arange(classes), groups), tiles)
    of_group = np.repeat(np.arange(groups), counts.sum(axis=1))
    folds = np.zeros(groups, dtype=np.int64)
    folds[of_group] = _split(StratifiedGroupKFold, labels, of_group, rules)
    return folds


def _split(splitter: Any, labels: Codes, groups: Codes | None, rules: FoldRules) -> Codes:
    """Return the fold of each row, as one of scikit-learn's splitters gives them."""
    folds = np.zeros(len(labels), dtype=np.int64)
    split = splitter(n_splits=rules.k, shuffle=True, random_state=rules.seed)
    for fold, (_, validation) in enumerate(split.split(labels, labels, groups)):
        _check_filled(fold, len(validation), rules)
        folds[validation] = fold
    return folds


def _classes(units: pa.Table) -> tuple[Codes, list[str]]:
    """Return the class of each row, numbered in the order of targets, and the classes' names."""
    classes = units.select(["target", "label"]).group_by(["target", "label"]).aggregate([])
    return group_codes(units["target"])[0], classes.sort_by("target")["label"].to_pylist()


def rare_classes(spread: dict[str, int], rules: FoldRules) -> dict[str, int]:
    """Return the classes that are in fewer than ``k`` groups, or tiles, with how many that is.

    Parameters
    ----------
    spread
        In how many groups, or tiles, each class is.

    Raises
    ------
    FoldError
        That is each of them.
    """
    rare = {name: count for name, count in spread.items() if count < rules.k}
    if len(rare) == len(spread):
        most = max(spread.values(), default=0)
        grouped = rules.kfold_strategy == "stratified_group"
        raise FoldError(
            f"{rules.k} folds cannot be assigned: no class has {rules.k} "
            + (f"different values of {rules.kfold_group}" if grouped else "tiles"),
            found="; ".join(f"{name} in {count}" for name, count in spread.items()),
            fix=(f"set k to at most {most}, or " if most > 1 else "") + "loosen the thresholds",
        )
    return rare


def check_hashed(distribution: pa.Table, rules: FoldRules) -> dict[str, int]:
    """Return the rare classes of folds by a hash, as `rare_classes` does; check the others.

    Parameters
    ----------
    distribution
        Of survivors, see `featurestore.views.fates.distribution_view`.

    Raises
    ------
    FoldError
        There are too few tiles, or a fold would stay empty, or without a class.
    """
    labels, values = group_codes(distribution["label"])
    cells = np.zeros((rules.k, len(values)), dtype=np.int64)
    cells[distribution["fold"].to_numpy(), labels] = distribution["tiles"].to_numpy()
    names, spread = values.to_pylist(), cells.sum(axis=0)
    rare = rare_classes(dict(zip(names, spread.tolist(), strict=True)), rules)
    check_cells(cells[:, spread >= rules.k], [n for n in names if n not in rare], rules, SKLEARN)
    return rare


def check_cells(cells: Codes, names: list[str], rules: FoldRules, advice: str) -> None:
    """Refuse folds without a tile, and those without one of a class unless that is allowed.

    Parameters
    ----------
    cells
        Tiles per fold and class, shape (k, classes).
    names
        Of the classes.
    advice
        What else would help, for the message.
    """
    for fold, tiles in enumerate(cells.sum(axis=1).tolist()):
        _check_filled(fold, tiles, rules)
    empty = np.argwhere((cells == 0) & (cells.sum(axis=0) > 0)).tolist()
    if empty and not rules.allow_empty_class:
        raise FoldError(
            f"{len(empty)} folds would have no tile of a class",
            found="; ".join(f"fold {fold} has no {names[code]}" for fold, code in empty[:5]),
            fix=f"set {advice}another k or seed, or allow_empty_class=true",
        )


def _check_filled(fold: int, tiles: int, rules: FoldRules) -> None:
    if tiles == 0:
        raise FoldError(
            f"Fold {fold} of {rules.k} would have no tile",
            found="groups of very unequal size, or a cohort that has shrunk",
            fix="set a smaller k, another seed, folds=new, or kfold_strategy=stratified",
        )
