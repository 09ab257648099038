"""Maps: CPU seconds a slide for regions, GeoJSON, TIFFs and overview, and the peak of memory.

    python -m benchmarks.maps --slides 500 --tiles 2000
    python -m benchmarks.maps --slides 1 --tiles 1000000
    python -m benchmarks.maps --slides 20 --tiles 2000 --stride 100

Classes lie in patches with errors between them, as a probe predicts tissue.
"""

import argparse
import math
import resource
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from train.overlays import geojson, write
from train.overlays.label_map import NONE, SlidePredictions, grid, label_map
from train.overlays.ome_tiff import MapImage, write_tiff
from train.overlays.regions import regions
from train.overlays.slides import Slide
from train.plots.palette import colours

EXTENT = 224
NAMES = [f"class {index}" for index in range(7)]


def drawn(rng: np.random.Generator, tiles: int, stride: int) -> tuple[Slide, SlidePredictions]:
    """Draw one slide: a square of tiles, the outermost of which are left out."""
    across = math.isqrt(tiles - 1) + 1
    place = np.arange(tiles)
    x, y = place % across, place // across
    waves = rng.normal(0, 3.5, (2, len(NAMES))) / across
    field = np.sin(np.outer(x, waves[0]) * 6 + rng.normal(size=7)) + np.cos(
        np.outer(y, waves[1]) * 6 + rng.normal(size=7)
    )
    logits = 3 * field + rng.normal(size=field.shape)
    shares = np.exp(logits)
    shares = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
    made = SlidePredictions(
        x * stride, y * stride, EXTENT, EXTENT, field.argmax(axis=1), shares.argmax(axis=1), shares
    )
    side = across * stride + EXTENT
    return Slide("slide", (side, side), (EXTENT, EXTENT), (0.5, 0.5), 1.0), made


def measure(slide: Slide, tiles: SlidePredictions, folder: Path, seconds: dict[str, float]) -> int:
    """Write the maps of one slide; return its regions."""
    clock = time.process_time()

    def lap(name: str) -> None:
        nonlocal clock
        now = time.process_time()
        seconds[name] += now - clock
        clock = now

    palette = colours(len(NAMES))
    legend = dict(zip(NAMES, palette, strict=True))
    cut = label_map(tiles)
    lap("rule")
    found = regions(cut, tiles)
    lap("regions, checked")
    features = geojson.region_features(found, NAMES, palette, 1.0, 0.25)
    (folder / "regions.geojson").write_bytes(geojson.collection(features))
    lap("GeoJSON of regions")
    features = geojson.tile_features(tiles, NAMES, palette, 1.0)
    (folder / "tiles.geojson").write_bytes(geojson.collection(features))
    lap("GeoJSON of tiles")
    pixels = grid(slide.extent, tiles.step, write.MAP_PIXELS)
    for name, values in (("classes", cut.label), ("errors", write.errors(cut))):
        image = MapImage(values, legend, pixels, slide.mpp, name)
        write_tiff(folder / f"{name}.ome.tif", cut, image)
    lap("two TIFFs")
    write.overview(folder / "overview.png", slide, tiles, cut, legend)
    lap("overview")
    assert (cut.label != NONE).all()
    return len(found.shape)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slides", type=int, default=500)
    parser.add_argument("--tiles", type=int, default=2000, help="of each slide")
    parser.add_argument("--stride", type=int, default=EXTENT, help="less than 224: they overlap")
    options = parser.parse_args()
    seconds: dict[str, float] = defaultdict(float)
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.slides):
            slide, tiles = drawn(np.random.default_rng(number), options.tiles, options.stride)
            count += measure(slide, tiles, Path(folder), seconds)
    for name, value in [*seconds.items(), ("together", sum(seconds.values()))]:
        print(f"{name:<20}{value / options.slides:8.3f} s of CPU a slide")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{count / options.slides:,.0f} regions a slide; peak {peak:.2f} GB")


if __name__ == "__main__":
    main()
