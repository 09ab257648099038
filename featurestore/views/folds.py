"""Folds as views: which fold a tile is in, and the two sides of one fold."""

from collections.abc import Collection, Sequence

import ibis
import ibis.expr.types as ir

from featurestore.errors import FoldError
from featurestore.views.joins import look_up

KEY = ("slide_id", "x", "y")


RARE = "rare_class"


DIGITS = "0123456789abcdef"
HASHED = 7  # of a hash's digits: 28 bits, for Spark finds letters in integers of 32


def fold_view(
    thresholds: ir.Table, folds: ir.Table | None = None, rare: Collection[str] = ()
) -> ir.Table:
    """Add ``fold`` to the threshold view; a dropped tile has none.

    Parameters
    ----------
    thresholds
        The threshold view. Where the artifact itself has a column ``fold``, pass no ``folds``.
    folds
        An assignment: ``fold``, and beside it what it is of: the key of a tile, or a slide and its
        group. A survivor without a fold in it is dropped by ``rare_class``.
    rare
        Classes with too few groups: so are their tiles.

    Examples
    --------
    >>> import ibis
    >>> keys = {"slide_id": ["a", "a", "b"], "x": [0, 1, 0], "label": ["Fat"] * 3}
    >>> thresholds = ibis.memtable(keys | {"dropped_by": [None, "tissue", None]})
    >>> folds = ibis.memtable({"slide_id": ["a"], "fold": [1]})
    >>> view = fold_view(thresholds, folds).order_by(["slide_id", "x"])
    >>> view.select("fold", "dropped_by").to_pyarrow().to_pylist()[0]
    {'fold': 1, 'dropped_by': None}
    >>> view.dropped_by.to_pyarrow().to_pylist()
    [None, 'tissue', 'rare_class']
    """
    if folds is None:
        return thresholds
    unit = [name for name in folds.columns if name != "fold"]
    # What was remembered as text may be numbers now.
    kinds = {name: thresholds[name].type() for name in unit if folds[name].type().is_string()}
    numbers = {name: kind for name, kind in kinds.items() if not kind.is_string()}
    folds = folds.mutate(**{name: folds[name].cast(kind) for name, kind in numbers.items()})
    return _without_rare(look_up(thresholds, folds, unit, "fold"), rare)


def hashed_fold_view(
    thresholds: ir.Table, k: int, seed: int, rare: Collection[str] = ()
) -> ir.Table:
    """Add ``fold`` to the threshold view by a hash of the key, the same on every engine.

    It is the first `HASHED` digits of the MD5 of ``seed/x/y/slide_id``, modulo ``k``: whatever
    joins or leaves a cohort, and whatever becomes of a label, a tile stays in its fold. Of a label
    with n tiles a fold has n / k, give or take the square root of that.

    Parameters
    ----------
    thresholds, rare
        As of `fold_view`.
    """
    parts = [thresholds.x.cast("string"), thresholds.y.cast("string"), thresholds.slide_id]
    text: ir.StringValue = ibis.literal(str(seed))
    for part in parts:
        text = text + "/" + part
    digest = text.hexdigest("md5")
    # No two engines read hexadecimal digits alike, but all find a letter in a text.
    number = sum(
        ibis.literal(DIGITS).find(digest.substr(place, 1)).cast("int64")
        * 16 ** (HASHED - 1 - place)
        for place in range(HASHED)
    )
    return _without_rare(thresholds.mutate(fold=(number % k).cast("int64")), rare)


def _without_rare(folds: ir.Table, rare: Collection[str]) -> ir.Table:
    """Drop the survivors without a fold, and those of rare classes; none of them has a fold."""
    survives = folds.dropped_by.isnull()
    assigned = survives & folds.fold.notnull()
    if rare:
        assigned = assigned & folds.label.notin(list(rare))
    return folds.mutate(
        fold=ibis.ifelse(assigned, folds.fold, ibis.null(folds.fold.type())),
        dropped_by=ibis.ifelse(survives & ~assigned, RARE, folds.dropped_by),
    )


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
