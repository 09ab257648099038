"""Folds: assignment by scikit-learn, the split of one fold, and the check for leaks."""

import json

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.errors import FoldError
from featurestore.spec.rules import FoldRules
from featurestore.views.folds import KEY, RARE

IMBALANCE = "imbalance"
Codes = npt.NDArray[np.int64]


def assign_folds(tiles: pa.Table, rules: FoldRules) -> pa.Table:
    """Assign each surviving tile to one of ``k`` folds, class shares kept alike.

    Parameters
    ----------
    tiles
        ``slide_id, x, y, label, target`` and the group's column, sorted by key so that the seed
        alone decides; under ``stratified_group`` no order of rows changes a fold.
    rules
        Strategy, group, number of folds, seed and balance.

    Returns
    -------
    pa.Table
        ``slide_id, x, y, fold``; ``fold`` is null for the tiles of a rare class, one in fewer
        than ``k`` groups (tiles, under ``stratified``); see `rare_classes`. Ties are broken as by
        scikit-learn on the classes' indices and the groups' own values.

    Raises
    ------
    FoldError
        There are fewer than ``k`` groups, or a fold would stay empty, or without a class.

    Examples
    --------
    >>> tiles = pa.table(
    ...     {
    ...         "slide_id": ["a", "a", "b", "b"],
    ...         "x": [0, 1, 0, 1],
    ...         "y": [0, 0, 0, 0],
    ...         "label": ["Fat", "Nerve", "Fat", "Nerve"],
    ...         "target": [0, 1, 0, 1],
    ...     }
    ... )
    >>> folds = assign_folds(tiles, FoldRules("stratified_group", k=2))["fold"].to_pylist()
    >>> folds[0] == folds[1], folds[2] == folds[3], sorted(set(folds))
    (True, True, [0, 1])
    """
    # scikit-learn costs more than a second to import; few commands assign folds.
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    k, grouped = rules.k, rules.kfold_strategy == "stratified_group"
    labels, names = _classes(tiles)
    groups = _ranks(tiles[rules.kfold_group]) if grouped else np.arange(len(tiles))
    spread = {name: len(np.unique(groups[labels == code])) for code, name in enumerate(names)}
    rare = {name: count for name, count in spread.items() if count < k}
    kept = ~np.isin(labels, [names.index(name) for name in rare])
    most = max(spread.values(), default=0)
    if len(np.unique(groups[kept])) < k:
        raise FoldError(
            f"{k} folds cannot be assigned: no class has {k} "
            + (f"different values of {rules.kfold_group}" if grouped else "tiles"),
            found=_counts(spread),
            fix=(f"set k to at most {most}, or " if most > 1 else "") + "loosen the thresholds",
        )
    splitter = (StratifiedGroupKFold if grouped else StratifiedKFold)(
        n_splits=k, shuffle=True, random_state=rules.seed
    )
    folds = np.full(len(tiles), -1, dtype=np.int64)
    rows = np.flatnonzero(kept)
    given = groups[kept] if grouped else None  # StratifiedKFold warns of groups it ignores
    for fold, (_, validation) in enumerate(splitter.split(rows, labels[kept], given)):
        if len(validation) == 0:
            raise FoldError(
                f"Fold {fold} of {k} would have no tile",
                found="groups of very unequal size",
                fix="set a smaller k, another seed, or kfold_strategy=stratified",
            )
        folds[rows[validation]] = fold
    imbalances_of: dict[str, float] = {}
    if grouped:
        folds[rows], imbalances_of = _balanced(
            groups[kept], labels[kept], folds[kept], names, rules
        )
    column = pc.if_else(pa.array(folds >= 0), pa.array(folds), pa.scalar(None, pa.int64()))
    table = tiles.select(list(KEY)).append_column("fold", column)
    return table.replace_schema_metadata(
        {RARE: json.dumps(rare), IMBALANCE: json.dumps(imbalances_of)}
    )


def _classes(tiles: pa.Table) -> tuple[Codes, list[str]]:
    """Return the class of each tile, numbered in the order of targets, and the classes' names."""
    classes = tiles.select(["target", "label"]).group_by(["target", "label"]).aggregate([])
    return _ranks(tiles["target"]), classes.sort_by("target")["label"].to_pylist()


def _ranks(column: pa.ChunkedArray) -> Codes:
    """Number values by their own order, as scikit-learn does, not by that of the rows."""
    coded = column.combine_chunks().dictionary_encode()
    rank = np.empty(len(coded.dictionary), dtype=np.int64)
    rank[pc.array_sort_indices(coded.dictionary).to_numpy()] = np.arange(len(rank))
    return rank[coded.indices.to_numpy()]


def _balanced(
    groups: Codes, labels: Codes, greedy: Codes, names: list[str], rules: FoldRules
) -> tuple[Codes, dict[str, float]]:
    """Return the fold of each tile, improved if asked for, and how uneven each assignment is."""
    from featurestore.folds.balance import empty_cells, imbalance, optimal_folds  # scipy is slow

    k = rules.k
    distinct, row = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(distinct), len(names)), dtype=np.int64)
    np.add.at(counts, (row, labels), 1)
    present = np.flatnonzero(counts.sum(axis=0))  # rare classes have been taken out
    counts = counts[:, present]
    fold = np.zeros(len(distinct), dtype=np.int64)
    fold[row] = greedy
    imbalances_of = {"greedy": imbalance(counts, fold, k)}
    if rules.balance == "optimal":
        fold = optimal_folds(counts, k, start=fold)
        imbalances_of["optimal"] = imbalance(counts, fold, k)
    empty = empty_cells(counts, fold, k)
    if empty and not rules.allow_empty_class:
        raise FoldError(
            f"{len(empty)} folds would have no tile of a class",
            found="; ".join(f"fold {f} has no {names[present[c]]}" for f, c in empty[:5]),
            fix=("set balance=optimal, " if rules.balance == "greedy" else "")
            + "another k or seed, or allow_empty_class=true",
        )
    return fold[row], imbalances_of


def imbalances(folds: pa.Table) -> dict[str, float]:
    """Return how uneven an assignment by groups is, before and after it is evened out."""
    return json.loads((folds.schema.metadata or {}).get(IMBALANCE.encode(), b"{}"))


def rare_classes(folds: pa.Table) -> dict[str, int]:
    """Return the classes that an assignment dropped, with the number of groups each is in."""
    return json.loads((folds.schema.metadata or {}).get(RARE.encode(), b"{}"))


def _counts(spread: dict[str, int]) -> str:
    return "; ".join(f"{name} in {count}" for name, count in spread.items())
