"""One Parquet file a slide: the key, the embeddings as they are, and what it was made of."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.contract.violation import raise_first
from featurestore.embeddings.invalid import InvalidEmbeddings
from featurestore.errors import FeatureStoreError, SchemaError
from featurestore.importing.geometry import Placement
from featurestore.importing.slide import Array, Slide
from featurestore.importing.write_behind import WriteBehind
from featurestore.io import atomic

BLOCK_BYTES = 2**24
"""Embeddings of a row group: memory of this size is used again, more the system must give anew."""
RECORD = b"tissue-probe.import"
KEYS = ("slide_id", "x", "y")


def file_name(slide_id: str) -> str:
    """Return the name of a slide's file, which no reader takes for a hidden one."""
    name = quote(slide_id, safe=" ()[]{}+,;@&!$'~^#=")
    return f"{f'%{ord(name[0]):02X}' + name[1:] if name[0] in '._' else name}.parquet"


def read_record(file: Path) -> dict[str, Any]:
    """Return what a file was made of, nothing of one that is not whole or not of an import."""
    try:
        return json.loads((pq.read_metadata(file).metadata or {}).get(RECORD, b"{}"))
    except (pa.ArrowException, OSError, ValueError):
        return {}


def is_whole(file: Path) -> bool:
    """Return whether a file is one of Parquet that can be read."""
    try:
        pq.read_metadata(file)
    except (pa.ArrowException, OSError):
        return False
    return True


def _publish(fresh: Path, final: Path) -> None:
    final.parent.mkdir(exist_ok=True)
    atomic.publish(fresh, final)


def pixels(slide: Slide, placement: Placement, coordinates: Array) -> Array:
    """Return coordinates of a slide as x and y.

    Raises
    ------
    SchemaError
        One is no whole number.
    """
    xy = np.rint(coordinates.astype(np.float64) * placement.scale)
    is_whole = xy == coordinates if placement.scale == 1 else np.isfinite(xy)
    if not is_whole.all():
        raise SchemaError(
            f"{slide.files[0]} has x and y that are no whole pixels",
            found=f"{coordinates[~is_whole.all(axis=1)][0].tolist()}",
            fix="name the columns of whole pixels, or write the coordinates again",
        )
    return xy.astype(np.int64)


def check_coordinates(slide: Slide, placement: Placement) -> None:
    """Refuse tiles that cannot be told apart, of which the coordinates alone are read.

    Raises
    ------
    SchemaError
        Two tiles are at one place, or a coordinate is no whole number.
    """
    xy = pixels(slide, placement, slide.coordinates())
    keys = pa.table({"x": xy[:, 0].copy(), "y": xy[:, 1].copy()})
    distinct = keys.group_by(["x", "y"]).aggregate([([], "count_all")])
    if len(distinct) < len(keys):
        often = distinct.sort_by([("count_all", "descending")]).slice(0, 1).to_pylist()[0]
        raise SchemaError(
            f"{slide.files[0]} has two tiles at one place",
            found=f"{often['count_all']} at x={often['x']}, y={often['y']}, of "
            f"{len(keys):,} tiles at {len(distinct):,} places",
            fix="correct the coordinates, or how they are converted",
        )


class SlideFile:
    """Writes the tiles of a slide.

    Parameters
    ----------
    slide
        What is read.
    placement
        How its coordinates become x and y.
    record
        What the file is made of.
    """

    def __init__(self, slide: Slide, placement: Placement, record: dict[str, Any]) -> None:
        self.slide, self.placement = slide, placement
        half = slide.dtype == np.float16
        self.dtype = np.dtype(np.float16 if half else np.float32)
        self.width = pa.list_(
            pa.field("element", pa.float16() if half else pa.float32(), nullable=False), slide.dim
        )
        fields = [("slide_id", pa.string()), ("x", pa.int64()), ("y", pa.int64()),
                  ("embedding", self.width)]  # fmt: skip
        # Nothing is null, and saying so spares every reader to look.
        self.schema = pa.schema(
            [pa.field(name, kind, nullable=False) for name, kind in fields],
            {RECORD: json.dumps(record)},
        )

    def write(
        self, building: Path, final: Path, behind: WriteBehind, done: Callable[[int], None]
    ) -> None:
        """Write the file: beside its place, then put there.

        Parameters
        ----------
        building
            A folder on the same disk.
        done
            Called with the number of rows that were read.

        Raises
        ------
        EmbeddingError
            A value is not finite.
        SchemaError
            A coordinate is no whole number.
        """
        fresh = building / final.name
        writer = pq.ParquetWriter(
            fresh, self.schema, use_dictionary=["slide_id"], write_statistics=list(KEYS),
            compression=dict.fromkeys(KEYS, "zstd") | {"embedding.list.element": "none"},
        )  # fmt: skip
        for table in self._tables(done):
            behind.submit(writer.write_table, table)
        behind.submit(writer.close)
        behind.submit(_publish, fresh, final)

    def _tables(self, done: Callable[[int], None]) -> Iterator[pa.Table]:
        max_rows = max(1, BLOCK_BYTES // (self.dtype.itemsize * self.slide.dim))
        invalid, read, xy = InvalidEmbeddings(self.slide.dim, "float32"), 0, []
        for coordinates, block in self.slide.blocks(max_rows):
            with np.errstate(over="ignore"):  # what does not fit is found not to be finite
                block = np.ascontiguousarray(block, self.dtype)
            xy.append(pixels(self.slide, self.placement, coordinates))
            invalid.checked(self._vectors(block), read)
            read += len(block)
            yield self._table(xy[-1], self._vectors(block))
            done(len(block))
        keys = self._keys(np.concatenate(xy))
        self._check(keys, invalid, read)

    def _check(self, keys: pa.Table, invalid: InvalidEmbeddings, read: int) -> None:
        source = self.slide.files[0]
        try:
            raise_first(invalid.faults(keys).violations(invalid.dim, invalid.storage, read))
        except FeatureStoreError as error:
            raise type(error)(
                error.wrong, found=f"{error.found}, in {source}", fix=error.fix
            ) from None

    def _vectors(self, block: Array) -> pa.FixedSizeListArray:
        return pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), type=self.width)

    def _keys(self, xy: Array) -> pa.Table:
        name = pa.repeat(pa.scalar(self.slide.slide_id), len(xy))
        return pa.table({"slide_id": name, "x": xy[:, 0].copy(), "y": xy[:, 1].copy()})

    def _table(self, xy: Array, vectors: pa.FixedSizeListArray) -> pa.Table:
        keys = self._keys(xy)
        return pa.Table.from_arrays([*keys.columns, vectors], schema=self.schema)
