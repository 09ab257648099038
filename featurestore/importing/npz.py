"""NumPy's archives, read in blocks of rows: a compressed array cannot be mapped."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from featurestore.importing.slide import Array, file_error


def header(file: Path, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and type of an array of an archive; raises as `rows`."""
    with _opened(file, name) as stream:
        return _header(stream)


def array(file: Path, name: str) -> Array:
    """Return an array of an archive; raises as `rows`."""
    with _opened(file, name) as stream:
        shape, dtype = _header(stream)
        return np.frombuffer(stream.read(), dtype).reshape(shape)


def rows(file: Path, name: str, max_rows: int) -> Iterator[Array]:
    """Read the rows of an array of an archive, at most so many at a time.

    Raises
    ------
    ArtifactError
        The archive is not whole, has no such array, or one of objects, which only a pickle holds.
    """
    with _opened(file, name) as stream:
        shape, dtype = _header(stream)
        width = dtype.itemsize * int(np.prod(shape[1:]))
        for start in range(0, shape[0], max_rows):
            count = min(max_rows, shape[0] - start)
            yield np.frombuffer(_whole(stream, count * width), dtype).reshape(count, *shape[1:])


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    read = {1: npy.read_array_header_1_0, 2: npy.read_array_header_2_0}
    shape, by_column, dtype = read[npy.read_magic(stream)[0]](stream)
    if dtype.hasobject:
        raise ValueError("an array of objects")
    if by_column and len(shape) > 1:
        raise ValueError("an array stored column by column")
    return shape, dtype


def _whole(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise ValueError("the array ends early")
    return content


@contextmanager
def _opened(file: Path, name: str) -> Iterator[IO[bytes]]:
    try:
        with zipfile.ZipFile(file) as archive, archive.open(f"{name}.npy") as stream:
            yield stream
    except KeyError as error:
        raise file_error(
            file, f"has no array {name}", ", ".join(_names(file)),
            "name the folder of the embeddings, and the tool that wrote it",
        ) from error  # fmt: skip
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError, RuntimeError) as error:
        raise file_error(
            file, "is not a whole archive of NumPy", str(error),
            "copy it again, or write it again with the tool that made it",
        ) from error  # fmt: skip


def _names(file: Path) -> list[str]:
    with zipfile.ZipFile(file) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]
