"""An assignment of folds: its rows, and where it comes from, in one Parquet file."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.folds.assign import Folds
from featurestore.folds.known import gone_rows
from featurestore.folds.origin import Origin
from featurestore.views.folds import RARE

GONE = "gone"
IMBALANCE, ORIGIN = b"imbalance", b"assignment"  # of the file's metadata


@dataclass(frozen=True)
class Assignment:
    """Folds of groups, or of tiles, as they are kept.

    Parameters
    ----------
    origin
        Where it comes from.
    rare
        The classes that are dropped, with the number of groups (tiles) that each is in.
    imbalance
        How uneven folds of groups are.
    load
        Returns its `table`.
    is_kept
        Whether it was there already, and is not made now.
    """

    origin: Origin
    rare: dict[str, int]
    imbalance: dict[str, float]
    load: Callable[[], pa.Table]
    is_kept: bool = False

    @classmethod
    def of(cls, folds: Folds, earlier: pa.Table | None, origin: Origin) -> "Assignment":
        """Return an assignment that has just been made.

        Parameters
        ----------
        earlier
            The rows of the one that it extends.
        origin
            What of it was known before.
        """
        gone = folds.rows.slice(0, 0) if earlier is None else gone_rows(folds.rows, earlier)
        present = folds.rows.cast(gone.schema)
        table = pa.concat_tables([_marked(present, False), _marked(gone, True)])
        origin = replace(
            origin,
            digest=_digest(folds.rows, folds.rare),
            known=folds.known,
            new=folds.new,
            gone=_units(gone) - _units(gone, present),
            rows=len(table),
        )
        metadata = {
            RARE.encode(): json.dumps(folds.rare),
            IMBALANCE: json.dumps(folds.imbalance),
            ORIGIN: json.dumps(asdict(origin)),
        }
        table = table.replace_schema_metadata(metadata)
        return cls(origin, folds.rare, folds.imbalance, lambda: table)

    @classmethod
    def of_file(cls, schema: pa.Schema, load: Callable[[], pa.Table]) -> "Assignment":
        """Return the assignment in a file of some schema, whose rows nobody may ask for."""
        origin = origin_of(schema)
        assert origin is not None
        said = schema.metadata
        return cls(origin, json.loads(said[RARE.encode()]), json.loads(said[IMBALANCE]), load, True)

    @cached_property
    def table(self) -> pa.Table:
        """The columns of a unit (`featurestore.folds.units.unit_columns`), ``fold``, and `GONE`.

        What is gone is of an earlier cohort, remembered for the day when it comes back.
        """
        return self.load()

    @property
    def present(self) -> pa.Table:
        """The rows of what is in the cohort."""
        return self.table.filter(pc.invert(self.table[GONE])).drop_columns([GONE])

    @property
    def record(self) -> dict[str, Any]:
        """What a manifest says of it."""
        return asdict(self.origin)


def origin_of(schema: pa.Schema) -> Origin | None:
    """Return where the assignment in a file comes from; None if an earlier version wrote it."""
    said = (schema.metadata or {}).get(ORIGIN)
    return Origin.of(json.loads(said)) if said else None


def _marked(rows: pa.Table, gone: bool) -> pa.Table:
    return rows.append_column(GONE, pa.array([gone] * len(rows), pa.bool_()))


def _units(rows: pa.Table, among: pa.Table | None = None) -> int:
    """Return how many groups there are, of those of other rows if there are any; or tiles."""
    names = rows.column_names
    if "x" in names and "y" in names:
        return len(rows) if among is None else 0
    groups = pc.unique(rows[names[0]])
    return len(groups if among is None else groups.filter(pc.is_in(groups, among[names[0]])))


def _digest(rows: pa.Table, rare: dict[str, int]) -> str:
    """Return the SHA-256 of rows in the order of their units, and of the classes that have none."""
    content = hashlib.sha256(json.dumps([rows.column_names, sorted(rare)]).encode())
    for name in rows.column_names:
        for part in _column_digests(rows[name]):
            content.update(part)
    return content.hexdigest()


def _column_digests(column: pa.ChunkedArray) -> tuple[bytes, bytes]:
    """Return digests of a column's values and of where texts end, however it is cut in chunks."""
    values, ends = hashlib.sha256(), hashlib.sha256()
    if pa.types.is_signed_integer(column.type):
        for chunk in column.cast(pa.int64()).chunks:
            values.update(chunk.to_numpy().tobytes())
        return values.digest(), ends.digest()
    for chunk in column.cast(pa.large_string()).chunks:
        _, offsets, data = chunk.buffers()
        place = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        values.update(memoryview(data)[place[0] : place[-1]] if data else b"")
        ends.update(np.diff(place).tobytes())
    return values.digest(), ends.digest()
