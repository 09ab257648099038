"""All maps of the slides that are asked for, in one folder with an index."""

import hashlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as ds

from featurestore.io import atomic
from featurestore.io.parquet import Dataset
from featurestore.printing import Console
from train.config.schema import Config
from train.config.sections import Maps
from train.overlays import geojson
from train.overlays.label_map import (
    NONE,
    Grid,
    LabelMap,
    SlidePredictions,
    grid,
    label_map,
    places,
    sample,
)
from train.overlays.ome_tiff import MapImage, write_tiff
from train.overlays.regions import regions
from train.overlays.slides import (
    Slide,
    choose,
    classes_of,
    read_slides,
    read_tiles,
    scores,
    slides_artifact,
)
from train.plots.overview import OverviewImage, overview_png
from train.plots.palette import ANSWERS, NOWHERE, colours
from train.predictions.files import write_parquet

INDEX = "index.parquet"
LONGEST = 200  # characters of a file's name, before what it is
MAP_PIXELS = 2**27
OVERVIEW_PIXELS = 2**20


def write(
    folder: Path, predicted: ds.Dataset, artifact: Dataset, settings: Maps, console: Console
) -> None:
    """Write the maps of the chosen slides, one slide in memory at a time, and their index.

    Parameters
    ----------
    folder
        An empty one.
    predicted
        See `train.predictions.files.dataset`.
    artifact
        That of the slides.
    """
    assert settings.slides is not None
    classes = classes_of(predicted)
    palette = colours(len(classes))
    names = choose(settings.slides, scores(predicted))
    slides = read_slides(artifact, settings.downsample, names)
    rows = []
    for name, stem in file_stems(names).items():
        tiles = read_tiles(predicted, slides[name], classes)
        row = draw(
            folder, slides[name], tiles, classes, palette, merged=settings.regions, stem=stem
        )
        rows.append(row)
    write_parquet(folder / INDEX, pa.Table.from_pylist(rows, SCHEMA))
    console.print(f"maps of {len(rows):,} slides, their regions checked against the tiles")


def write_overlays(
    predicted: ds.Dataset, config: Config, output: Path, console: Console, name: str = "maps"
) -> Path:
    """Write the maps that a configuration asks for; return their folder.

    They replace those of an earlier run with the same output, like its other files.

    Parameters
    ----------
    predicted
        Predictions of a split.
    output
        Where the folder goes.
    name
        Of the folder.
    """
    folder, uri = output / name, config.data.slides
    assert uri is not None  # see `train.overlays.checks.check_maps`
    slides = slides_artifact(uri, config.data.slide_id_strip or "")
    with tempfile.TemporaryDirectory(prefix=".building-", dir=output) as scratch:
        new = Path(scratch) / name
        new.mkdir()
        write(new, predicted, slides, config.maps, console)
        if folder.exists():
            shutil.rmtree(folder)
        atomic.publish(new, folder)
    return folder


SCHEMA = pa.schema({
    "slide_id": pa.string(), "tiles": pa.int64(), "labelled": pa.int64(), "accuracy": pa.float64(),
    "regions": pa.int64(), "map_pixel": pa.int64(), "map_mpp_x": pa.float64(),
    "map_mpp_y": pa.float64(), "geojson": pa.string(), "classes": pa.string(),
    "errors": pa.string(), "overview": pa.string(),
})  # fmt: skip


def draw(
    folder: Path,
    slide: Slide,
    tiles: SlidePredictions,
    classes: list[str],
    palette: list[str],
    *,
    merged: bool,
    stem: str,
) -> dict[str, Any]:
    """Write all maps of one slide; return its row of the index.

    Parameters
    ----------
    merged
        Whether the GeoJSON has regions, or a polygon for each tile.
    stem
        How the names of its files begin.
    """
    cells, class_legend = label_map(tiles), dict(zip(classes, palette, strict=True))
    outlines = regions(cells, tiles)
    pixels = grid(slide.extent, tiles.step, MAP_PIXELS)
    if merged:
        area = slide.mpp[0] * slide.mpp[1]
        features = geojson.region_features(outlines, classes, palette, slide.downsample, area)
    else:
        features = geojson.tile_features(tiles, classes, palette, slide.downsample)
    files = {"geojson": f"{stem}.geojson", "classes": f"{stem}.classes.ome.tif"}
    (folder / files["geojson"]).write_bytes(geojson.collection(features))
    maps = {"classes": (cells.label, class_legend)}
    if tiles.labelled:
        files["errors"] = f"{stem}.errors.ome.tif"
        maps["errors"] = (errors(cells), ANSWERS)
    for kind, (values, legend) in maps.items():
        title, notes = f"{slide.name}: {kind}", annotations(legend, slide, pixels)
        image = MapImage(values, legend, pixels, slide.mpp, title, notes)
        write_tiff(folder / files[kind], cells, image)
    files["overview"] = f"{stem}.png"
    overview(folder / files["overview"], slide, tiles, cells, class_legend)
    return {
        "slide_id": slide.name, "tiles": len(tiles), "labelled": tiles.labelled,
        "accuracy": tiles.accuracy if tiles.labelled else None, "regions": len(outlines.shape),
        "map_pixel": pixels.pixel, "map_mpp_x": slide.mpp[0] * pixels.pixel,
        "map_mpp_y": slide.mpp[1] * pixels.pixel, **files,
    }  # fmt: skip


def errors(cells: LabelMap) -> npt.NDArray[np.int64]:
    """Return the answer of each cell, an index of `ANSWERS`: right, wrong, or without label."""
    return np.where(cells.truth == NONE, 2, cells.label != cells.truth).astype(np.int64)


def annotations(legend: dict[str, str], slide: Slide, pixels: Grid) -> dict[str, str]:
    """Return what a TIFF says of itself: its colours, its pixels, how far the last ones reach."""
    right = pixels.width * pixels.pixel - slide.extent[0]
    below = pixels.height * pixels.pixel - slide.extent[1]
    return {
        **{f"colour of {name}": colour for name, colour in legend.items()},
        "colour of no tile": NOWHERE,
        "pixel": f"{pixels.pixel} x {pixels.pixel} pixels of the level of the tiles",
        "reaches over the slide": f"{right} pixels of that level on the right, {below} below",
    }


def overview(
    path: Path,
    slide: Slide,
    tiles: SlidePredictions,
    cells: LabelMap,
    legend: dict[str, str],
) -> None:
    """Draw the part of a slide that has tiles."""
    left, top = int(cells.xs[0]), int(cells.ys[0])
    extent = int(cells.xs[-1]) - left, int(cells.ys[-1]) - top
    pixels = grid(extent, tiles.step, OVERVIEW_PIXELS)
    rows = places(cells.ys, pixels.pixel, pixels.height, top)
    columns = places(cells.xs, pixels.pixel, pixels.width, left)

    def to_image(values: npt.NDArray, nothing: float) -> npt.NDArray:
        return sample(cells.spread(values, nothing), rows, columns, nothing)

    millimetres = [side / 1000 for side in slide.mpp]
    accuracy = f", {tiles.labelled:,} with a label: accuracy {tiles.accuracy:.3f}"
    image = OverviewImage(
        f"{slide.name}\n{len(tiles):,} tiles{accuracy if tiles.labelled else ''}",
        to_image(cells.label, NONE), to_image(cells.confidence, np.nan),
        to_image(cells.truth, NONE) if tiles.labelled else None, to_image(errors(cells), NONE),
        (left * millimetres[0], (left + pixels.width * pixels.pixel) * millimetres[0],
         (top + pixels.height * pixels.pixel) * millimetres[1], top * millimetres[1]),
    )  # fmt: skip
    overview_png(path, image, legend)


def file_stems(names: Sequence[str]) -> dict[str, str]:
    """Return a file's name for each slide: percent-encoded, but that the sign is ``=``.

    MLflow's server decodes percent signs, and refuses what it then finds, or keeps it elsewhere.
    One that is too long for a file, or that some disks would take for another's (``a`` and ``A``),
    ends in a digest; the index has it whole.
    """
    stems = {name: quote(name, safe=" ").replace("%", "=") for name in names}
    alike = Counter(stem.casefold() for stem in stems.values())
    return {
        name: stem
        if len(stem) <= LONGEST and alike[stem.casefold()] == 1
        else f"{stem[: LONGEST - 18]}=={hashlib.sha256(name.encode()).hexdigest()[:16]}"
        for name, stem in stems.items()
    }
