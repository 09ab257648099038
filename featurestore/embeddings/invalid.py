"""Embeddings that no part may hold: of another length, or with values that are not finite."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from featurestore.contract.violation import Violation, key_text
from featurestore.embeddings.batches import (
    RowGroup,
    as_matrix,
    embedding_batches,
    lengths,
    read_keys,
    row_groups,
)
from featurestore.embeddings.layout import STORED, Rows
from featurestore.errors import EmbeddingError
from featurestore.io.parquet import Fragment
from featurestore.spec.literals import Storage
from featurestore.views.folds import KEY


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

    def add(self, other: "InvalidEmbeddings", start: int) -> None:
        """Note what another one has noted, of rows that begin with number ``start``."""
        self.lengths.update((start + row, length) for row, length in other.lengths.items())
        self.values.extend(start + row for row in other.values)

    def violations(self, keys: pa.Table, rows: int | None = None) -> Iterator[Violation]:
        """Yield what was found.

        Parameters
        ----------
        keys
            The keys of the rows, by number.
        rows
            How many were looked at; as many as there are keys by default.
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
                numbers = sorted(faulty)
                faulty_keys = keys.take(pa.array(numbers)).append_column(
                    "length", pa.array([self.lengths.get(row, self.dim) for row in numbers])
                )
                first = (
                    faulty_keys.sort_by([(name, "ascending") for name in KEY])
                    .slice(0, 1)
                    .to_pylist()
                )
                evidence = (
                    f"{len(faulty):,} of {rows or len(keys):,} rows, the first, of length "
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
        for done in [pool.submit(look, row_group) for row_group in row_groups(fragments)]:
            done.result()
    yield from invalid.violations(read_keys(fragments))


def _sums(block: npt.NDArray[np.float32], storage: Storage) -> npt.NDArray[np.float32]:
    """Sum the rows; where the range is smaller, take each row's largest value in that type."""
    if storage != "float32":
        return np.abs(block).max(axis=1).astype(STORED[storage]).astype(np.float32)
    return block @ np.ones(block.shape[1], dtype=np.float32)
