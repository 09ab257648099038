"""Embeddings out of Parquet into one matrix: converted once, checked as they pass."""

import json
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.contract.violation import Violation, key_text, raise_first
from featurestore.embeddings import near
from featurestore.embeddings.batches import (
    RowGroup,
    as_matrix,
    embedding_batches,
    lengths,
    read_keys,
    row_groups,
)
from featurestore.embeddings.layout import (
    BLOCK_BYTES,
    FILE,
    KEYS,
    MANIFEST,
    STORED,
    Advance,
    Rows,
    hash_weights,
    npy_header,
)
from featurestore.embeddings.matrix import EmbeddingMatrix
from featurestore.errors import ArtifactError, EmbeddingError
from featurestore.io.parquet import Fragment
from featurestore.spec.literals import Storage
from featurestore.views.folds import KEY


def convert(
    fragments: Sequence[Fragment],
    dim: int,
    storage: Storage,
    folder: Path,
    advance: Advance,
    *,
    threads: int | None = None,
) -> None:
    """Write the embeddings of an artifact's files as a matrix with its keys.

    Memory is a few batches a thread, whatever the number of rows.

    Parameters
    ----------
    fragments
        Parquet files with ``slide_id, x, y, embedding``.
    dim
        Length of an embedding.
    storage
        Type to write.
    folder
        An empty folder.
    advance
        Told of the rows as they are done.
    threads
        One per core by default.

    Raises
    ------
    EmbeddingError
        A list is not ``dim`` long, or a value is not finite, anywhere in the files.
    ArtifactError
        There is too little room on the disk.
    """
    work = row_groups([fragment.path for fragment in fragments])
    rows, kind = sum(row_group.rows for row_group in work), STORED[storage]
    _check_room(folder, rows * dim * kind.itemsize, halved=kind.itemsize == 2)
    header = _begin(folder / FILE, rows, dim, kind)
    keys = read_keys(fragments)
    cells, onto = np.zeros((rows, near.GRIDS), dtype=np.int64), near.directions(dim)
    sums, weights = np.zeros(rows, dtype=np.int64), hash_weights(dim)
    invalid = InvalidEmbeddings(dim, storage)
    local = threading.local()  # one open file a thread

    def write(row_group: RowGroup) -> None:
        if not hasattr(local, "file"):
            local.file = FileIO(folder / FILE, "r+")
        at = row_group.start
        for column in embedding_batches(row_group, dim):
            block = invalid.checked(column, at)
            stored = _stored(block, kind)
            cells[at : at + len(block)] = near.cells(stored.astype(np.float32, copy=False), onto)
            sums[at : at + len(block)] = _hashes(stored, weights)
            data = stored.view(np.uint8).data.cast("B")
            _write_at(local.file, header + at * dim * kind.itemsize, data)
            at += len(block)
            advance(len(block))

    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        futures = [pool.submit(write, row_group) for row_group in work]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    raise_first(invalid.violations(keys))
    columns = {
        "row": np.arange(rows),
        **dict(zip(near.CELLS, cells.T, strict=True)),
        "stored": sums,
    }
    for name, column in columns.items():
        keys = keys.append_column(name, pa.array(column))
    pq.write_table(keys, folder / KEYS)
    shape = {"rows": rows, "dim": dim, "storage": storage}
    (folder / MANIFEST).write_text(json.dumps(shape))


def damage(file: Path) -> str | None:
    """Read a whole ``embeddings.npy`` and return what is wrong with it, in words, if anything is.

    Its rows are compared with the digests that were taken while they were written, which costs no
    further reading then.
    """
    matrix = EmbeddingMatrix.open(file.parent)
    kind = STORED[matrix.storage]
    header = npy_header(matrix.rows, matrix.dim, kind)
    with file.open("rb") as stream:
        begun = stream.read(len(header))
    if begun != header:
        return "has another header than what was written"
    expected = pq.read_table(matrix.keys, columns=["stored"])["stored"].to_numpy()
    weights, size = hash_weights(matrix.dim), max(1, BLOCK_BYTES // (kind.itemsize * matrix.dim))

    def look(start: int) -> int:
        values = matrix.mapped(start, min(start + size, matrix.rows))
        return int((_hashes(values, weights) != expected[start : start + size]).sum())

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        wrong = sum(pool.map(look, range(0, matrix.rows, size)))
    return f"has {wrong:,} rows that are not what was written" if wrong else None


CHECKS = {FILE: damage}
"""What a matrix's seal leaves out, see `featurestore.io.seals`."""


class InvalidEmbeddings:
    """What is wrong with the embeddings that were read: each fault with its rows.

    Parameters
    ----------
    dim
        The length that a list must have.
    storage
        The type in which its values must be finite.
    """

    def __init__(self, dim: int, storage: Storage) -> None:
        self.dim, self.storage = dim, storage
        self.lengths: dict[int, int] = {}  # row -> length
        self.values: list[int] = []

    @property
    def rows(self) -> list[int]:
        """The rows that were noted."""
        return [*self.lengths, *self.values]

    def checked(self, column: pa.Array, start: int) -> npt.NDArray[np.float32]:
        """Return a column as float32, shape (rows, dim), its faulty rows noted and set to zero.

        Parameters
        ----------
        column
            Lists.
        start
            The number of its first row.
        """
        block = self.block(column, start)
        # A row's sum is finite if its values are, unless it overflows: far quicker than a look
        # at each value, and the few suspects are looked at.
        with np.errstate(over="ignore", invalid="ignore"):
            suspects = ~np.isfinite(_sums(block, self.storage))
        self.look(block, np.flatnonzero(suspects), start)
        return block

    def block(
        self, column: pa.Array, start: int, room: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """Return a column as float32, rows of another length noted and set to zero.

        Parameters
        ----------
        room
            Memory to convert into, of as many rows or more: new memory costs as much as that.
        """
        size = lengths(column)
        wrong = np.flatnonzero(size != self.dim)
        self.lengths.update((start + int(row), int(size[row])) for row in wrong)
        with np.errstate(over="ignore", invalid="ignore"):
            if len(wrong):
                right = np.flatnonzero(size == self.dim)
                block = np.zeros((len(column), self.dim), dtype=np.float32)
                block[right] = as_matrix(column.take(pa.array(right)), self.dim)
                return block
            values = as_matrix(column, self.dim)
            if room is None or values.dtype == np.float32:
                return values.astype(np.float32, copy=False)
            np.copyto(room[: len(values)], values, casting="same_kind")
            return room[: len(values)]

    def look(self, block: npt.NDArray[np.float32], suspects: Rows, start: int) -> None:
        """Note those of some rows of a block whose values are not all finite."""
        with np.errstate(over="ignore", invalid="ignore"):
            stored = block[suspects].astype(STORED[self.storage]).astype(np.float32)
        bad = suspects[~np.isfinite(stored).all(axis=1)]
        self.values.extend((start + bad).tolist())

    def violations(self, keys: pa.Table) -> Iterator[Violation]:
        """Yield what was found.

        Parameters
        ----------
        keys
            The keys of all rows, in order.
        """
        for wrong, faulty, fix in (
            (
                f"Embeddings are not all of one length ({self.dim}, as the first one is)",
                list(self.lengths),
                "write one embedding of the same model per tile",
            ),
            (
                f"Embeddings hold values that are NaN, null or infinite (in {self.storage})",
                self.values,
                "compute them again, or drop these tiles"
                + ("" if self.storage == "float32" else ", or set storage=float32"),
            ),
        ):
            if faulty:
                rows = sorted(faulty)
                faulty_keys = keys.take(pa.array(rows)).append_column(
                    "length", pa.array([self.lengths.get(row, self.dim) for row in rows])
                )
                first = (
                    faulty_keys.sort_by([(name, "ascending") for name in KEY])
                    .slice(0, 1)
                    .to_pylist()
                )
                evidence = (
                    f"{len(faulty):,} of {len(keys):,} rows, the first, of length "
                    f"{first[0]['length']}, at {key_text(first[0])}"
                )
                yield Violation(wrong, evidence, fix, len(faulty), kind=EmbeddingError)


def find_invalid(
    fragments: Sequence[Fragment], dim: int, storage: Storage, threads: int | None = None
) -> Iterator[Violation]:
    """Look at every embedding of some files and yield what is wrong with them."""
    invalid = InvalidEmbeddings(dim, storage)

    def look(row_group: RowGroup) -> None:
        at = row_group.start
        for column in embedding_batches(row_group, dim):
            at += len(invalid.checked(column, at))

    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        files = [fragment.path for fragment in fragments]
        for done in [pool.submit(look, row_group) for row_group in row_groups(files)]:
            done.result()
    yield from invalid.violations(read_keys(fragments))


def _sums(block: npt.NDArray[np.float32], storage: Storage) -> npt.NDArray[np.float32]:
    """Sum the rows; where the range is smaller, take each row's largest value in that type."""
    if storage != "float32":
        return np.abs(block).max(axis=1).astype(STORED[storage]).astype(np.float32)
    return block @ np.ones(block.shape[1], dtype=np.float32)


def _hashes(block: np.ndarray, weights: npt.NDArray[np.uint64]) -> Rows:
    """Digest the bytes of each row to 64 bits, for finding rows that have changed.

    Multilinear hashing modulo 2^64 over the bit patterns, see D. Lemire and O. Kaser (2014),
    "Strongly universal string hashing is fast". As many numbers a step as fill 64 bits.
    """
    rows = np.ascontiguousarray(block)
    size = block.shape[1] * block.itemsize
    width = next(width for width in (8, 4, 2) if size % width == 0)
    words = rows.view(f"u{width}").astype(np.uint64, copy=False)
    return (words @ weights[: words.shape[1]]).view(np.int64)


def _begin(file: Path, rows: int, dim: int, kind: np.dtype) -> int:
    """Write the header of an array and give the file its final size; return the header's size."""
    header = npy_header(rows, dim, kind)
    with file.open("wb") as stream:
        stream.write(header)
        stream.truncate(len(header) + rows * dim * kind.itemsize)
    return len(header)


def _stored(block: npt.NDArray[np.float32], kind: np.dtype) -> np.ndarray:
    with np.errstate(over="ignore"):  # an infinity is noted by then
        return np.ascontiguousarray(block.astype(kind, copy=False))


def _write_at(file: FileIO, offset: int, data: memoryview) -> None:
    # The system may take less than it is given, above all shortly before the disk is full.
    while data:
        done = os.pwrite(file.fileno(), data, offset)
        data, offset = data[done:], offset + done


def _check_room(folder: Path, need: int, halved: bool) -> None:
    free = shutil.disk_usage(folder).free
    if free < need:
        raise ArtifactError(
            "The disk has too little room for the embeddings",
            found=f"{need / 1e9:.1f} GB to write, {free / 1e9:.1f} GB free in {folder.parent}",
            fix="make room (`featurestore gc` removes old snapshots), "
            + ("" if halved else "set storage=float16, ")
            + "or work in a folder on another disk",
        )
