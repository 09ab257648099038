"""Maps as pyramidal OME-TIFF: what QuPath, Fiji, OpenSlide and libvips read the pixel size from.

Levels are sampled, never averaged: the mean of two classes' colours is a third class's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile

from train.overlays.label_map import NONE, Grid, LabelMap, places, sample
from train.plots.palette import NOWHERE, rgb

TILE = 256  # pixels a side, of the file
SMALLEST = 64  # pixels of the longer side, at which halving ends


@dataclass(frozen=True)
class MapImage:
    """A map of a slide as an image of colours.

    Parameters
    ----------
    values
        Of each cell of a label map, an index of ``legend``, or `NONE`.
    legend
        What each index means, and its colour as ``#RRGGBB``.
    grid
        Its pixels.
    mpp
        Micrometres of a pixel of the slide's level, across and down.
    title
        Shown by viewers.
    annotations
        Legend and the like, kept as OME annotation.
    """

    values: npt.NDArray[np.int64]
    legend: Mapping[str, str]
    grid: Grid
    mpp: tuple[float, float]
    title: str
    annotations: Mapping[str, str] = field(default_factory=dict)


def write_tiff(path: Path, cells: LabelMap, image: MapImage) -> Path:
    """Write a map of a slide: RGB, tiled, deflated, with levels of half the size."""
    values, levels = cells.spread(image.values, NONE), [image.grid]
    while len(levels) < 2 or max(levels[-1].width, levels[-1].height) > SMALLEST:
        levels.append(levels[-1].halved())
    table = np.array(
        [*map(rgb, image.legend.values()), rgb(NOWHERE)], dtype=np.uint8
    )  # NONE is the last
    size = [side * image.grid.pixel for side in image.mpp]
    metadata = {
        "axes": "YXS", "Name": image.title, "MapAnnotation": dict(image.annotations),
        "PhysicalSizeX": size[0], "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": size[1], "PhysicalSizeYUnit": "µm",
    }  # fmt: skip
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as file:
        for number, level in enumerate(levels):
            factor = level.pixel / image.grid.pixel
            file.write(
                blocks(cells, values, level, table),
                shape=(level.height, level.width, 3), dtype=np.uint8, photometric="rgb",
                tile=(TILE, TILE), compression="zlib", resolutionunit="CENTIMETER",
                resolution=tuple(10_000 / (side * factor) for side in size),
                subifds=len(levels) - 1 if number == 0 else None,
                subfiletype=0 if number == 0 else 1,
                metadata=metadata if number == 0 else None,
            )  # fmt: skip
    return path


def blocks(
    cells: LabelMap, values: npt.NDArray[np.int64], grid: Grid, table: npt.NDArray[np.uint8]
) -> Iterator[npt.NDArray[np.uint8]]:
    """Paint one tile of the file after the other: a map is never in memory as a whole."""
    rows = places(cells.ys, grid.pixel, grid.height)
    columns = places(cells.xs, grid.pixel, grid.width)
    for top in range(0, grid.height, TILE):
        for left in range(0, grid.width, TILE):
            down, across = rows[top : top + TILE], columns[left : left + TILE]
            block = np.full((TILE, TILE), NONE)
            block[: len(down), : len(across)] = sample(values, down, across, NONE)
            yield table[block]
