"""slide2vec: ``tile_embeddings/SLIDE.pt`` or ``.npz``, and ``tiles/SLIDE.coordinates.npz``.

Read from github.com/clemsgrs/slide2vec 5.7.0 (7cfa6bf): ``slide2vec/artifacts.py``,
``write_tile_embeddings``, and ``docs/output-layout.rst``; the coordinates from
github.com/clemsgrs/hs2p 4.4.1 (8520c06): ``hs2p/tiling/io.py``.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.importing import npz, tensors
from featurestore.importing.files import slide_name, source_files
from featurestore.importing.slide import (
    Array,
    Blocks,
    Geometry,
    Request,
    Slide,
    check_lengths,
    file_error,
)

FEATURES = "features"
EMBEDDINGS, TILES = "tile_embeddings", "tiles"


def slides(request: Request) -> list[Slide]:
    """Return the slides of an output folder, or of its ``tile_embeddings``."""
    return [_slide(request, file) for file in source_files(request, (".pt", ".npz"), (EMBEDDINGS,))]


def _slide(request: Request, file: Path) -> Slide:
    coordinates_file, meta = _tiles(request, file)
    coordinates = _coordinates(coordinates_file)
    if file.suffix == ".npz":
        shape, dtype = npz.header(file, FEATURES)
    else:
        saved = tensors.load(file)
        shape, dtype = tensors.shape(file, saved), tensors.matrix(saved[:1]).dtype
    check_lengths(file, shape, coordinates.shape)
    metadata_file = file.with_suffix(".meta.json")
    metadata = _json(metadata_file) if metadata_file.exists() else {}
    return Slide(
        slide_id=slide_name(request, file),
        files=tuple(
            path for path in (file, coordinates_file, meta, metadata_file) if path.exists()
        ),
        rows=shape[0],
        dim=shape[1],
        dtype=dtype,
        geometry=_geometry(_json(meta) if meta.exists() else {}),
        coordinates=lambda: coordinates,
        blocks=partial(_blocks, file, coordinates),
        attributes={"encoder": metadata.get("encoder_name"), "path": metadata.get("image_path")},
    )


def _tiles(request: Request, file: Path) -> tuple[Path, Path]:
    """Return where the coordinates of a slide are, and what is metadata of them.

    Those of a class of annotations lie in a folder of its name, as its embeddings do.
    """
    folder = next((p for p in file.parents if p.name == EMBEDDINGS), file.parent)
    root = request.coordinates or folder.parent / TILES
    stem = root / file.relative_to(folder).parent / f"{file.stem}.coordinates"
    coordinates_file = stem.with_name(f"{stem.name}.npz")
    if not coordinates_file.is_file():
        raise file_error(
            file, "has no coordinates beside it", f"no file {coordinates_file}",
            "name the folder of the coordinates as well: --coords tiles/",
        )  # fmt: skip
    return coordinates_file, stem.with_name(f"{stem.name}.meta.json")


def _coordinates(file: Path) -> Array:
    x, y = npz.array(file, "x"), npz.array(file, "y")
    if x.shape != y.shape:
        raise file_error(
            file, "has another number of x than of y", f"{x.shape}, {y.shape}",
            "run slide2vec's tiling again",
        )  # fmt: skip
    return np.stack([x, y], axis=1)


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise file_error(file, "cannot be read", error, "copy it again") from error
    return content if isinstance(content, dict) else {}


def _geometry(metadata: dict[str, Any]) -> Geometry:
    slide, tiling = metadata.get("slide", {}), metadata.get("tiling", {})
    dimensions = slide.get("dimensions") or ()
    return Geometry(
        level=0,
        tile=tiling.get("tile_size_lv0"),
        stride=tiling.get("step_px_lv0"),
        extent=tuple(dimensions) if len(dimensions) == 2 else None,
        mpp=slide.get("base_spacing_um"),
    )


def _blocks(file: Path, coordinates: Array, max_rows: int) -> Blocks:
    if file.suffix == ".npz":
        start = 0
        for block in npz.rows(file, FEATURES, max_rows):
            yield coordinates[start : start + len(block)], block
            start += len(block)
    else:
        yield from tensors.blocks(file, coordinates, max_rows)
