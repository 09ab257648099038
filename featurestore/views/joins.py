"""Joins that take nothing of the right-hand table but what is asked for.

Artifacts bring columns of any name. A join that copies the right-hand keys and tells them apart by
a suffix, or that adds a column of its own, would take an artifact's column of that name for it.
"""

from collections.abc import Sequence

import ibis.expr.types as ir


def look_up(left: ir.Table, right: ir.Table, by: Sequence[str], *columns: str) -> ir.Table:
    """Add columns of a table that has one row a key to another; null where it has no such row.

    Parameters
    ----------
    left
        Any table with the key, none of the columns.
    right
        One row a key.
    by
        The key.
    columns
        Names in ``right``.

    Returns
    -------
    ir.Table
        The columns of ``left``, then ``columns``.
    """
    keys = {name: unused(left, f"{name}_right") for name in by}
    values = {name: unused(left, f"{name}_value") for name in columns}
    side = right.select(**{new: right[old] for old, new in (keys | values).items()})
    joined = left.left_join(side, [left[old] == side[new] for old, new in keys.items()])
    return joined.select(*left.columns, **{old: joined[new] for old, new in values.items()})


def common_keys(tables: Sequence[ir.Table], by: Sequence[str]) -> ir.Table:
    """Return the keys that all of some tables have; of a single table it is the table itself.

    Parameters
    ----------
    tables
        One row a key each.
    by
        The key.
    """
    first, *others = tables
    for other in others:
        first = first.semi_join(other, list(by))
    return first


def unused(table: ir.Table, name: str) -> str:
    """Return a name like this one that no column of a table bears; SQL knows no case."""
    taken = {column.casefold() for column in table.columns}
    while name.casefold() in taken:
        name += "_"
    return name
