"""What the files of one artifact must have alike, before any of their rows is read."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import replace
from graphlib import CycleError
from itertools import pairwise

import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq
from ibis.backends.sql import SQLBackend

from featurestore.backend import engine
from featurestore.contract.object_rows import object_rows, objects_of
from featurestore.contract.parquet_table import (
    DEFAULT,
    INTEGERS,
    NAMES,
    Disagreement,
    ReadOptions,
    by_schema,
    coverage_order,
    coverages,
    disagreements,
    kind,
    normal,
    open_table,
)
from featurestore.contract.violation import Violation, heed
from featurestore.errors import EmbeddingError
from featurestore.io.parquet import Dataset, Fragment
from featurestore.spec.literals import AbsentCoverage
from featurestore.spec.store_spec import COLUMNS
from featurestore.views.classes import COVERAGE
from featurestore.views.columns import passed
from featurestore.views.folds import KEY

READ = (*KEY, "fold", "embedding", "patient_id")
"""Columns that rules read, besides coverages."""
SLIDES = "slides"  # what that artifact is called in messages
SHOWN = 3  # names in a message


def checked_table(
    connection: SQLBackend, dataset: Dataset, artifact: str, options: ReadOptions = DEFAULT
) -> ir.Table:
    """Return the rows of an artifact, in no order, once its files are known to agree.

    Parameters
    ----------
    connection
        The engine.
    dataset
        Its files.
    artifact
        Its name in messages, for example ``test tiles``.
    options
        How columns are read.

    Raises
    ------
    SchemaError
        They do not agree.
    """
    heed(violations(dataset, artifact, options.absent_coverage))
    heed(renamed(connection, dataset, artifact))
    return rows(connection, dataset, artifact, options)


def rows(
    connection: SQLBackend, dataset: Dataset, artifact: str, options: ReadOptions = DEFAULT
) -> ir.Table:
    """Return the rows of an artifact, in no order; a slide that several files have alike is one.

    Parameters
    ----------
    connection, dataset, artifact, options
        As of `checked_table`, which looks at the files before.
    """
    table = open_table(connection, dataset, options)
    return table.distinct() if artifact == SLIDES and len(dataset.filled) > 1 else table


def violations(
    dataset: Dataset, artifact: str, absent: AbsentCoverage = "refuse"
) -> Iterator[Violation]:
    """Find what the files of an artifact do not have alike, and what was left out of it.

    Parameters
    ----------
    dataset
        Its files.
    artifact
        Its name in messages, for example ``test tiles``.
    absent
        What a coverage is in files without its column.
    """
    broken = list(_named(dataset, artifact))
    yield from broken
    if broken:
        return  # no column can be asked for by its name
    yield from _names(dataset.columns, artifact)
    yield from _folders(dataset, artifact)
    yield from _numbers(dataset, artifact)
    for disagreement in disagreements(dataset):
        yield _disagreement(disagreement, artifact, absent)
    yield from _half_floats(dataset, artifact)
    yield from _no_values(dataset, artifact)
    yield from _order(dataset, artifact)
    yield from _overridden(dataset, artifact)
    if dataset.left_out:
        yield Violation(
            f"{artifact} leave out Parquet files whose names begin with _ or ., or do not end in "
            ".parquet",
            f"{len(dataset.left_out):,}: {', '.join(dataset.left_out[:SHOWN])}",
            "nothing, if they are leftovers; else rename them",
            severity="warning",
        )


def renamed(connection: SQLBackend, dataset: Dataset, artifact: str) -> Iterator[Violation]:
    """Find names of slides and patients that are read in another Unicode form than written."""
    objects = objects_of(connection, dataset.identities)
    for name in [name for name in NAMES if name in dataset.columns]:
        changed: set[str] = set()
        for fragments in by_schema(dataset, objects):
            if _is_text(fragments[0], name):
                paths, written = [f.path for f in fragments], fragments[0].column(name)
                rows = object_rows(connection, fragments, objects) if paths[0] in objects else None
                changed.update(engine.unnormalised(connection, paths, written, rows))
        given = {fragment.partition.get(name) for fragment in dataset.filled} - {None}
        changed.update(text for text in given if text and normal(text) != text)
        if changed:
            yield Violation(
                f"{artifact} have values of {name} that are not in Unicode's normal form C, and "
                "are read in it",
                f"{len(changed):,}: {', '.join(map(repr, sorted(changed)[:SHOWN]))}",
                "nothing, if they name the same as the composed form does elsewhere",
                severity="warning",
            )


def _is_text(fragment: Fragment, name: str) -> bool:
    return name in fragment.schema.names and kind(fragment.schema.field(name).type) == "text"


def _named(dataset: Dataset, artifact: str) -> Iterator[Violation]:
    """Find files with two columns of one name, or with one that has no name."""
    for fragment in dataset.filled:
        names = fragment.schema.names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or "" in names:
            yield Violation(
                f"a file of the {artifact} has columns without a name of their own",
                f"{fragment.name}: {', '.join(map(repr, twice or ['']))}",
                "name each column once",
            )
            return


def _names(columns: Collection[str], artifact: str) -> Iterator[Violation]:
    """Find names that SQL or a person takes for one another, or for a name of the contract."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in columns:
        alike[normal(name.casefold())].append(name)
    for folded, names in alike.items():
        meant = next((n for n in READ if n == folded), None)
        if folded.startswith(COVERAGE) and not normal(names[0]).startswith(COVERAGE):
            meant = COVERAGE + names[0][len(COVERAGE) :]
        if len(names) > 1:
            yield Violation(
                f"{artifact} have columns that differ in case alone, or in their Unicode form",
                ", ".join(map(repr, names)),
                "rename all but one of them",
            )
        elif meant and names[0] != meant:
            yield Violation(
                f"{artifact} have a column {names[0]!r} that differs from {meant!r} in case alone",
                f"columns {', '.join(columns)}",
                f"rename it to {meant!r}, or to something else"
                + (
                    f"; or say that it is that column: data.columns.{meant}={names[0]}"
                    if meant in COLUMNS
                    else ""
                ),
            )


def _folders(dataset: Dataset, artifact: str) -> Iterator[Violation]:
    """Find files below other partitions, folders ``name=value``, than the first of their place.

    What folders say in one place may be a column in another: each is a writer's of its own.
    """
    firsts: dict[int, Fragment] = {}
    for fragment in dataset.filled:
        first = firsts.setdefault(fragment.place, fragment)
        if list(fragment.partition) != list(first.partition):
            yield Violation(
                f"the files of the {artifact} lie below different partitions",
                f"{first.name}: {', '.join(first.partition) or 'none'}; "
                f"{fragment.name}: {', '.join(fragment.partition) or 'none'}",
                "move them, name the folders otherwise than NAME=VALUE, or list the places one by "
                "one",
            )
            return


def _numbers(dataset: Dataset, artifact: str) -> Iterator[Violation]:
    """Find folders that give something else to a column of integers."""
    for fragment in dataset.filled:
        for name in (n for n in fragment.partition if n in INTEGERS):
            value = fragment.partition[name]
            if value is not None and not re.fullmatch(r"-?\d{1,18}", value, re.ASCII):
                yield Violation(
                    f"a folder of the {artifact} gives a {name} that is no integer",
                    fragment.name,
                    f"rename the folder {name}=..., or write {name} into the files",
                )
                return


def _disagreement(disagreement: Disagreement, artifact: str, absent: AbsentCoverage) -> Violation:
    """Say in what two files disagree; a column that no rule reads may be lacking."""
    name, fix = disagreement.column, "write all files with the same columns and types"
    lacking = disagreement.first_type is None or disagreement.other_type is None
    covers = name.startswith(COVERAGE)
    instead = None
    if lacking and covers and absent == "zero":
        instead = "0.0"
    elif lacking and name in passed([name]) and name not in READ:
        instead = "null"
    elif lacking and covers:
        fix += ", or set absent_coverage=zero if it covers no tile of files without it"
    types = (
        f"{file} has {'no such column' if arrow is None else str(arrow)}"
        for file, arrow in (
            (disagreement.first, disagreement.first_type),
            (disagreement.other, disagreement.other_type),
        )
    )
    return Violation(
        f"the files of the {artifact} do not have the column {name!r} alike"
        + (f": it is {instead} where they lack it" if instead else ""),
        "; ".join(types),
        fix,
        severity="warning" if instead else "error",
    )


def _half_floats(dataset: Dataset, artifact: str) -> Iterator[Violation]:
    """Find coverages in half floats, which engines hand on as single ones: 0.7 is not 0.7 there."""
    fields = (field for fragment in dataset.filled for field in fragment.schema)
    columns = {
        f.name for f in fields if f.name.startswith(COVERAGE) and kind(f.type) == "halffloat"
    }
    if columns:
        yield Violation(
            f"the {artifact} have coverages in half floats, which thresholds cannot be compared "
            "with exactly",
            ", ".join(sorted(columns)),
            "write them as floats or doubles",
        )


def _no_values(dataset: Dataset, artifact: str) -> Iterator[Violation]:
    """Find lists whose type holds no number: of nulls, or of a fixed length of 0."""
    for fragment in dataset.filled:
        if "embedding" in fragment.schema.names:
            arrow = fragment.schema.field("embedding").type
            if kind(arrow) == "list of null" or getattr(arrow, "list_size", None) == 0:
                yield Violation(
                    f"the {artifact} hold no value",
                    f"{fragment.name}: {arrow}",
                    "write one list of numbers per tile",
                    kind=EmbeddingError,
                )
                return


def _order(dataset: Dataset, artifact: str) -> Iterator[Violation]:
    """Find coverages that no one order of columns can have as all files do: it decides ties."""
    try:
        coverage_order(dataset)
    except CycleError as error:
        orders = {}
        for step in pairwise(error.args[1]):  # each before the next in some file
            file = next(f for f in dataset.filled if step in pairwise(coverages(f)))
            orders[file.name] = ", ".join(coverages(file))
        yield Violation(
            f"the files of the {artifact} have their coverages in different orders, and of equal "
            "coverages the first one is the label",
            "; ".join(f"{file}: {order}" for file, order in list(orders.items())[:SHOWN]),
            "write all files with the same columns in the same order",
        )


def _overridden(dataset: Dataset, artifact: str) -> Iterator[Violation]:
    """Find columns of files that say otherwise than the file's folder."""
    for fragment in dataset.filled:
        for name in [name for name in fragment.partition if name in fragment.schema.names]:
            written = fragment.column(name)
            if pa.types.is_nested(fragment.schema.field(name).type):
                replace(dataset, fragments=(fragment,)).fetch()
            column = pq.ParquetFile(fragment.path).read([written])[written]
            nested = pa.types.is_nested(column.type)  # no folder's name is a list
            values = column[:1] if nested else column.unique()
            if nested or not _equal(values, fragment.partition[name]):
                yield Violation(
                    f"a file of the {artifact} has other values of {name!r} than its folder says",
                    f"{fragment.name} holds "
                    + ", ".join(str(value) for value in values[:SHOWN].to_pylist()),
                    "move the file, or drop the column",
                )
                return


def _equal(values: pa.ChunkedArray, text: str | None) -> bool:
    if text is None:
        return values.null_count == len(values)
    arrow = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    try:
        expected = pa.scalar(text).cast(arrow)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    return values.cast(arrow).to_pylist() == [expected.as_py()]
