"""Embeddings as Arrow record batches: out of Parquet row groups, and out of a matrix.

Each batch becomes a matrix that is a view of its Arrow buffer, or the other way round. pyarrow
reads them: it decodes row groups on every core, where the engine hands out one stream.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from featurestore.io.parquet import Fragment

BATCH_BYTES = 2 * 2**20  # more leaves the cache, and memory that the system must give anew
KEYS = pa.schema([("slide_id", pa.string()), ("x", pa.int64()), ("y", pa.int64())])
MANY = 100_000  # keys
READ_BUFFER = 2**20  # bytes: stream a column chunk, which may be gigabytes, instead of loading it


Source: TypeAlias = Path | pa.Buffer
"""A Parquet file: where it lies, or its bytes."""


@dataclass(frozen=True)
class RowGroup:
    """A row group: ``rows`` rows of a file, the first of which is row ``start`` of all files.

    ``column`` is the name of the embeddings in it.
    """

    file: Source
    group: int
    start: int
    rows: int
    column: str = "embedding"


def opened(source: Source, **options: Any) -> pq.ParquetFile:
    """Open a Parquet file; options are those of `pyarrow.parquet.ParquetFile`."""
    return pq.ParquetFile(
        pa.BufferReader(source) if isinstance(source, pa.Buffer) else source, **options
    )


def row_groups(fragments: Sequence[Fragment]) -> list[RowGroup]:
    """Return the row groups of some files, in order."""
    groups: list[RowGroup] = []
    for fragment in fragments:
        start = groups[-1].start + groups[-1].rows if groups else 0
        groups += file_row_groups(fragment, start)
    return groups


def file_row_groups(
    fragment: Fragment,
    start: int = 0,
    numbers: Sequence[int] | None = None,
    source: Source | None = None,
) -> list[RowGroup]:
    """Return the row groups of a file, or some of them, the first row of which is row ``start``.

    Parameters
    ----------
    source
        The file's bytes, where they are in memory.
    """
    file, column = source or fragment.path, fragment.column("embedding")
    with opened(file) as parquet:
        footer = parquet.metadata
    groups: list[RowGroup] = []
    for number in range(footer.num_row_groups) if numbers is None else numbers:
        rows = footer.row_group(number).num_rows
        groups.append(RowGroup(file, number, start, rows, column))
        start += rows
    return groups


def read_keys(fragments: Sequence[Fragment]) -> pa.Table:
    """Read the keys of all rows in order, slides' names composed and without the suffix asked for.

    String types differ between writers, and a folder ``slide_id=NAME`` stands for a column.
    """
    return pa.concat_tables(map(file_keys, fragments))


def file_keys(
    fragment: Fragment, numbers: Sequence[int] | None = None, source: Source | None = None
) -> pa.Table:
    """Read the keys of a file, or of some of its row groups, as `read_keys`.

    Parameters
    ----------
    source
        Its bytes, where they are in memory.
    """
    written = [fragment.column(name) for name in KEYS.names if name in fragment.schema.names]
    with opened(source or fragment.path) as file:
        groups = range(file.num_row_groups) if numbers is None else numbers
        # Threads of Arrow's own cost more than a slide's few keys; files have threads of ours.
        table = file.read_row_groups(groups, written, use_threads=fragment.rows > MANY)
        rows = sum(file.metadata.row_group(number).num_rows for number in groups)
    read_as = {fragment.column(name): name for name in KEYS.names}
    table = table.rename_columns([read_as[name] for name in table.column_names])
    for name in KEYS.names:
        if name not in table.column_names:
            value = pa.scalar(fragment.partition[name], pa.string())
            table = table.append_column(name, pa.repeat(value, rows))
    keys = table.select(KEYS.names).cast(KEYS)
    suffix = fragment.suffixes.get("slide_id", "")
    return keys.set_column(0, "slide_id", _composed(keys["slide_id"], suffix))


def _composed(column: pa.ChunkedArray, suffix: str) -> pa.ChunkedArray:
    """Return text in Unicode's normal form C without a suffix, looking at each value once.

    Arrow's own function leaves decomposed letters as they are (seen with pyarrow 25).
    """
    coded = column.combine_chunks().dictionary_encode()
    names = coded.dictionary.to_pylist()
    composed = [
        name if name is None else unicodedata.normalize("NFC", name).removesuffix(suffix)
        for name in names
    ]
    if composed == names:
        return column
    return pa.chunked_array([pa.array(composed, pa.string()).take(coded.indices)])


def most_rows(dim: int, size: int = BATCH_BYTES) -> int:
    """Return the most rows of a batch, those of half floats."""
    return max(1, size // (2 * dim))


def embedding_batches(row_group: RowGroup, dim: int, size: int = BATCH_BYTES) -> Iterator[pa.Array]:
    """Stream the embedding column of a row group, each array at most ``size`` bytes."""
    file = opened(row_group.file, buffer_size=READ_BUFFER, pre_buffer=False)
    width = _stored(file.schema_arrow.field(row_group.column).type).value_type.bit_width // 8
    rows = max(1, size // (width * dim))
    with file:
        for batch in file.iter_batches(
            rows, [row_group.group], [row_group.column], use_threads=False
        ):
            column = batch.column(0)
            yield column.storage if isinstance(column, pa.ExtensionArray) else column


def _stored(kind: pa.DataType) -> pa.DataType:
    """Return the list that an extension type, such as a tensor of fixed shape, is stored as."""
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def as_matrix(column: pa.Array, dim: int) -> npt.NDArray[np.floating]:
    """Return an array of lists, all of length ``dim``, as a matrix.

    A view of the Arrow buffer where no element is null; a null becomes NaN.
    """
    values = column.flatten()  # unlike `values`, it knows of slices
    if values.null_count:
        if pa.types.is_integer(values.type):  # which have no NaN
            values = values.cast(pa.float64(), safe=False)
        values = pc.fill_null(values, float("nan"))
    return values.to_numpy(zero_copy_only=True).reshape(len(column), dim)


def lengths(column: pa.Array) -> npt.NDArray[np.integer]:
    """Return the length of each list, 0 for a null, shape (rows,)."""
    if pa.types.is_list(column.type) and not column.null_count:
        return np.diff(column.offsets.to_numpy())
    sizes = pc.list_value_length(column)
    if sizes.null_count:
        sizes = pc.fill_null(sizes, 0)
    return sizes.to_numpy(zero_copy_only=False).astype(np.int64)


def as_vectors(matrix: npt.NDArray[np.floating]) -> pa.FixedSizeListArray:
    """Return a contiguous matrix as ``fixed_size_list<float>[dim]``, without a copy."""
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])
