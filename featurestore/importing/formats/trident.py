"""TRIDENT: one HDF5 file a slide, ``features`` and ``coords``, whose attributes say the geometry.

Read from github.com/mahmoodlab/TRIDENT 0.3.0 (a91fa84): ``trident/IO.py``, ``save_h5`` and
``coords_to_h5``; ``trident/wsi_objects/WSI.py``, ``extract_patch_features``.
"""

from functools import partial
from pathlib import Path
from typing import Any

from featurestore.importing import hdf5
from featurestore.importing.files import slide_name, source_files
from featurestore.importing.slide import Geometry, Request, Slide, check_lengths

FEATURES = "features"


def slides(request: Request) -> list[Slide]:
    """Return the slides of a folder ``features_ENCODER``."""
    return [_slide(request, file) for file in source_files(request, (".h5", ".hdf5"))]


def _slide(request: Request, file: Path) -> Slide:
    with hdf5.opened(file) as content:
        features = hdf5.dataset(file, content, FEATURES)
        coordinates = hdf5.dataset(file, content, hdf5.COORDINATES)
        shape, dtype = hdf5.shape(features), features.dtype
        coordinates_shape, attributes = hdf5.shape(coordinates), hdf5.attributes(coordinates)
        encoder = hdf5.attributes(features).get("encoder")
    if shape == (0,):  # of a slide without tissue, where the encoder does not say its width
        shape = (0, 0)
    check_lengths(file, shape, coordinates_shape)
    return Slide(
        slide_id=slide_name(request, file),
        files=(file,),
        rows=shape[0],
        dim=shape[1],
        dtype=dtype,
        geometry=geometry(attributes),
        coordinates=partial(hdf5.coordinates, file),
        blocks=partial(hdf5.blocks, file, (FEATURES,)),
        attributes={"encoder": encoder},
    )


def geometry(attributes: dict[str, Any]) -> Geometry:
    """Return what the attributes of ``coords`` say; they are pixels of level 0, as they tell.

    ``patch_size`` and ``overlap`` are pixels at the target magnification.
    """
    tile, stride = attributes.get("patch_size_level0"), None
    if tile and attributes.get("patch_size") and "overlap" in attributes:
        stride = tile - round(attributes["overlap"] * tile / attributes["patch_size"])
    extent = attributes.get("level0_width"), attributes.get("level0_height")
    return Geometry(
        level=0,
        is_assumed=not any("level0" in name for name in attributes),
        tile=tile,
        stride=stride,
        extent=(extent[0], extent[1]) if extent[0] and extent[1] else None,
        magnification=attributes.get("level0_magnification"),
    )
