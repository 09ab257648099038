"""STAMP: one HDF5 file a slide, ``feats`` or ``patch_embeddings``, and ``coords`` in micrometres.

Read from github.com/KatherLab/STAMP 2.5.0 (c54ce06): ``src/stamp/preprocessing/__init__.py``,
``extract_``; earlier layouts from ``src/stamp/modeling/data.py``, ``get_coords``.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.importing import hdf5
from featurestore.importing.files import slide_name, source_files
from featurestore.importing.slide import Array, Geometry, Request, Slide, check_lengths, file_error

FEATURES = ("feats", "patch_embeddings")
HISTORIC = 224
"""Before version 2 coordinates were pixels of tiles so wide, which covered 256 micrometres."""


def slides(request: Request) -> list[Slide]:
    """Return the slides of a folder of features."""
    return [_slide(request, file) for file in source_files(request, (".h5",))]


def _slide(request: Request, file: Path) -> Slide:
    with hdf5.opened(file) as content:
        attributes = hdf5.attributes(content)
        if attributes.get("feat_type", "tile") != "tile":
            raise file_error(
                file, "does not hold one embedding a tile", f"feat_type: {attributes['feat_type']}",
                "name the folder that `stamp preprocess` wrote",
            )  # fmt: skip
        features = hdf5.dataset(file, content, *FEATURES)
        coordinates = hdf5.dataset(file, content, hdf5.COORDINATES)
        shape, dtype = hdf5.shape(features), features.dtype
        check_lengths(file, shape, hdf5.shape(coordinates))
        geometry = _geometry(file, attributes, coordinates)
    return Slide(
        slide_id=slide_name(request, file),
        files=(file,),
        rows=shape[0],
        dim=shape[1],
        dtype=dtype,
        geometry=geometry,
        coordinates=partial(hdf5.coordinates, file),
        blocks=partial(hdf5.blocks, file, FEATURES),
        attributes={
            "encoder": attributes.get("extractor"),
            "source_version": attributes.get("stamp_version"),
        },
    )


def _geometry(file: Path, attributes: dict[str, Any], coordinates: Any) -> Geometry:
    tile = attributes.get("tile_size_um")
    if tile is None and attributes.get("unit") == "um":  # of version 2.0
        tile = attributes.get("tile_size")
    if tile is not None:
        return Geometry(
            micrometres=1.0, tile=float(tile), tile_pixels=attributes.get("tile_size_px")
        )
    if round(attributes.get("tile_size") or _step(coordinates[:])) == HISTORIC:
        return Geometry(micrometres=256 / HISTORIC, tile=HISTORIC, tile_pixels=HISTORIC)
    raise file_error(
        file, "does not say in which unit its coordinates are",
        f"attributes {', '.join(map(str, attributes)) or 'none'}",
        "extract the features again by a newer STAMP",
    )  # fmt: skip


def _step(coordinates: Array) -> float:
    """Return the least distance between two columns or rows of tiles, 0 of a single tile."""
    steps = np.concatenate([np.diff(np.unique(coordinates[:, axis])) for axis in (0, 1)])
    return float(steps.min()) if len(steps) else 0.0
