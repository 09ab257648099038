"""Which groups, and which tiles, had a fold in an earlier assignment."""

from collections import defaultdict
from collections.abc import Callable, Mapping

import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.backend import engine, errors
from featurestore.errors import FoldError
from featurestore.folds.extend import NEW, Codes
from featurestore.folds.units import group_codes
from featurestore.spec.rules import FoldRules
from featurestore.views.folds import KEY
from featurestore.views.joins import look_up

SHOWN = 3  # groups named in a message
Told = dict[int, dict[str, int]]
"""By the number of a group: folds by what was in them, for people."""


def known_folds(units: pa.Table, earlier: pa.Table, rules: FoldRules) -> Codes:
    """Return the fold that each group, in the order of their values, or each tile had; or `NEW`.

    Parameters
    ----------
    units
        As of `featurestore.folds.assign.assign_folds`.
    earlier
        The rows of an assignment under the same rules. A group keeps its fold, and so does what
        holds a slide; one that knows no groups tells the folds of slides alone.

    Raises
    ------
    FoldError
        A group would have to move: what it holds now was in several folds.
    """
    if rules.kfold_strategy == "stratified":
        return _of_tiles(units, earlier)
    told, names = earlier_folds(units, earlier, rules.kfold_group)
    _refuse_moves({names[code]: folds for code, folds in told.items()}, rules.kfold_group)
    folds = np.full(len(names), NEW, dtype=np.int64)
    for code, one in told.items():
        folds[code] = next(iter(one.values()))
    return folds


def shared_units(units: pa.Table, earlier: pa.Table, rules: FoldRules) -> int:
    """Return how many groups, or tiles, had a fold, whether or not all can keep it."""
    if rules.kfold_strategy == "stratified":
        return int((_of_tiles(units, earlier) != NEW).sum())
    return len(earlier_folds(units, earlier, rules.kfold_group)[0])


def gone_rows(rows: pa.Table, earlier: pa.Table) -> pa.Table:
    """Return the rows of an earlier assignment whose tile, or slide of a group, is not among these.

    Parameters
    ----------
    rows
        The columns of a unit, then ``fold``.

    Returns
    -------
    pa.Table
        The columns of ``rows``, in their types; as text where a column was text and is numbers now.
    """
    columns = [name for name in rows.column_names if name != "fold"]
    if not set(columns) <= set(earlier.column_names):  # it knows no groups
        return rows.slice(0, 0)
    connection = engine.connect()
    ours = engine.register(connection, "rows", rows)
    theirs = engine.register(connection, "earlier", earlier)
    with errors.translated():
        kinds = {name: _common_kind(theirs[name], kind) for name, kind in ours.schema().items()}
        ours, theirs = (
            table.select(**{name: table[name].cast(kind) for name, kind in kinds.items()})
            for table in (ours, theirs)
        )
        gone = theirs.drop_null().anti_join(ours, columns).order_by(columns).to_pyarrow()
    engine.close(connection)
    texts = {name for name, kind in kinds.items() if kind.is_string()}
    fields = [pa.field(f.name, pa.string()) if f.name in texts else f for f in rows.schema]
    return gone.cast(pa.schema(fields))


def _common_kind(earlier: ir.Column, kind: dt.DataType) -> dt.DataType:
    """Return the type in which a column can be told, as it was and as it is."""
    lost = earlier.notnull() & earlier.try_cast(kind).isnull()
    return dt.string if lost.any().to_pyarrow().as_py() else kind


def _of_tiles(tiles: pa.Table, earlier: pa.Table) -> Codes:
    connection = engine.connect()
    numbered = tiles.select(list(KEY)).append_column("number", pa.array(np.arange(len(tiles))))
    ours = engine.register(connection, "tiles", numbered)
    theirs = engine.register(connection, "earlier", earlier)
    with errors.translated():
        folds = look_up(ours, theirs, KEY, "fold").order_by("number").fold.to_pyarrow()
    engine.close(connection)
    return pc.fill_null(folds, NEW).to_numpy()


def earlier_folds(units: pa.Table, earlier: pa.Table, group: str) -> tuple[Told, list[str]]:
    """Return what is known of the groups that anything is known of, and all groups' values.

    Parameters
    ----------
    units
        With the group's column and ``slide_id``.
    earlier
        ``fold`` beside either of them, or both.
    """
    codes, values = group_codes(units[group])
    names, known = _text(values), _known_values(earlier, group)
    told: Told = defaultdict(dict)
    for code, slide in dict.fromkeys(zip(codes.tolist(), _text(units["slide_id"]), strict=True)):
        for key in ((group, names[code]), ("slide_id", slide)):
            if key in known:
                told[code][" ".join(key)] = known[key]
    return told, names


def _known_values(earlier: pa.Table, group: str) -> dict[tuple[str, str], int]:
    """Return the folds of groups and slides, by column and value; of a divided slide nothing."""
    folds: dict[tuple[str, str], set[int]] = defaultdict(set)
    for column in {group, "slide_id"} & set(earlier.column_names):
        distinct = earlier.select([column, "fold"]).group_by([column, "fold"]).aggregate([])
        for value, fold in zip(_text(distinct[column]), distinct["fold"].to_pylist(), strict=True):
            folds[column, value].add(fold)
    return {key: one.pop() for key, one in folds.items() if len(one) == 1}


def _text(column: pa.ChunkedArray | pa.Array) -> list[str]:
    return column.cast(pa.string()).to_pylist()


def moves(
    earlier: Mapping[str, Mapping[str, int]], group: str, place: Callable[[int], str]
) -> list[str]:
    """Return a line for each group whose members were in several places, in order of names.

    Parameters
    ----------
    earlier
        By group, the number of the place that each of its members was in.
    group
        What a group is: a column.
    place
        A number in words.
    """
    return [
        f"{group} {name}: " + ", ".join(f"{what} was in {place(n)}" for what, n in members.items())
        for name, members in sorted(earlier.items())
        if len(set(members.values())) > 1
    ]


def _refuse_moves(earlier: dict[str, dict[str, int]], group: str) -> None:
    if lines := moves(earlier, group, "fold {}".format):
        raise FoldError(
            f"{len(lines)} values of {group} would have to move: what is one of them now was in "
            "several folds",
            found="; ".join(lines[:SHOWN]),
            fix=f"correct {group}, or set folds=new to assign every group anew",
        )
