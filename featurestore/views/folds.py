"""Folds as views: which fold a tile is in, and the two sides of one fold."""

from collections.abc import Sequence

import ibis
import ibis.expr.types as ir

from featurestore.errors import FoldError
from featurestore.views.joins import look_up

KEY = ("slide_id", "x", "y")


RARE = "rare_class"


def fold_view(thresholds: ir.Table, folds: ir.Table | None = None) -> ir.Table:
    """Add ``fold`` to the threshold view.

    Parameters
    ----------
    thresholds
        The threshold view. Where the artifact itself has a column ``fold``, pass no ``folds``.
    folds
        ``slide_id, x, y, fold`` of an assignment. A survivor without a fold in it belongs to a
        class with too few groups and is dropped by ``rare_class``.

    Examples
    --------
    >>> import ibis
    >>> keys = {"slide_id": ["a", "a", "b"], "x": [0, 1, 0], "y": [0, 0, 0]}
    >>> thresholds = ibis.memtable(keys | {"dropped_by": [None, "tissue", None]})
    >>> folds = ibis.memtable({"slide_id": ["a"], "x": [0], "y": [0], "fold": [1]})
    >>> view = fold_view(thresholds, folds).order_by(["slide_id", "x"])
    >>> view.select("fold", "dropped_by").to_pyarrow().to_pylist()[0]
    {'fold': 1, 'dropped_by': None}
    >>> view.dropped_by.to_pyarrow().to_pylist()
    [None, 'tissue', 'rare_class']
    """
    if folds is None:
        return thresholds
    joined = look_up(thresholds, folds, KEY, "fold")
    unassigned = joined.dropped_by.isnull() & joined.fold.isnull()
    return joined.mutate(dropped_by=ibis.ifelse(unassigned, RARE, joined.dropped_by))


def split_view(folds: ir.Table, fold: int) -> ir.Table:
    """Add ``split``: ``validation`` where ``fold`` is this one, else ``train``; null if dropped."""
    return folds.mutate(
        split=ibis.cases(
            (folds.dropped_by.notnull(), ibis.null("string")),
            (folds.fold == fold, "validation"),
            else_="train",
        )
    )


def shared_groups(split: ir.Table, group: str) -> ir.Table:
    """Return the groups with kept tiles on both sides of a split, one row each.

    Columns: the group's, ``train`` and ``validation`` (numbers of tiles).
    """
    split = split.filter(split.split.notnull(), split[group].notnull())
    sides = split.group_by(group).aggregate(
        train=split.count(where=split.split == "train"),
        validation=split.count(where=split.split == "validation"),
    )
    return sides.filter((sides.train > 0) & (sides.validation > 0)).order_by(group)


def check_fold(fold: int, folds: Sequence[int]) -> None:
    """Refuse a fold that is not there.

    Raises
    ------
    FoldError
        ``fold`` is none of ``folds``.
    """
    if fold not in folds:
        raise FoldError(
            f"Fold {fold} does not exist",
            found=f"folds {', '.join(map(str, folds))}",
            fix=f"set fold to one of them, for example fold={folds[-1]}",
        )
