"""What embeddings are as a whole: their length, and whether some are null, by the footers first."""

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ibis.backends.sql import SQLBackend

from featurestore.contract.parquet_table import kind, open_table
from featurestore.contract.rules import violations_of
from featurestore.contract.violation import Violation
from featurestore.errors import EmbeddingError
from featurestore.io.parquet import Dataset, Fragment, read_footer

TYPES = {"halffloat": "float16", "float": "float32", "double": "float64"}
"""NumPy's names of Arrow's floating point numbers."""


def value_types(dataset: Dataset) -> str:
    """Return the types of the values of embeddings as their files say them, by NumPy's names.

    An engine may widen them: DuckDB has no half floats.
    """
    kinds = {kind(fragment.schema.field("embedding").type) for fragment in dataset.filled}
    names = [each.removeprefix("list of ") for each in sorted(kinds)]
    return " and ".join(TYPES.get(name, name) for name in names)


def dimension(dataset: Dataset) -> int:
    """Return the length of embeddings, if all have the same.

    By the first footer that says it; else that of the first embedding that has any.

    Raises
    ------
    EmbeddingError
        None has: the column is empty lists and nulls.
    """
    for fragment in dataset.filled:
        if length := _written_length(fragment) or _first_length(dataset, fragment):
            return length
    raise EmbeddingError(
        "No embedding holds a value",
        found="empty lists or nulls alone",
        fix="write one list of numbers per tile",
    )


def _written_length(fragment: Fragment) -> int | None:
    """Return the length of the lists of a file by its footer, if that says it."""
    lists = fragment.schema.field("embedding").type
    lists = lists.storage_type if isinstance(lists, pa.BaseExtensionType) else lists
    if isinstance(lists, pa.FixedSizeListType):
        return lists.list_size
    footer = read_footer(fragment.path)
    values = sum(column.num_values for column in _columns(fragment, footer))
    length, rest = divmod(values, footer.num_rows)
    return length if length > 1 and not rest else None  # an empty list counts as one value


def _first_length(dataset: Dataset, fragment: Fragment) -> int | None:
    """Return the length of the first list of a file that has any, which is read."""
    replace(dataset, fragments=(fragment,)).fetch()
    column = fragment.column("embedding")
    with pq.ParquetFile(fragment.path, pre_buffer=False) as file:
        for batch in file.iter_batches(1024, columns=[column]):
            lengths = pc.list_value_length(batch.column(0)).drop_null()
            if len(lengths := lengths.filter(pc.greater(lengths, 0))):
                return int(lengths[0].as_py())
    return None


def null_lists(connection: SQLBackend, dataset: Dataset, artifact: str) -> Iterator[Violation]:
    """Find nulls among embeddings of a fixed length, which Arrow cannot read.

    Asked of the rows only where the footers do not say that there are none.
    """
    fragments = tuple(fragment for fragment in dataset.filled if _may_be_null(fragment))
    if fragments:
        rows = open_table(connection, replace(dataset, fragments=fragments).fetch())
        yield from violations_of(
            rows.filter(rows.embedding.isnull()),
            f"{artifact} are null",
            "compute them, or drop these rows",
        )


def _may_be_null(fragment: Fragment) -> bool:
    field = fragment.schema.field("embedding")
    if not (field.nullable and isinstance(field.type, pa.FixedSizeListType)):
        return False
    columns = _columns(fragment, read_footer(fragment.path))
    statistics = [column.statistics for column in columns]
    return any(s is None or not s.has_null_count or s.null_count for s in statistics)


def _columns(fragment: Fragment, footer: pq.FileMetaData) -> Iterator[pq.ColumnChunkMetaData]:
    """Yield what a footer says of the embeddings, a row group after the other."""
    beginning = fragment.column("embedding") + "."
    numbers = [
        number
        for number in range(footer.num_columns)
        if footer.schema.column(number).path.startswith(beginning)
    ]
    for group in (footer.row_group(number) for number in range(footer.num_row_groups)):
        yield from (group.column(number) for number in numbers)
