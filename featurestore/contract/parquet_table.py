"""A Parquet artifact as a lazy table, with one type a column whichever file a row is of.

Files of one schema are read together and cast to the artifact's types: no file's footer decides how
the values of another are read. What cannot be cast without a loss is among `disagreements`.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import pyarrow as pa
from ibis.backends.sql import SQLBackend
from ibis.formats.pyarrow import PyArrowType

from featurestore.backend import engine
from featurestore.backend.layout import Layout
from featurestore.contract.object_rows import object_rows, objects_of
from featurestore.io.parquet import Dataset, Fragment
from featurestore.spec.literals import AbsentCoverage
from featurestore.views.classes import COVERAGE

INTEGERS = ("x", "y", "fold")
"""Columns that are integers where folders give them; all others are text then."""
NAMES = ("slide_id", "id", "patient_id")
"""Columns of text that say which slide or patient a row is of: in Unicode's normal form C."""
FOLDER = pa.string()  # the type of what a folder's name says
WIDTHS = ("halffloat", "float", "double")
LIST_TYPES = (
    pa.ListType, pa.LargeListType, pa.FixedSizeListType, pa.ListViewType, pa.LargeListViewType,
)  # fmt: skip
LISTS = tuple(f"list of {width}" for width in WIDTHS)


@dataclass(frozen=True)
class ReadOptions:
    """How the columns of an artifact are read, beside what its files say.

    Parameters
    ----------
    names
        Columns of text to bring to Unicode's normal form C.
    absent_coverage
        With ``zero`` a coverage is that where a file lacks its column.
    """

    names: Collection[str] = NAMES
    absent_coverage: AbsentCoverage = "refuse"


DEFAULT = ReadOptions()


class Disagreement(NamedTuple):
    """Two files of an artifact that do not have a column alike; None for lacking it."""

    column: str
    first: str
    first_type: pa.DataType | None
    other: str
    other_type: pa.DataType | None


def open_table(
    connection: SQLBackend, dataset: Dataset, options: ReadOptions = DEFAULT
) -> ir.Table:
    """Return the rows of an artifact, in no order.

    Parameters
    ----------
    connection
        The engine.
    dataset
        Its files. Those that have no `disagreements` are read without a loss.
    options
        How columns are read.
    """
    objects = objects_of(connection, dataset.identities)
    groups, types = by_schema(dataset, objects), column_types(dataset)
    tables = []
    for fragments in groups:
        paths, layout = [f.path for f in fragments], _layout(fragments, types, options.names)
        content = object_rows(connection, fragments, objects) if paths[0] in objects else None
        table = engine.read_parquet(connection, paths, layout, content)
        given = set(INTEGERS) & set(fragments[0].partition) - set(fragments[0].schema.names)
        casts = len(groups) > 1 or given
        tables.append(_cast(table, types, options.absent_coverage) if casts else table)
    table = ibis.union(*tables) if len(tables) > 1 else tables[0]
    return table.rename({normal(name): name for name in types if normal(name) != name})


def normal(text: str) -> str:
    """Return a text in Unicode's normal form C."""
    return unicodedata.normalize("NFC", text)


def by_schema(dataset: Dataset, apart: Collection[Path] = ()) -> list[list[Fragment]]:
    """Return the files with rows, those of like columns together, in the order of the first.

    Parameters
    ----------
    apart
        Files that stand with no others.
    """
    groups: dict[tuple[object, ...], list[Fragment]] = defaultdict(list)
    for fragment in dataset.filled:
        columns = ((field.name, str(field.type)) for field in fragment.schema)
        like = (*columns, *fragment.partition, *fragment.written.items(), fragment.path in apart)
        groups[like].append(fragment)
    return list(groups.values())


def _layout(
    fragments: Sequence[Fragment], types: dict[str, dt.DataType], names: Collection[str]
) -> Layout:
    first = fragments[0]
    given = [name for name in first.partition if name not in first.schema.names]
    text = [name for name, kind in types.items() if name in names and kind == dt.string]
    return Layout(
        columns=first.schema.names,
        partitions={name: [fragment.partition[name] for fragment in fragments] for name in given},
        normal=text,
        written=first.written,
        suffixes=first.suffixes,
    )


def _cast(table: ir.Table, types: dict[str, dt.DataType], absent: AbsentCoverage) -> ir.Table:
    columns = {name: _column(table, name, kind, absent) for name, kind in types.items()}
    return table.select(**columns)


def _column(table: ir.Table, name: str, kind: dt.DataType, absent: AbsentCoverage) -> ir.Value:
    if name not in table.columns:
        zero = absent == "zero" and name.startswith(COVERAGE)
        return ibis.literal(0).cast(kind) if zero else ibis.null(kind)
    return table[name] if kind == dt.unknown else table[name].cast(kind)


def column_types(dataset: Dataset) -> dict[str, dt.DataType]:
    """Return the type of each column of an artifact, wide enough for the values of all files.

    Coverages stand in an order that all files have, see `coverage_order`.
    """
    types: dict[str, dt.DataType] = {}
    first_of_each = [fragments[0] for fragments in by_schema(dataset)]
    ordered = iter(coverage_order(dataset))
    columns = [next(ordered) if c.startswith(COVERAGE) else c for c in dataset.columns]
    for name in columns:
        present = [t for f in first_of_each if (t := _type(f, name)) is not None]
        types[name] = _common(name, [t for t in present if not pa.types.is_null(t)])
    return types


def coverage_order(dataset: Dataset) -> list[str]:
    """Return the names of an artifact's coverages, those of each file in the file's order.

    Raises
    ------
    graphlib.CycleError
        Files have them in different orders.
    """
    order: TopologicalSorter[str] = TopologicalSorter()
    for columns in dict.fromkeys(tuple(coverages(fragment)) for fragment in dataset.filled):
        for name in columns:
            order.add(name)
        for before, after in pairwise(columns):
            order.add(after, before)
    return list(order.static_order())


def coverages(fragment: Fragment) -> list[str]:
    """Return the names of a file's coverages, in its order."""
    names = dict.fromkeys([*fragment.schema.names, *fragment.partition])
    return [name for name in names if name.startswith(COVERAGE)]


def _common(name: str, types: Sequence[pa.DataType]) -> dt.DataType:
    kinds = {kind(arrow) for arrow in types}
    if kinds == {"integer"}:
        return dt.int64
    if len(kinds) > 1 and kinds <= set(LISTS):
        return dt.Array(dt.float64)
    if len(kinds) > 1 and kinds <= set(WIDTHS):
        return dt.float64
    if not types or "text" in kinds:
        return dt.string
    try:
        return PyArrowType.to_ibis(types[0])
    except (NotImplementedError, KeyError, TypeError):
        return dt.unknown


def kind(arrow: pa.DataType) -> str:
    """Return the name of a column's type, one for all types that mean the same values."""
    if isinstance(arrow, pa.BaseExtensionType):
        return kind(arrow.storage_type)
    if pa.types.is_dictionary(arrow):
        return kind(arrow.value_type)
    if pa.types.is_string(arrow) or pa.types.is_large_string(arrow) or arrow == pa.string_view():
        return "text"
    if pa.types.is_integer(arrow):
        return "integer"
    if isinstance(arrow, LIST_TYPES):
        return f"list of {kind(arrow.value_type)}"
    if pa.types.is_timestamp(arrow):
        return "timestamp with a time zone" if arrow.tz else "timestamp"
    return str(arrow)


def disagreements(dataset: Dataset) -> Iterator[Disagreement]:
    """Find the columns that two files do not have alike, each once for either reason.

    One of them lacks it; or one type would change its values: integers and doubles, text and
    numbers, and, of coverages, single and double floats.
    """
    first_of_each = [fragments[0] for fragments in by_schema(dataset)]
    for name in dataset.columns:
        pairs = [(fragment, _type(fragment, name)) for fragment in first_of_each]
        one, reference = next(
            (pair for pair in pairs if pair[1] is not None and not pa.types.is_null(pair[1])),
            pairs[0],
        )
        unlike = [pair for pair in pairs if not _alike(name, reference, pair[1])]
        for reasons in ([p for p in unlike if p[1] is None], [p for p in unlike if p[1]]):
            for other, arrow in reasons[:1]:
                yield Disagreement(name, one.name, reference, other.name, arrow)


def _type(fragment: Fragment, name: str) -> pa.DataType | None:
    """Return the type of a column in a file; None if it is neither there nor given by folders."""
    if name in fragment.schema.names:
        return fragment.schema.field(name).type
    if name not in fragment.partition:
        return None
    return pa.int64() if name in INTEGERS else FOLDER


def _alike(name: str, one: pa.DataType | None, other: pa.DataType | None) -> bool:
    if one is None or other is None:
        return one is other
    kinds = {kind(one), kind(other)}
    if len(kinds) == 1 or "null" in kinds:
        return True
    if name.startswith(COVERAGE):
        return False
    return kinds <= set(WIDTHS) or kinds <= set(LISTS)
