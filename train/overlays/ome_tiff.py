"""Maps as pyramidal OME-TIFF: what QuPath, Fiji, OpenSlide and libvips read the pixel size from.

Levels are sampled, never averaged: the mean of two classes' colours is a third class's.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile

from train.overlays.label_map import NONE, Grid, LabelMap, places, sample
from train.plots.palette import NOWHERE, rgb

TILE = 256  # pixels a side, of the file
SMALLEST = 64  # pixels of the longer side, at which halving ends


def write_tiff(
    path: Path,
    mosaic: LabelMap,
    values: npt.NDArray[np.int64],
    colours: list[str],
    grid: Grid,
    mpp: tuple[float, float],
    name: str,
    said: dict[str, str],
) -> Path:
    """Write a map of a slide: RGB, tiled, deflated, with levels of half the size.

    Parameters
    ----------
    values
        Of each cell of the mosaic, an index of ``colours``, or `NONE`.
    colours
        ``#RRGGBB``.
    grid
        Its pixels.
    mpp
        Micrometres of a pixel of the slide's level, across and down.
    name
        Of the image, shown by viewers.
    said
        Legend and the like, kept as OME annotation.
    """
    laid = mosaic.spread(values, NONE)
    levels = [grid]
    while len(levels) < 2 or max(levels[-1].width, levels[-1].height) > SMALLEST:
        levels.append(levels[-1].halved())
    table = np.array([*map(rgb, colours), rgb(NOWHERE)], dtype=np.uint8)  # NONE is the last
    size = [side * grid.pixel for side in mpp]
    metadata = {
        "axes": "YXS", "Name": name, "MapAnnotation": said,
        "PhysicalSizeX": size[0], "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": size[1], "PhysicalSizeYUnit": "µm",
    }  # fmt: skip
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as file:
        for number, own in enumerate(levels):
            factor = own.pixel / grid.pixel
            file.write(
                blocks(mosaic, laid, own, table),
                shape=(own.height, own.width, 3), dtype=np.uint8, photometric="rgb",
                tile=(TILE, TILE), compression="zlib", resolutionunit="CENTIMETER",
                resolution=tuple(10_000 / (side * factor) for side in size),
                subifds=len(levels) - 1 if number == 0 else None,
                subfiletype=0 if number == 0 else 1,
                metadata=metadata if number == 0 else None,
            )  # fmt: skip
    return path


def blocks(
    mosaic: LabelMap, laid: npt.NDArray[np.int64], grid: Grid, table: npt.NDArray[np.uint8]
) -> Iterator[npt.NDArray[np.uint8]]:
    """Paint one tile of the file after the other: a map is never in memory as a whole."""
    rows = places(mosaic.ys, grid.pixel, grid.height)
    columns = places(mosaic.xs, grid.pixel, grid.width)
    for top in range(0, grid.height, TILE):
        for left in range(0, grid.width, TILE):
            down, across = rows[top : top + TILE], columns[left : left + TILE]
            block = np.full((TILE, TILE), NONE)
            block[: len(down), : len(across)] = sample(laid, down, across, NONE)
            yield table[block]
