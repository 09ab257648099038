"""What every format is read as: slides, each with its tiles in blocks of rows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from featurestore.errors import ArtifactError

Array = npt.NDArray[Any]
Blocks = Iterator[tuple[Array, Array]]
"""Coordinates, shape (rows, 2), and embeddings, shape (rows, dim), of the next rows of a slide."""


@dataclass(frozen=True)
class Geometry:
    """What a tool says of the coordinates and the tiles of a slide; None where it does not.

    Parameters
    ----------
    level
        The level of which coordinates are pixels.
    is_assumed
        Whether the level is what the tool usually writes, and nothing in the files says it.
    micrometres
        Of one unit of the coordinates, where that is no pixel.
    tile, stride
        Width of a tile, and from one to the next, in units of the coordinates.
    tile_pixels
        Width of a tile as the encoder got it, in pixels.
    extent
        Width and height of the slide, in units of the coordinates.
    mpp, magnification
        Of the slide at level 0.
    """

    level: int | None = None
    is_assumed: bool = False
    micrometres: float | None = None
    tile: float | None = None
    stride: float | None = None
    tile_pixels: float | None = None
    extent: tuple[int, int] | None = None
    mpp: float | None = None
    magnification: float | None = None


@dataclass(frozen=True)
class Slide:
    """The tiles of a slide, as a tool wrote them.

    Parameters
    ----------
    slide_id
        Its name.
    files
        The files that decide what is read; the first is that of the embeddings.
    rows, dim, dtype
        Number of tiles, and length and type of their embeddings.
    geometry
        Of its coordinates.
    coordinates
        Read the coordinates alone, of all tiles: shape (rows, 2).
    blocks
        Given a number of rows, read the tiles in blocks of about that size.
    attributes
        What else is said of the slide, by the names of columns of ``slides.parquet``.
    """

    slide_id: str
    files: tuple[Path, ...]
    rows: int
    dim: int
    dtype: np.dtype[Any]
    geometry: Geometry
    coordinates: Callable[[], Array]
    blocks: Callable[[int], Blocks]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """What is to be imported, and what the user says of it.

    Parameters
    ----------
    format
        A key of `featurestore.importing.registry.FORMATS`.
    source
        The file or folder of the tool's output.
    slide_id
        A pattern whose first group, in a file's path below ``source``, names the slide.
    columns
        By the names of the contract, those of a table.
    level
        0 converts coordinates to pixels of level 0; None leaves them.
    mpp
        Micrometres of a pixel at level 0: of every slide, or by slide.
    downsample
        Pixels of level 0 in one of the coordinates'.
    coordinates
        The file or folder with the coordinates, where the embeddings' has none.
    save_every
        The ``save_every_n`` with which eva wrote.
    replace
        Whether slides of another tool or encoder that are there already may be replaced.
    scratch
        A folder for what does not fit into memory, which whoever imports makes and removes.
    """

    format: str
    source: Path
    slide_id: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    level: int | None = None
    mpp: float | dict[str, float] | None = None
    downsample: float | None = None
    coordinates: Path | None = None
    save_every: int | None = None
    replace: bool = False
    scratch: Path = Path()


class Format(Protocol):
    """Reads what a tool writes."""

    def __call__(self, request: Request) -> list[Slide]:
        """Return the slides of a source: their shapes are known, their tiles not yet read."""


def file_error(file: Path, wrong: str, found: object, fix: str) -> ArtifactError:
    """Return the error that refuses a file, whose name begins the sentence."""
    return ArtifactError(f"{file} {wrong}", found=str(found), fix=fix)


def size_of(file: Path) -> str:
    """Return how large a file is, in words, for the refusal of one that is not whole."""
    return f"{file.stat().st_size:,} bytes" if file.is_file() else "no file"


def check_lengths(file: Path, embeddings: tuple[int, ...], coordinates: tuple[int, ...]) -> None:
    """Refuse embeddings and coordinates that do not belong together, by their shapes.

    Raises
    ------
    ArtifactError
        They are not (rows, dim) and (rows, 2).
    """
    rewrite = "write the file again with the tool that made it"
    if len(embeddings) != 2:
        raise file_error(
            file, "does not hold one embedding a tile", f"embeddings of shape {embeddings}",
            "name the tool's embeddings of tiles, not those of slides or regions",
        )  # fmt: skip
    if len(coordinates) != 2 or coordinates[1] != 2:
        raise file_error(
            file, "does not hold one x and y a tile", f"coordinates of shape {coordinates}", rewrite
        )
    if embeddings[0] != coordinates[0]:
        raise file_error(
            file, "has another number of embeddings than of coordinates",
            f"{embeddings[0]:,} embeddings, {coordinates[0]:,} coordinates", rewrite,
        )  # fmt: skip
