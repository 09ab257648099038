"""Annotations to coverages: CPU seconds of one core for one slide, and the peak of memory.

    python -m benchmarks.annotations --tiles 100000 --polygons 10000
    python -m benchmarks.annotations --tiles 100000 --polygons 10000 --points 1000

Polygons are drawn blindly: of one class and of several over each other, as no annotator would.
"""

import argparse
import json
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.turns import peak
from featurestore.annotations import files
from featurestore.annotations.areas import Selection, areas
from featurestore.annotations.coverage import overlaps, shares
from featurestore.annotations.grid import GridOptions, open_grid

TILE = 224
NAMES = [f"class {index}" for index in range(7)]


def draw(file: Path, polygons: int, points: int, extent: int) -> None:
    """Write polygons of 100 to 1,200 pixels around their middles, as QuPath would."""
    rng = np.random.default_rng(0)
    features = []
    for _ in range(polygons):
        angle = (np.arange(points) + rng.uniform(0, 1, points)) * 2 * np.pi / points
        radius = rng.uniform(100, 1200) * rng.uniform(0.5, 1, points)
        x, y = rng.uniform(0, extent, 2)
        ring = np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1).round(2)
        features.append({
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[*ring.tolist(), ring[0].tolist()]]},
            "properties": {"objectType": "annotation",
                           "classification": {"name": NAMES[rng.integers(len(NAMES))]}},
        })  # fmt: skip
    file.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=100_000)
    parser.add_argument("--polygons", type=int, default=10_000)
    parser.add_argument("--points", type=int, default=100, help="of each polygon")
    options = parser.parse_args()
    seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def lap(name: str) -> Iterator[None]:
        begun = time.process_time()
        yield
        seconds[name] += time.process_time() - begun

    with tempfile.TemporaryDirectory() as folder:
        drawn, slides = Path(folder, "slide.geojson"), Path(folder, "slides.parquet")
        extent = (math.isqrt(options.tiles - 1) + 1) * TILE
        draw(drawn, options.polygons, options.points, extent)
        sizes = {"extent": extent, "tile_extent": TILE}
        columns = {f"{name}_{axis}": [size] for name, size in sizes.items() for axis in "xy"}
        pq.write_table(pa.table({"id": ["slide"], **columns}), slides)
        with lap("reading GeoJSON"):
            annotations = files.read([drawn])
        with lap("areas of classes"):
            found, _ = areas(annotations, Selection(tuple(NAMES)))
        with lap("the grid"):
            [grid] = open_grid(str(slides), None, GridOptions()).each(["slide"])
            rows = grid.rows_within((0, 0, 0, 0))
            boxes = grid.boxes(rows)
        with lap("shares of tiles"):
            for name, area in found.items():
                rows = rows.append_column(name, pa.array(shares(area, boxes)))
        with lap("classes over each other"):
            pairs = overlaps(found, boxes)
        with lap("writing"):
            pq.write_table(rows, Path(folder, "tiles.parquet"))
    for name, value in [*seconds.items(), ("together", sum(seconds.values()))]:
        print(f"{name:<26}{value:8.2f} s of CPU")
    area = sum(overlap.area for overlap in pairs.values()) / TILE**2
    print(f"{len(rows):,} tiles, {options.polygons:,} polygons of {options.points} points, "
          f"{area:,.0f} tiles' area of two classes; peak {peak():.2f} GB")  # fmt: skip


if __name__ == "__main__":
    main()
