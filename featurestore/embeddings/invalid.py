"""Embeddings that no part may hold: of another length, or with values that are not finite."""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

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


@dataclass(frozen=True)
class Fault:
    """How many embeddings have one kind of fault, and the first of them by key.

    Parameters
    ----------
    count
        How many.
    first
        ``slide_id, x, y, length`` of the first; None where there is none.
    """

    count: int = 0
    first: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, keys: pa.Table) -> "Fault":
        """Return that of rows with ``slide_id, x, y, length``."""
        by_key = keys.sort_by([(name, "ascending") for name in KEY])
        return cls(len(keys), next(iter(by_key.slice(0, 1).to_pylist()), None))

    def __add__(self, other: "Fault") -> "Fault":
        firsts = [one for one in (self.first, other.first) if one]
        first = min(firsts, key=_by_key, default=None)
        return Fault(self.count + other.count, first)


def _by_key(row: Mapping[str, Any]) -> list[tuple[bool, Any]]:
    return [(row[name] is None, row[name]) for name in KEY]


@dataclass(frozen=True)
class Faults:
    """What is wrong with any number of embeddings, in a few words.

    Parameters
    ----------
    lengths
        Those of another length.
    values
        Those with values that are not finite.
    """

    lengths: Fault = Fault()
    values: Fault = Fault()

    @classmethod
    def of(cls, keys: pa.Table, lengths: Rows, dim: int) -> "Faults":
        """Return those of faulty embeddings.

        Parameters
        ----------
        keys
            Their ``slide_id, x, y``.
        lengths
            How long they are.
        dim
            How long they must be: one of this length has other values that are not finite.
        """
        named = keys.select(KEY).append_column("length", pa.array(lengths))
        short = pa.array(lengths != dim)
        return cls(Fault.of(named.filter(short)), Fault.of(named.filter(pc.invert(short))))

    def __add__(self, other: "Faults") -> "Faults":
        return Faults(self.lengths + other.lengths, self.values + other.values)

    def violations(self, dim: int, storage: Storage, rows: int) -> Iterator[Violation]:
        """Yield what was found.

        Parameters
        ----------
        dim, storage
            As of `InvalidEmbeddings`.
        rows
            How many were looked at.
        """
        for wrong, fault, fix in (
            (
                f"Embeddings are not all of one length ({dim})",
                self.lengths,
                "write one embedding of the same model per tile",
            ),
            (
                f"Embeddings hold values that are NaN, null or infinite (in {storage})",
                self.values,
                "compute them again, or drop these tiles"
                + ("" if storage == "float32" else ", or set storage=float32"),
            ),
        ):
            if fault.first:
                evidence = (
                    f"{fault.count:,} of {rows:,} rows, the first, of length "
                    f"{fault.first['length']}, at {key_text(fault.first)}"
                )
                yield Violation(wrong, evidence, fix, fault.count, kind=EmbeddingError)


class InvalidEmbeddings:
    """The rows of some embeddings that are faulty, noted while they are read.

    Parameters
    ----------
    dim
        The length that a list must have.
    storage
        The type in which its values must be finite.
    """

    def __init__(self, dim: int, storage: Storage) -> None:
        self.dim, self.storage = dim, storage
        self._noted: list[tuple[Rows, Rows]] = []

    @property
    def rows(self) -> Rows:
        """The rows that were noted."""
        return np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in self._noted)])

    @property
    def lengths(self) -> Rows:
        """How long the lists of these rows are."""
        return np.concatenate([np.empty(0, np.int64), *(size for _, size in self._noted)])

    def note(self, rows: Rows, lengths: Rows) -> None:
        """Note faulty rows, and how long their lists are."""
        if len(rows):
            self._noted.append((rows, lengths))

    def faults(self, keys: pa.Table) -> Faults:
        """Return what was noted, in a few words.

        Parameters
        ----------
        keys
            The keys of all rows, by number.
        """
        return Faults.of(keys.take(pa.array(self.rows)), self.lengths, self.dim)

    def checked(
        self, column: pa.Array, start: int, room: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """Return a column as float32, shape (rows, dim), its faulty rows noted and set to zero.

        Parameters
        ----------
        column
            Lists.
        start
            The number of its first row.
        room
            As of `block`.
        """
        block = self.block(column, start, room)
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
        self.note(start + wrong, size[wrong].astype(np.int64))
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
        self.note(start + bad, np.full(len(bad), self.dim))


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
    if len(invalid.rows):
        keys = read_keys(fragments)
        yield from invalid.faults(keys).violations(dim, storage, len(keys))


def _sums(block: npt.NDArray[np.float32], storage: Storage) -> npt.NDArray[np.float32]:
    """Sum the rows; where the range is smaller, take each row's largest value in that type."""
    if storage != "float32":
        largest = np.maximum(block.max(axis=1), -block.min(axis=1))
        return largest.astype(STORED[storage]).astype(np.float32)
    return block.sum(axis=1)
