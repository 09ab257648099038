"""HDF5 files of embeddings and coordinates."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.errors import library_needed
from featurestore.importing.chunks import stored_rows
from featurestore.importing.slide import Array, Blocks, file_error, size_of

COORDINATES = "coords"


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """Yield a file as h5py opens it.

    Raises
    ------
    ArtifactError
        It is not whole, or what is asked for cannot be read.
    """
    with library_needed(f"{file} cannot be read without h5py", "h5"):
        import h5py
    try:
        # Each chunk is read once: a cache of chunks would be copied from for nothing.
        with h5py.File(file, "r", rdcc_nbytes=0) as content:
            yield content
    except (OSError, RuntimeError, KeyError, ValueError) as error:  # what h5py raises of damage
        raise file_error(
            file, "is not a whole HDF5 file", f"{size_of(file)}; {error}",
            "copy it again, or write it again with the tool that made it",
        ) from error  # fmt: skip


def dataset(file: Path, content: Any, *names: str) -> Any:
    """Return a dataset of an open file, by the first of some names that is there.

    Raises
    ------
    ArtifactError
        None of them is.
    """
    for name in names:
        if name in content and hasattr(content[name], "shape"):
            return content[name]
    raise file_error(
        file, f"has no dataset {' or '.join(names)}", f"{', '.join(content) or 'nothing'}",
        "name the folder of the embeddings, and the tool that wrote it",
    )  # fmt: skip


def shape(values: Any) -> tuple[int, ...]:
    """Return the shape of a dataset without an axis of one slide, as (1, tiles, dim) has."""
    sizes = tuple(values.shape)
    return sizes[1:] if len(sizes) == 3 and sizes[0] == 1 else sizes


def rows(values: Any, start: int, stop: int) -> Array:
    """Return rows of a dataset, see `shape`."""
    block = values[0, start:stop] if len(values.shape) == 3 else values[start:stop]
    return np.asarray(block)


def coordinates(file: Path) -> Array:
    """Read the coordinates of a file."""
    with opened(file) as content:
        values = dataset(file, content, COORDINATES)
        return _reader(file, content, values)(0, shape(values)[0])


def blocks(file: Path, names: tuple[str, ...], max_rows: int) -> Blocks:
    """Read the tiles of a file, about so many at a time: whole chunks, each of them once.

    Parameters
    ----------
    names
        Of the dataset of embeddings, see `dataset`.
    """
    with opened(file) as content:
        values = dataset(file, content, *names)
        read_coordinates = _reader(file, content, dataset(file, content, COORDINATES))
        read_embeddings = _reader(file, content, values)
        count = shape(values)[0]
        chunk = values.chunks[-2] if values.chunks else 1
        step = max(max_rows // chunk, 1) * chunk
        for start in range(0, count, step):
            stop = min(start + step, count)
            yield read_coordinates(start, stop), read_embeddings(start, stop)


def _reader(file: Path, content: Any, values: Any) -> Callable[[int, int], Array]:
    stored = stored_rows(file, content, values)
    return partial(rows, values) if stored is None else stored.read


def attributes(owner: Any) -> dict[str, Any]:
    """Return attributes as plain values, those without one left out."""
    plain: dict[str, Any] = {}
    for name, value in owner.attrs.items():
        value = value.decode() if isinstance(value, bytes) else value
        if isinstance(value, np.ndarray):
            value = value.tolist()
        plain[name] = value.item() if isinstance(value, np.generic) else value
    return {name: value for name, value in plain.items() if value not in (None, "None", "")}
