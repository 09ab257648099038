"""The embeddings of an artifact: a list of parts, whose rows are numbered one part after another.

Rules and folds only ever choose rows, so no change of theirs reads an embedding again; a file that
is added, taken away or corrected is a part more, fewer or another one.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ibis.backends.sql import SQLBackend

from featurestore.backend import engine, executors
from featurestore.embeddings import near
from featurestore.embeddings.batches import KEYS as KEY_SCHEMA
from featurestore.embeddings.damage import damages
from featurestore.embeddings.fetching import fetch, fetch_keys
from featurestore.embeddings.layout import BLOCK_BYTES, KEYS, Rows
from featurestore.embeddings.part import Part, damaged, folder
from featurestore.io.objects.workplace import Workplace
from featurestore.spec.literals import Storage
from featurestore.views.folds import KEY

AT_ONCE = 8  # files that are fetched
PLACED_KEYS = pa.schema(
    [*KEY_SCHEMA, ("row", pa.int64()), *((name, pa.int64()) for name in near.CELLS)]
)


@dataclass(frozen=True)
class EmbeddingMatrix:
    """A converted artifact.

    Parameters
    ----------
    parts
        In the order of their names, at least one: files have no order that their content decides.
    """

    parts: tuple[Part, ...]

    @cached_property
    def starts(self) -> Rows:
        """The number of each part's first row, ascending."""
        return self._edges[:-1]

    @cached_property
    def _edges(self) -> Rows:
        return np.cumsum([0, *(part.rows for part in self.parts)], dtype=np.int64)

    @property
    def rows(self) -> int:
        """Number of embeddings."""
        return int(self._edges[-1])

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.parts[0].dim

    @property
    def storage(self) -> Storage:
        """The type of an element."""
        return self.parts[0].storage

    @property
    def digest(self) -> str:
        """SHA-256 of all that determines the embeddings: a root over the names of the parts."""
        return root(part.name for part in self.parts)

    def keys(self, connection: SQLBackend) -> ir.Table:
        """Return ``slide_id, x, y, row, cell_<n>`` of all rows in no order.

        See `featurestore.embeddings.part.Part.keys`.
        """
        if connection.name == "pyspark":
            names = (part.name for part in self.parts)
            placed = list(zip(names, self.starts.tolist(), strict=True))
            read = partial(_placed_keys, workplace=Workplace.here())
            return executors.read(connection, read, placed, PLACED_KEYS)
        with ThreadPoolExecutor(AT_ONCE) as pool:  # where another machine has made them
            list(pool.map(fetch_keys, [part.name for part in self.parts]))
        keys = engine.read_parquet(connection, [part.keys for part in self.parts])
        first = {"part": [part.name for part in self.parts], "start": pa.array(self.starts)}
        name = ibis.util.gen_name("part_starts")
        starts = engine.register(connection, name, pa.table(first))
        placed = keys.inner_join(starts, "part")
        return placed.select(
            *KEY, row=placed.row + placed.start, **{n: placed[n] for n in near.CELLS}
        )

    def check(self, rows: Rows) -> None:
        """Make sure that the parts of some rows are on this machine, and whole.

        Raises
        ------
        ArtifactError
            One is damaged.
        """
        numbers = np.unique(np.searchsorted(self.starts, rows, side="right") - 1).tolist()
        own = [self.parts[number] for number in numbers]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(fetch, own))
        for name, fault in damages(own).items():
            raise damaged(name, fault)

    def read_rows(
        self,
        rows: Rows,
        positions: Rows | None = None,
        threads: int | None = None,
        out: npt.NDArray[np.float32] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Copy some rows into memory, reading each part from its front to its end.

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

        Raises
        ------
        ArtifactError
            A part is gone.
        """
        result = np.empty((len(rows), self.dim), dtype=np.float32) if out is None else out
        ascending = np.argsort(rows, kind="stable")
        source, target = rows[ascending], ascending if positions is None else positions[ascending]
        size = max(1, BLOCK_BYTES // (4 * self.dim))
        ordered = positions is None and bool((rows == source).all())

        def copy(number: int, block: slice) -> None:
            part, asked = self.parts[number], source[block] - self.starts[number]
            fetch(part)
            if ordered:
                part.read_rows(asked, result[block])
            else:
                values = np.empty((len(asked), self.dim), dtype=np.float32)
                result[target[block]] = part.read_rows(asked, values)

        edges = np.searchsorted(source, self._edges)
        with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
            copies = [
                pool.submit(copy, number, slice(start, min(start + size, edges[number + 1])))
                for number in np.flatnonzero(np.diff(edges)).tolist()
                for start in range(edges[number], edges[number + 1], size)
            ]
            for done in copies:
                done.result()
        return result


def _placed_keys(part: tuple[str, int], workplace: Workplace) -> Iterator[pa.RecordBatch]:
    """Yield the keys of a part, the first of whose rows bears a number, on an executor."""
    name, start = part
    with workplace.entered():
        fetch_keys(name)
        keys = pq.read_table(folder() / f"{name}{KEYS}", columns=PLACED_KEYS.names)
    number = keys.schema.get_field_index("row")
    placed = keys.set_column(number, "row", pc.add(keys["row"], start))
    yield from placed.cast(PLACED_KEYS).to_batches()


def root(names: Iterable[str]) -> str:
    """Return the digest of a matrix by the names of its parts."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()
