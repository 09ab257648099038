"""The embeddings of an artifact as one memory-mapped matrix, converted once.

Row i of ``embeddings.npy`` is the i-th row of the artifact's Parquet files, so that converting
needs no join: row groups are read on every core and written to where they belong. ``keys.parquet``
tells whose embedding a row is. Rules and folds only ever choose rows, so no change of theirs reads
an embedding again.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featurestore.embeddings.layout import (
    BLOCK_BYTES,
    FILE,
    FORMAT,
    KEYS,
    MANIFEST,
    STORED,
    Rows,
    npy_header,
)
from featurestore.spec.literals import Storage


@dataclass(frozen=True)
class EmbeddingMatrix:
    """A converted artifact.

    Parameters
    ----------
    folder
        Where it lies.
    rows, dim
        Its shape.
    storage
        The type of an element.
    """

    folder: Path
    rows: int
    dim: int
    storage: Storage

    @classmethod
    def open(cls, folder: Path) -> "EmbeddingMatrix":
        """Read what a folder holds; nothing but the manifest is read."""
        return cls(folder, **json.loads((folder / MANIFEST).read_text()))

    @property
    def starts(self) -> Rows:
        """The first row of each part, ascending: there is one."""
        return np.zeros(1, dtype=np.int64)

    @property
    def values(self) -> np.ndarray:
        """The embeddings, shape (rows, dim), memory-mapped and read-only."""
        return self.mapped(0, self.rows)

    def mapped(self, first: int, last: int) -> np.ndarray:
        """Return rows first .. last, memory-mapped: of a file larger than memory, a part."""
        kind = STORED[self.storage]
        begin = len(npy_header(self.rows, self.dim, kind))
        offset, shape = begin + first * self.dim * kind.itemsize, (last - first, self.dim)
        return np.memmap(self.folder / FILE, kind, mode="r", offset=offset, shape=shape)

    @property
    def keys(self) -> Path:
        """The Parquet file with ``slide_id, x, y, row, cell_<n>, stored``, in the order of rows.

        ``cell_<n>`` are the cells in which near embeddings meet (`featurestore.embeddings.near`),
        ``stored`` is a digest of the row's bytes in the matrix.
        """
        return self.folder / KEYS

    def read_rows(
        self,
        rows: Rows,
        positions: Rows | None = None,
        threads: int | None = None,
        out: npt.NDArray[np.float32] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Copy some rows into memory, reading the file from its front to its end.

        Parameters
        ----------
        rows
            Which ones, each at most once.
        positions
            The row of each in the result, a permutation; by default the order of ``rows``.
        threads
            One per core by default.
        out
            Where to copy to, instead of new memory.

        Returns
        -------
        ndarray of float32, shape (len(rows), dim)
        """
        result = np.empty((len(rows), self.dim), dtype=np.float32) if out is None else out
        ascending = np.argsort(rows, kind="stable")
        source, target = rows[ascending], ascending if positions is None else positions[ascending]
        size = max(1, BLOCK_BYTES // (4 * self.dim))
        ordered = positions is None and bool((rows == source).all())

        def copy(start: int) -> None:
            block, where = source[start : start + size], target[start : start + size]
            # A part of the file at a time: address space may be as short as memory.
            first, last = int(block[0]), int(block[-1]) + 1
            values = self.mapped(first, last)
            if ordered and last - first == len(block):
                result[start : start + size] = values
            else:
                result[where] = values[block - first]

        with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
            for done in [pool.submit(copy, start) for start in range(0, len(rows), size)]:
                done.result()
        return result


def content(embeddings: str, storage: Storage) -> str:
    """Digest all that determines a matrix: the digest of the artifact, and the storage."""
    return hashlib.sha256(f"matrix {FORMAT} {embeddings} {storage}".encode()).hexdigest()
