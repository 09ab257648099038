"""Rows of a HDF5 dataset, read from where they lie in its file.

HDF5 looks each chunk up in an index, and a chunk may be a tile, as in TRIDENT's files, where that
takes longer than all else. It is asked once instead where the chunks are, and they are read as they
lie, many together. Whatever is not stored as plain rows is left to HDF5.
"""

from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featurestore.importing.slide import Array


@dataclass(frozen=True)
class StoredRows:
    """Where the rows of a dataset lie.

    Parameters
    ----------
    file
        The file.
    dtype, width
        Type of a value, and number of values in a row.
    chunk
        Rows that lie together.
    offsets
        First byte of each chunk, shape (chunks,).
    """

    file: Path
    dtype: np.dtype[Any]
    width: int
    chunk: int
    offsets: npt.NDArray[np.int64]

    def read(self, start: int, stop: int) -> Array:
        """Return rows from one number up to another.

        Raises
        ------
        OSError
            The file ends before them.
        """
        block = np.empty((stop - start, self.width), self.dtype)
        row_bytes = self.width * self.dtype.itemsize
        into = memoryview(block.view(np.uint8).reshape(-1))  # type: ignore[arg-type]
        numbers = np.arange(start // self.chunk, -(-stop // self.chunk))
        firsts = self.offsets[numbers]
        apart = np.flatnonzero(np.diff(firsts) != self.chunk * row_bytes) + 1
        with FileIO(self.file) as stream:
            for run in np.split(numbers, apart):  # of chunks that lie one behind the other
                top = int(run[0]) * self.chunk
                row, end = max(start, top), min(stop, (int(run[-1]) + 1) * self.chunk)
                stream.seek(int(self.offsets[run[0]]) + (row - top) * row_bytes)
                _fill(stream, into[(row - start) * row_bytes : (end - start) * row_bytes])
        return block


def _fill(stream: FileIO, into: memoryview) -> None:
    while into:
        count = stream.readinto(into)
        if not count:
            raise OSError("the file ends before its rows do")
        into = into[count:]


def _chunk_offsets(values: Any) -> list[int]:
    """Return the first byte of each chunk of rows that was written, in order of rows."""
    rows: list[int] = []
    offsets: list[int] = []

    def note(chunk: Any) -> None:
        rows.append(chunk.chunk_offset[0])
        offsets.append(chunk.byte_offset)

    values.id.chunk_iter(note)
    return np.array(offsets, np.int64)[np.argsort(rows)].tolist() if rows else []


def stored_rows(file: Path, content: Any, values: Any) -> StoredRows | None:
    """Return where the rows of a dataset lie; None if they are stored otherwise than as they are.

    Parameters
    ----------
    content, values
        The file and the dataset, as h5py opens them.
    """
    import h5py

    properties = values.id.get_create_plist()
    plain = (
        len(values.shape) == 2
        and values.size
        and values.dtype.kind in "iuf"
        and values.id.get_type() == h5py.h5t.py_create(values.dtype)  # no type that h5py converts
        and not properties.get_nfilters()
        and not properties.get_external_count()
        and not content.userblock_size
    )
    if not plain:
        return None
    rows, width = values.shape
    chunk, offsets = rows, [values.id.get_offset()]
    if values.chunks is not None:
        if values.chunks[1] != width or not hasattr(values.id, "chunk_iter"):
            return None
        chunk, offsets = values.chunks[0], _chunk_offsets(values)
    if len(offsets) != -(-rows // chunk) or None in offsets:  # where none was written
        return None
    return StoredRows(file, values.dtype, width, chunk, np.array(offsets, np.int64))
