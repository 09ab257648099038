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
from featurestore.printing import Console
from train.config.schema import Config, Maps
from train.overlays import geojson, ome_tiff
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
from train.overlays.regions import regions
from train.overlays.slides import Slide, choose, classes_of, read_slides, read_tiles, scores
from train.plots.overview import SlideImages, overview_png
from train.plots.palette import ANSWERS, NOWHERE, colours
from train.predictions.files import write_parquet

INDEX = "index.parquet"
LONGEST = 200  # characters of a file's name, before what it is
MAP_PIXELS = 2**27
OVERVIEW_PIXELS = 2**20


def write(folder: Path, predicted: ds.Dataset, uri: str, settings: Maps, console: Console) -> None:
    """Write the maps of the chosen slides, one slide in memory at a time, and their index.

    Parameters
    ----------
    folder
        An empty one.
    predicted
        See `train.predictions.files.dataset`.
    uri
        Of the slides artifact.
    """
    assert settings.slides is not None
    classes = classes_of(predicted)
    palette = colours(len(classes))
    chosen = choose(settings.slides, scores(predicted))
    slides = read_slides(uri, settings.downsample, chosen)
    rows = []
    for name, stem in file_stems(chosen).items():
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
    folder, slides = output / name, config.data.slides
    assert slides is not None  # see `train.overlays.checks.check_maps`
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
    cut = label_map(tiles)
    found = regions(cut, tiles)
    pixels = grid(slide.extent, tiles.step, MAP_PIXELS)
    if merged:
        area = slide.mpp[0] * slide.mpp[1]
        features = geojson.region_features(found, classes, palette, slide.downsample, area)
    else:
        features = geojson.tile_features(tiles, classes, palette, slide.downsample)
    files = {"geojson": f"{stem}.geojson", "classes": f"{stem}.classes.ome.tif"}
    (folder / files["geojson"]).write_bytes(geojson.collection(features))
    maps = {"classes": (cut.label, dict(zip(classes, palette, strict=True)))}
    if tiles.labelled:
        files["errors"] = f"{stem}.errors.ome.tif"
        maps["errors"] = (errors(cut), ANSWERS)
    for kind, (values, legend) in maps.items():
        ome_tiff.write_tiff(
            folder / files[kind], cut, values, list(legend.values()), pixels, slide.mpp,
            f"{slide.name}: {kind}", said(legend, slide, pixels),
        )  # fmt: skip
    files["overview"] = f"{stem}.png"
    overview(folder / files["overview"], slide, tiles, cut, classes, palette)
    return {
        "slide_id": slide.name, "tiles": len(tiles), "labelled": tiles.labelled,
        "accuracy": tiles.accuracy if tiles.labelled else None, "regions": len(found.shape),
        "map_pixel": pixels.pixel, "map_mpp_x": slide.mpp[0] * pixels.pixel,
        "map_mpp_y": slide.mpp[1] * pixels.pixel, **files,
    }  # fmt: skip


def errors(cut: LabelMap) -> npt.NDArray[np.int64]:
    """Return the answer of each cell, an index of `ANSWERS`: right, wrong, or without label."""
    return np.where(cut.truth == NONE, 2, cut.label != cut.truth).astype(np.int64)


def said(legend: dict[str, str], slide: Slide, pixels: Grid) -> dict[str, str]:
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
    cut: LabelMap,
    classes: list[str],
    palette: list[str],
) -> None:
    """Draw the part of a slide that has tiles."""
    left, top = int(cut.xs[0]), int(cut.ys[0])
    extent = int(cut.xs[-1]) - left, int(cut.ys[-1]) - top
    pixels = grid(extent, tiles.step, OVERVIEW_PIXELS)
    rows = places(cut.ys, pixels.pixel, pixels.height, top)
    columns = places(cut.xs, pixels.pixel, pixels.width, left)

    def laid(values: npt.NDArray, nothing: float) -> npt.NDArray:
        return sample(cut.spread(values, nothing), rows, columns, nothing)

    millimetres = [side / 1000 for side in slide.mpp]
    known = f", {tiles.labelled:,} with a label: accuracy {tiles.accuracy:.3f}"
    overview_png(
        path, f"{slide.name}\n{len(tiles):,} tiles{known if tiles.labelled else ''}",
        dict(zip(classes, palette, strict=True)),
        SlideImages(
            laid(cut.label, NONE), laid(cut.confidence, np.nan),
            laid(cut.truth, NONE) if tiles.labelled else None, laid(errors(cut), NONE),
            (left * millimetres[0], (left + pixels.width * pixels.pixel) * millimetres[0],
             (top + pixels.height * pixels.pixel) * millimetres[1], top * millimetres[1]),
        ),
    )  # fmt: skip


def file_stems(names: Sequence[str]) -> dict[str, str]:
    """Return a file's name for each slide: percent-encoded, so that decoding gives the slide back.

    One that is too long for a file, or that some disks would take for another's (`a` and `A`), ends
    in a digest; the index has it whole.
    """
    stems = {name: quote(name, safe=" ") for name in names}
    alike = Counter(stem.casefold() for stem in stems.values())
    return {
        name: stem
        if len(stem) <= LONGEST and alike[stem.casefold()] == 1
        else f"{stem[: LONGEST - 18]}%%{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        for name, stem in stems.items()
    }
