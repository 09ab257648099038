"""A part: the converted embeddings of one file, under a name that its content alone decides.

Two files, each of which proves the other: the embeddings as an array of fixed width, behind which
stands the SHA-256 of the second file; and their keys, with a digest of each row of the first. The
keys come last: a part without them is not there.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from io import FileIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from featurestore.embeddings.layout import (
    FOLDER,
    HEADER_BYTES,
    KEYS,
    MANIFEST,
    STORED,
    VALUES,
    Rows,
    npy_header,
)
from featurestore.errors import ArtifactError
from featurestore.io.atomic import HOME
from featurestore.io.cache import AGAIN
from featurestore.io.digest_cache import Identity
from featurestore.io.objects import shared
from featurestore.io.parquet import read_footer
from featurestore.spec.literals import Storage

GAP = 64  # rows that nobody asks for, beyond which what follows is read by itself


@dataclass(frozen=True)
class Part:
    """A part, as whoever wrote it described it.

    Parameters
    ----------
    name
        A digest of the file's content and of how it was converted.
    rows, dim
        Shape of its embeddings.
    storage
        The type of an element.
    content
        SHA-256 of its keys with the digests of its rows, see `content_of`.
    """

    name: str
    rows: int
    dim: int
    storage: Storage
    content: str

    @classmethod
    def read(cls, name: str, keys: Path | None = None) -> "Part":
        """Read what a part says of itself.

        Parameters
        ----------
        keys
            Where its keys are, if not where they belong.

        Raises
        ------
        OSError, pa.ArrowException, ValueError, KeyError, TypeError
            It is not there, or damaged.
        """
        metadata = read_footer(keys or folder() / f"{name}{KEYS}").metadata or {}
        return cls(name, **json.loads(metadata[MANIFEST]))

    @property
    def values(self) -> Path:
        """The file of its embeddings: an array in NumPy's format, and the SHA-256 of its keys."""
        return folder() / f"{self.name}{VALUES}"

    @property
    def keys(self) -> Path:
        """The Parquet file with ``slide_id, x, y, part, row, cell_<n>, stored``, in order of rows.

        ``cell_<n>`` are the cells in which near embeddings meet (`featurestore.embeddings.near`),
        ``stored`` is a digest of the row's bytes in the array.
        """
        return folder() / f"{self.name}{KEYS}"

    @property
    def row_bytes(self) -> int:
        """Bytes of one embedding."""
        return self.dim * STORED[self.storage].itemsize

    @property
    def header(self) -> bytes:
        """What stands before the embeddings."""
        return npy_header(self.rows, self.dim, STORED[self.storage])

    @property
    def values_bytes(self) -> int:
        """Size of the file of its embeddings."""
        return self.seal_offset + hashlib.sha256().digest_size

    @property
    def seal_offset(self) -> int:
        """Where the digest of the keys' file stands in that of the embeddings."""
        return HEADER_BYTES + self.rows * self.row_bytes

    def mapped(self, first: int, last: int, file: Path | None = None) -> np.ndarray:
        """Return rows first .. last, memory-mapped and read-only, shape (last - first, dim).

        Parameters
        ----------
        file
            Where the embeddings are, if not where they belong.

        Raises
        ------
        ArtifactError
            They are gone.
        """
        offset = HEADER_BYTES + first * self.row_bytes
        shape = (last - first, self.dim)
        try:
            return np.memmap(file or self.values, STORED[self.storage], "r", offset, shape)
        except (OSError, ValueError) as error:  # gone, or cut
            raise self._unreadable(str(error)) from error

    def read_rows(self, rows: Rows, out: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Copy some rows into memory, those that lie near each other at once.

        What lies side by side is read and not mapped, which would cost a fault for each page.

        Parameters
        ----------
        rows
            Which ones, ascending.
        out
            Where to copy to, contiguous, shape (len(rows), dim).

        Raises
        ------
        ArtifactError
            They are gone.
        """
        ends = (np.flatnonzero(np.diff(rows) > GAP) + 1).tolist()
        with self._opened() as file:
            for begin, end in pairwise([0, *ends, len(rows)]):
                near, first, last = rows[begin:end], int(rows[begin]), int(rows[end - 1]) + 1
                if last - first == len(near):
                    self._read(file, first, out[begin:end])
                else:  # address space may be as short as memory: no map spans a gap
                    out[begin:end] = self.mapped(first, last)[near - first]
        return out

    def _read(self, file: FileIO, first: int, out: npt.NDArray[np.float32]) -> None:
        kind = STORED[self.storage]
        block = out if kind == np.float32 else np.empty(out.shape, kind)
        file.seek(HEADER_BYTES + first * self.row_bytes)
        if file.readinto(block.view(np.uint8).reshape(-1).data) != block.nbytes:
            raise self._unreadable("it is cut")
        if block is not out:
            out[...] = block

    def _opened(self) -> FileIO:
        try:
            return FileIO(self.values)
        except OSError as error:
            raise self._unreadable(error.strerror or str(error)) from error

    def _unreadable(self, wrong: str) -> ArtifactError:
        return ArtifactError(
            f"The part {self.name} of the embeddings cannot be read",
            found=f"{self.values}: {wrong}",
            fix=AGAIN,
        )

    @property
    def when_whole(self) -> str:
        """What is remembered of both files once they are known to hold the part."""
        return f"part {self.content}"


def folder() -> Path:
    """Return where parts lie on this machine."""
    return HOME / FOLDER


def is_shared(name: str) -> bool:
    """Return whether a part can be had from another machine."""
    store = shared.current()
    return store is not None and bool(store.variants(FOLDER, name))


def row_hashes(block: np.ndarray, weights: npt.NDArray[np.uint64]) -> Rows:
    """Digest the bytes of each row to 64 bits, for finding rows that have changed.

    Multilinear hashing modulo 2^64 over the bit patterns, see D. Lemire and O. Kaser (2014),
    "Strongly universal string hashing is fast". As many numbers a step as fill 64 bits.
    """
    rows = np.ascontiguousarray(block)
    size = block.shape[1] * block.itemsize
    width = next(width for width in (8, 4, 2) if size % width == 0)
    words = rows.view(f"u{width}").astype(np.uint64, copy=False)
    return np.einsum("ij,j->i", words, weights[: words.shape[1]]).view(np.int64)


def content_of(keys: pa.Table) -> str:
    """Return the SHA-256 of keys and row digests, ``slide_id, x, y, stored``, however written."""
    slide = keys["slide_id"].cast(pa.large_string()).combine_chunks()
    _, offsets, text = slide.buffers()
    ends = np.frombuffer(offsets, np.int64)[slide.offset : slide.offset + len(slide) + 1]
    content = hashlib.sha256((ends - ends[0]).tobytes())
    content.update(memoryview(text)[ends[0] : ends[-1]] if text else b"")
    for name in ("x", "y", "stored"):
        content.update(keys[name].to_numpy().tobytes())
    return content.hexdigest()


def damaged(name: str, fault: str) -> ArtifactError:
    """Return the refusal of a part that is damaged, with why in words."""
    return ArtifactError(
        f"The part {name} of the embeddings is damaged", found=f"{folder()}: {fault}", fix=AGAIN
    )


def seen(part: Part) -> tuple[Identity, Identity] | str:
    """Return what the file system says of a part's files, or which is missing or cut, in words.

    Of thousands of parts, whole paths would cost more than what is asked.
    """
    place = f"{HOME}/{FOLDER}/{part.name}"
    try:
        keys, values = (Identity.of(os.stat(place + end)) for end in (KEYS, VALUES))  # noqa: PTH116
    except FileNotFoundError as error:
        return f"{os.path.basename(error.filename)} is missing"  # noqa: PTH119
    if values.size != part.values_bytes:
        name = f"{part.name}{VALUES}"
        return f"{name} has {values.size:,} bytes, {part.values_bytes:,} were written"
    return keys, values
