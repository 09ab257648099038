"""eva: ``manifest.csv`` with a file of tensors in each row, and ``coords_SPLIT.csv`` beside it.

Read from github.com/kaiko-ai/eva 0.4.5 (73b61a7): ``src/eva/core/callbacks/writers/embeddings/``,
``src/eva/vision/data/datasets/wsi.py``, ``configs/vision/pathology/offline``.

Of whole slides a row is a slide: its file is a list of one tensor a tile, and its coordinates are
a row of the other file. eva writes after every ``save_every_n`` tiles of all slides, and puts what
it writes *before* what the file holds already, so that the list is not in the order of the
coordinates; `order` says how it lies. Of cut tiles a row is a tile, and x and y are columns.
"""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from featurestore.errors import ConfigError
from featurestore.importing import tensors
from featurestore.importing.files import source_files
from featurestore.importing.slide import (
    Array,
    Blocks,
    Geometry,
    Request,
    Slide,
    check_lengths,
    file_error,
)

MANIFEST = "manifest.csv"


def slides(request: Request) -> list[Slide]:
    """Return the slides of a folder with a manifest, or of a manifest."""
    manifest = next(
        (f for f in source_files(request, (".csv",)) if f.name == MANIFEST), request.source
    )
    column = request.columns.get("slide_id", "wsi_id")
    table = _csv(manifest, ("embeddings",), ("origin", column))
    names = _slide_ids(request, manifest, table)
    files = [manifest.parent / name for name in table["embeddings"].to_pylist()]
    columns = request.columns
    if "x" in columns or {"x", "y"} <= set(table.column_names):
        x, y = (_column(manifest, table, columns.get(axis, axis)) for axis in "xy")
        coordinates = np.stack([c.cast(pa.int64()).to_numpy() for c in (x, y)], axis=1)
        return _of_tiles(manifest, names, files, coordinates)
    return _of_slides(request, manifest, names, files)


# -- a row a tile ---------------------------------------------------------------------------------


def _of_tiles(
    manifest: Path, names: list[str], files: list[Path], coordinates: Array
) -> list[Slide]:
    by_slide: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        by_slide.setdefault(name, []).append(row)
    made = []
    for name, rows in by_slide.items():
        slide_files = [files[row] for row in rows]
        first = tensors.load(slide_files[0])
        shape = tensors.shape(slide_files[0], _one(first))
        check_lengths(slide_files[0], shape, (1, 2))
        made.append(
            Slide(
                slide_id=name,
                files=(manifest, *slide_files),
                rows=len(rows),
                dim=shape[1],
                dtype=tensors.matrix(_one(first)).dtype,
                geometry=Geometry(),
                coordinates=partial(np.asarray, coordinates[rows]),
                blocks=partial(_tile_blocks, slide_files, coordinates[rows]),
            )
        )
    return made


def _one(saved: object) -> object:
    """Return what is saved of a tile as a list of its only tensor."""
    return saved if isinstance(saved, list) else [saved]


def _tile_blocks(files: list[Path], coordinates: Array, max_rows: int) -> Blocks:
    for start in range(0, len(files), max_rows):
        batch = files[start : start + max_rows]
        loaded = [tensors.matrix(_one(tensors.load(file))) for file in batch]
        for file, block in zip(batch, loaded, strict=True):
            check_lengths(file, block.shape, (1, 2))
        lengths = {block.shape[1] for block in loaded}
        if len(lengths) > 1:
            raise file_error(
                batch[0].parent, "holds embeddings of unequal length", sorted(lengths),
                "compute them again with one model",
            )  # fmt: skip
        yield coordinates[start : start + len(batch)], np.concatenate(loaded)


# -- a row a slide --------------------------------------------------------------------------------


def _of_slides(
    request: Request, manifest: Path, names: list[str], files: list[Path]
) -> list[Slide]:
    every = request.save_every
    if every is None:
        raise ConfigError(
            f"{manifest} does not say in which order eva wrote the tiles of a slide",
            found="no --save-every-n: it puts the tiles of a later write before the earlier ones",
            fix="add the save_every_n of eva's writer, for example --save-every-n 100, its default",
        )
    by_slide = _coordinates(request, manifest)
    made, start = [], 0
    for name, file in zip(names, files, strict=True):
        if name not in by_slide:
            raise file_error(
                file, "is of a slide without coordinates", f"no {name} in coords_*.csv",
                "name the file with its coordinates: --coords coords_train.csv",
            )  # fmt: skip
        coordinates, geometry, source = by_slide[name]
        saved = tensors.load(file)
        shape = tensors.shape(file, saved)
        check_lengths(file, shape, coordinates.shape)
        in_file = coordinates[order(start, shape[0], every)]
        made.append(
            Slide(
                slide_id=name,
                files=(file, manifest, source),
                rows=shape[0],
                dim=shape[1],
                dtype=tensors.matrix(saved[:1]).dtype,
                geometry=geometry,
                coordinates=partial(np.asarray, in_file),
                blocks=partial(tensors.blocks, file, in_file),
            )
        )
        start += shape[0]
    return made


def order(start: int, rows: int, every: int) -> Array:
    """Return which of a slide's tiles, as they were encoded, each one in its file is.

    Parameters
    ----------
    start
        How many tiles of other slides were encoded before.
    rows
        Number of tiles.
    every
        After so many tiles eva writes, and after one more at first.
    """
    tiles = np.arange(rows)
    writes = np.maximum(start + tiles - 1, 0) // every
    return np.argsort(-writes, kind="stable")


def _coordinates(request: Request, manifest: Path) -> dict[str, tuple[Array, Geometry, Path]]:
    """Return the coordinates of each slide, what is said of them, and where they are written."""
    given = request.coordinates
    if given is not None and given.is_file():
        files = [given]
    else:
        files = sorted((given or manifest.parent).glob("coords*.csv"))
    by_slide = {}
    for file in files:
        table = _csv(file, ("file", "x_y"), ("width", "level_idx"))
        for row in table.to_pylist():
            name = Path(row["file"]).name.split(".")[0]
            try:
                is_full_size = row.get("level_idx") == "0"  # the width is in pixels of that level
                geometry = Geometry(level=0, tile=float(row["width"]) if is_full_size else None)
                by_slide[name] = _pairs(row["x_y"]), geometry, file
            except ValueError as error:
                raise file_error(
                    file, f"has no list of x and y of slide {name}", str(error), "write it again"
                ) from error
    return by_slide


def _pairs(text: str) -> Array:
    """Return the pairs of a list as Python prints it, be they integers of NumPy or its own."""
    return np.array(re.findall(r"-?\d+", text.replace("int64", "")), np.int64).reshape(-1, 2)


def _slide_ids(request: Request, manifest: Path, table: pa.Table) -> list[str]:
    column = request.columns.get("slide_id", "wsi_id")
    if column in table.column_names or "slide_id" in request.columns:
        return _column(manifest, table, column).to_pylist()
    return [Path(name).stem for name in _column(manifest, table, "origin").to_pylist()]


def _column(file: Path, table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise file_error(
            file, f"has no column {name}", f"columns {', '.join(table.column_names)}",
            "name the columns: --columns slide_id=wsi_id x=x y=y",
        )  # fmt: skip
    return table[name]


def _csv(file: Path, needed: tuple[str, ...], text: tuple[str, ...] = ()) -> pa.Table:
    """Read a table, some columns of which are needed, and text whatever they look like: 007."""
    try:
        size = max(file.stat().st_size, 1)  # a row with all tiles of a slide is long
        read = pyarrow.csv.ReadOptions(block_size=size)
        parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
        types = dict.fromkeys((*needed, *text), pa.string())
        convert = pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=False)
        table = pyarrow.csv.read_csv(file, read, parse, convert)
        for name in needed:
            _column(file, table, name)
        return table
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise file_error(
            file, "is no manifest of eva", str(error).splitlines()[0][:200],
            "name the folder that eva's ClassificationEmbeddingsWriter wrote",
        ) from error  # fmt: skip
