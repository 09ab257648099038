"""Embeddings of one file, or of some of its row groups, into a part: checked as they pass."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.embeddings import near
from featurestore.embeddings.batches import (
    RowGroup,
    embedding_batches,
    file_keys,
    file_row_groups,
    most_rows,
)
from featurestore.embeddings.invalid import InvalidEmbeddings
from featurestore.embeddings.layout import (
    MANIFEST,
    STORED,
    Advance,
    hash_weights,
    npy_header,
)
from featurestore.embeddings.part import Part, row_hashes
from featurestore.embeddings.rounding import Rounding
from featurestore.io.parquet import Fragment, read_footer
from featurestore.spec.literals import Storage

T = TypeVar("T")

SLICE_BYTES = 4 * 2**30  # of a file, that become one part


@dataclass(frozen=True)
class Slice:
    """What becomes one part: a file, or some row groups of one.

    Parameters
    ----------
    fragment
        The file.
    groups
        Numbers of its row groups; None for all of them.
    content
        The bytes of the file, where they are in memory.
    """

    fragment: Fragment
    groups: tuple[int, ...] | None = None
    content: pa.Buffer | None = None

    @property
    def rows(self) -> int:
        """Number of its rows."""
        if self.groups is None:
            return self.fragment.rows
        return sum(row_group.rows for row_group in self.row_groups())

    def row_groups(self) -> list[RowGroup]:
        """Return the row groups, numbered from the first row of the slice."""
        return file_row_groups(self.fragment, 0, self.groups, self.content)


@dataclass(frozen=True)
class Target:
    """What embeddings are converted to.

    Parameters
    ----------
    dim
        Length that an embedding must have.
    storage
        Type to write.
    """

    dim: int
    storage: Storage


def slices(fragment: Fragment) -> list[Slice]:
    """Divide a file into slices of at most `SLICE_BYTES`, or of a single row group."""
    if fragment.identity.size <= SLICE_BYTES:
        return [Slice(fragment)]
    footer = read_footer(fragment.path)
    pieces: list[list[int]] = [[]]
    size = 0
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        more = sum(group.column(n).total_compressed_size for n in range(group.num_columns))
        if pieces[-1] and size + more > SLICE_BYTES:
            pieces.append([])
            size = 0
        pieces[-1].append(number)
        size += more
    return [Slice(fragment, tuple(groups)) for groups in pieces]


def convert(
    piece: Slice, target: Target, values: Path, pool: Executor, advance: Advance
) -> tuple[pa.Table, InvalidEmbeddings]:
    """Write the embeddings of a slice as the array of a part.

    Memory is a few batches a thread and the keys, whatever the number of rows.

    Parameters
    ----------
    piece
        Row groups of a Parquet file with ``slide_id, x, y, embedding``.
    target
        What to write.
    values
        The file to write.
    pool
        Converts row groups at the same time.
    advance
        Told of the rows as they are done.

    Returns
    -------
    keys
        Those of the rows, with their digests and cells: ``slide_id, x, y, row, cell_<n>, stored``.
    invalid
        What is wrong with the embeddings; where anything is, the file is not to be used.
    """
    work, kind = piece.row_groups(), STORED[target.storage]
    rows, row_bytes = sum(row_group.rows for row_group in work), target.dim * kind.itemsize
    invalid = InvalidEmbeddings(target.dim, target.storage)
    cells, onto = np.zeros((rows, near.GRIDS), dtype=np.int64), near.directions(target.dim)
    hashes, weights = np.zeros(rows, dtype=np.int64), hash_weights(target.dim)
    header = npy_header(rows, target.dim, kind)
    most = min(most_rows(target.dim), max((row_group.rows for row_group in work), default=0))
    with FileIO(values, "w") as file:
        _write_at(file, 0, memoryview(header))
        os.truncate(file.fileno(), len(header) + rows * row_bytes)

        def write(row_group: RowGroup) -> None:
            at, rounding = row_group.start, Rounding(most, target.dim, target.storage)
            for column in embedding_batches(row_group, target.dim):
                block = invalid.checked(column, at, rounding.block)
                stored, rounded = rounding(block)
                cells[at : at + len(block)] = near.cells(rounded, onto)
                hashes[at : at + len(block)] = row_hashes(stored, weights)
                data = stored.view(np.uint8).data.cast("B")
                _write_at(file, len(header) + at * row_bytes, data)
                at += len(block)
                advance(len(block))

        each(pool, write, work)
    columns = {
        "row": np.arange(rows),
        **dict(zip(near.CELLS, cells.T, strict=True)),
        "stored": hashes,
    }
    keys = file_keys(piece.fragment, piece.groups, piece.content)
    for name, column in columns.items():
        keys = keys.append_column(name, pa.array(column))
    return keys, invalid


def write_keys(keys: pa.Table, part: Part, file: Path) -> str:
    """Write the keys of a part, as `convert` returned them, with what the part is.

    Returns
    -------
    str
        The SHA-256 of the file.
    """
    names = pa.DictionaryArray.from_arrays(np.zeros(len(keys), dtype=np.int32), [part.name])
    manifest = {name: value for name, value in vars(part).items() if name != "name"}
    named = keys.append_column("part", names)
    named = named.replace_schema_metadata({MANIFEST: json.dumps(manifest)})
    sink = pa.BufferOutputStream()
    pq.write_table(named, sink)
    content = sink.getvalue()
    file.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def each(
    pool: Executor,
    work: Callable[[T], object],
    items: Iterable[T],
    end: Callable[[], object] = tuple,
) -> None:
    """Do some work on each item; where one fails, those that have not begun are left.

    Parameters
    ----------
    end
        Called when no result is waited for any more.
    """
    items = list(items)
    if len(items) == 1:  # nothing to do beside it
        work(items[0])
        return
    futures = [pool.submit(work, item) for item in items]
    try:
        for future in futures:
            future.result()
    finally:
        end()
        for future in futures:
            future.cancel()
        for future in futures:
            future.cancelled() or future.exception()  # what has begun still writes


def _write_at(file: FileIO, offset: int, data: memoryview) -> None:
    # The system may take less than it is given, above all shortly before the disk is full.
    while data:
        done = os.pwrite(file.fileno(), data, offset)
        data, offset = data[done:], offset + done
