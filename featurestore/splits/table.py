"""A split as a table: a row a group, its side, and its slides."""

from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.errors import SchemaError
from featurestore.folds.assignment import GONE, Assignment
from featurestore.spec.split_rules import SplitRules
from featurestore.splits.assign import SIDES

FILE = "split.parquet"
SIDE, SLIDES = "split", "slides"
Lists = dict[object, list[str]]


def check_name(rules: SplitRules) -> None:
    """Refuse a group whose column would be another one of the table.

    Raises
    ------
    SchemaError
        It would.
    """
    if rules.group.casefold() in (SIDE, SLIDES, GONE):
        raise SchemaError(
            f"Tiles cannot be split by a column called {rules.group!r}",
            found=f"{FILE} has columns {SIDE}, {SLIDES} and {GONE} of its own",
            fix="rename the column",
        )


def to_table(assignment: Assignment, group: str) -> pa.Table:
    """Return the group's column, ``split`` (train or test), ``slides`` and ``gone``.

    ``gone`` are slides that the group had and that are in the cohort no more; a group without
    ``slides`` is gone itself. Both are remembered for the day when they come back.
    """
    rows = assignment.table
    sides: dict[object, str] = {}
    slides: tuple[Lists, Lists] = (defaultdict(list), defaultdict(list))
    columns = (rows[name].to_pylist() for name in (group, "fold", "slide_id", GONE))
    for value, fold, slide, gone in zip(*columns, strict=True):
        sides.setdefault(value, SIDES[fold])
        slides[gone][value].append(slide)
    lists = pa.list_(pa.string())
    return pa.table(
        {
            group: pa.array(sides, rows.schema.field(group).type),
            SIDE: pa.array(sides.values(), pa.string()),
            SLIDES: pa.array([slides[0][value] for value in sides], lists),
            GONE: pa.array([slides[1][value] for value in sides], lists),
        }
    ).replace_schema_metadata(rows.schema.metadata)


def of_table(table: pa.Table, group: str) -> pa.Table:
    """Return the rows that `to_table` was made of: the group, its slides, ``fold`` and `GONE`."""
    parts = []
    for name, gone in ((SLIDES, False), (GONE, True)):
        lists = table[name].combine_chunks()
        of_group = pc.list_parent_indices(lists)
        columns = {
            group: table[group].take(of_group),
            "slide_id": pc.list_flatten(lists),
            "fold": pc.index_in(table[SIDE], pa.array(SIDES)).cast(pa.int64()).take(of_group),
            GONE: pa.array(np.full(len(of_group), gone)),
        }
        parts.append(pa.table(columns))
    return pa.concat_tables(parts)
