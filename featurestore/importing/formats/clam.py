"""CLAM: ``h5_files/SLIDE.h5`` with ``features`` and ``coords``, or ``pt_files/SLIDE.pt`` without.

The attributes are those of ``patches/SLIDE.h5``, which the tiles were cut by; ``coords`` there are
the same tiles in the same order, pixels of level 0.

Read from github.com/mahmoodlab/CLAM 53e2409: ``extract_features_fp.py``, ``utils/file_utils.py``,
``wsi_core/WholeSlideImage.py``, ``process_contour``.
"""

from functools import partial
from pathlib import Path
from typing import Any

from featurestore.importing import hdf5, tensors
from featurestore.importing.files import slide_name, source_files
from featurestore.importing.slide import Blocks, Geometry, Request, Slide, check_lengths, file_error

FEATURES = "features"


def slides(request: Request) -> list[Slide]:
    """Return the slides of a folder of features, or of one of its two folders."""
    files = source_files(request, (".h5", ".pt"), ("h5_files", "pt_files"))
    if any(file.suffix == ".h5" for file in files):  # the same slides, with coordinates
        files = [file for file in files if file.suffix == ".h5"]
    return [_slide(request, file) for file in files]


def _slide(request: Request, file: Path) -> Slide:
    name = slide_name(request, file)
    patches = _patches(request, file)
    if file.suffix == ".pt":
        if patches is None:
            raise file_error(
                file, "holds embeddings without coordinates", "a tensor alone",
                "name CLAM's folder of patches as well: --coords patches/; or import h5_files",
            )  # fmt: skip
        tensor = tensors.load(file)
        shape, dtype = tensors.shape(file, tensor), tensors.matrix(tensor[:1]).dtype
        coordinates_file, blocks = patches, partial(_tensor_blocks, file, patches)
    else:
        with hdf5.opened(file) as content:
            features = hdf5.dataset(file, content, FEATURES)
            shape, dtype = hdf5.shape(features), features.dtype
        coordinates_file, blocks = file, partial(hdf5.blocks, file, (FEATURES,))
    with hdf5.opened(coordinates_file) as content:
        coordinates = hdf5.dataset(coordinates_file, content, hdf5.COORDINATES)
        check_lengths(file, shape, hdf5.shape(coordinates))
    return Slide(
        slide_id=name,
        files=(file,) if patches is None else (file, patches),
        rows=shape[0],
        dim=shape[1],
        dtype=dtype,
        geometry=_geometry(patches),
        coordinates=partial(hdf5.coordinates, coordinates_file),
        blocks=blocks,
    )


def _patches(request: Request, file: Path) -> Path | None:
    """Return the file of a slide's patches, which bears the name of that of its features."""
    if request.coordinates is None:
        return None
    patches = request.coordinates
    return patches if patches.is_file() else patches / f"{file.stem}.h5"


def _geometry(patches: Path | None) -> Geometry:
    attributes: dict[str, Any] = {}
    if patches is not None:
        with hdf5.opened(patches) as content:
            attributes = hdf5.attributes(hdf5.dataset(patches, content, hdf5.COORDINATES))
    if not {"patch_size", "downsample", "level_dim"} <= set(attributes):
        return Geometry(level=0, is_assumed=True)  # without _fp, CLAM wrote those of the patches
    (across, down), (width, height) = attributes["downsample"], attributes["level_dim"]
    return Geometry(
        level=0,
        tile=attributes["patch_size"] * int(across),  # as CLAM itself rounds
        extent=(round(width * across), round(height * down)),
    )


def _tensor_blocks(file: Path, patches: Path, max_rows: int) -> Blocks:
    tensor = tensors.load(file)
    with hdf5.opened(patches) as content:
        coordinates = hdf5.dataset(patches, content, hdf5.COORDINATES)
        for start in range(0, len(tensor), max_rows):
            block = tensors.matrix(tensor[start : start + max_rows])
            yield hdf5.rows(coordinates, start, start + len(block)), block
