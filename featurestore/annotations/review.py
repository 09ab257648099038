"""Tiles whose label is in doubt, for a person: ranked, and as boxes that QuPath opens."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.annotations.grid import TILE_SIZE, GridOptions, downsample, pair
from featurestore.io.atomic import new_folder

FILE = "label_issues.parquet"
DIGITS = 6  # of a probability, in GeoJSON


def write(
    issues: pa.Table, slides: Mapping[str, dict[str, Any]], options: GridOptions, to: Path
) -> Path:
    """Write a table of tiles and, for each slide, its tiles as annotations of their labels.

    A reviewer gives a box another class, or removes it; `featurestore.annotations.cover.cover`
    reads what is left. Names of files are those of slides, percent-encoded.

    Parameters
    ----------
    issues
        ``rank, slide_id, x, y, label, predicted, label_probability, probability``, by rank.
    slides
        Rows of the slides artifact by the names of slides; may be empty.
    options
        Size and level of the tiles, where the slides do not say it.
    to
        A folder that is not there yet.

    Raises
    ------
    ArtifactError
        It is there already, or cannot be written.
    SchemaError
        Nothing says how large the tiles are, or of which level.
    """
    by_slide: dict[str, list[dict[str, Any]]] = {}
    for row in issues.to_pylist():
        by_slide.setdefault(row["slide_id"], []).append(row)
    contents = {
        name: collection(rows, slides.get(name, {"id": name}), options)
        for name, rows in by_slide.items()
    }

    def build(folder: Path) -> None:
        pq.write_table(issues, folder / FILE)
        for name, content in contents.items():
            (folder / f"{quote(name, safe=' ')}.geojson").write_bytes(content)

    return new_folder(to, build)


def collection(
    rows: Sequence[dict[str, Any]], slide: dict[str, Any], options: GridOptions
) -> bytes:
    """Return the tiles of a slide as GeoJSON, in pixels of full resolution."""
    tile = options.tile or pair(slide, "tile_extent", TILE_SIZE)
    factor = downsample(slide, options)
    features = [_feature(row, tile, factor) for row in rows]
    content = {"type": "FeatureCollection", "features": features}
    return json.dumps(content, ensure_ascii=False, indent=1).encode()


def _feature(row: dict[str, Any], tile: tuple[int, int], factor: float) -> dict[str, Any]:
    left, top = row["x"] * factor, row["y"] * factor
    right, bottom = (row["x"] + tile[0]) * factor, (row["y"] + tile[1]) * factor
    outline = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [outline]},
        "properties": {
            "objectType": "annotation",
            "name": f"{row['rank']}: {row['predicted']}?",
            "classification": {"name": row["label"]},
            "isLocked": False,
            "measurements": {
                "Rank": row["rank"],
                "Probability of the label": round(row["label_probability"], DIGITS),
                "Probability of the prediction": round(row["probability"], DIGITS),
            },
            "metadata": {"predicted": row["predicted"]},
        },
    }
