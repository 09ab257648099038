"""Arguments of ``featurestore cover``."""

import argparse
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the command to a parser's."""
    cover = commands.add_parser(
        "cover", help="annotations (QuPath, ASAP) to the share of each tile that a class covers"
    )
    cover.add_argument(
        "--tiles",
        metavar="URI",
        help="the grid: slides.parquet, or Parquet with slide_id, x, y (default: --tile-size over "
        "what was annotated)",
    )
    cover.add_argument(
        "--annotations", metavar="URI", nargs="+", required=True,
        help=".geojson, .json or .xml, also .gz: files, folders, globs",
    )  # fmt: skip
    cover.add_argument(
        "--classes",
        metavar="FILE",
        required=True,
        help="YAML with class_indices, as configs/classes",
    )
    cover.add_argument("--to", type=Path, required=True, help="for example tiles.parquet")
    cover.add_argument(
        "--correct",
        metavar="URI",
        help="tiles with coverages: write all of them, those of --tiles as annotated now",
    )
    cover.add_argument(
        "--slide-id", metavar="PATTERN", help="regular expression: the slide in a file's name (all)"
    )
    cover.add_argument(
        "--ignore", metavar="CLASS", nargs="+", default=[], help="annotations that do not count"
    )
    cover.add_argument(
        "--detections", action="store_true", help="what programs detected counts as well"
    )
    _add_grid(cover)
    cover.set_defaults(run="cover:run")


def _add_grid(cover: argparse.ArgumentParser) -> None:
    grid = cover.add_argument_group("grid", "in the units of x and y")
    grid.add_argument("--slides", metavar="URI", help="says how large the tiles of --tiles are")
    grid.add_argument("--tile-size", type=pixels, metavar="PIXELS", help="224, or 224,192")
    grid.add_argument("--stride", type=pixels, metavar="PIXELS", help="(the tile size)")
    grid.add_argument(
        "--origin", type=point, default=(0, 0), metavar="X,Y", help="the first tile (0,0)"
    )
    grid.add_argument(
        "--edge", choices=["keep", "drop"], default="keep",
        help="tiles that reach over the slide's right and lower end (keep)",
    )  # fmt: skip
    grid.add_argument(
        "--downsample", type=factor, metavar="FACTOR",
        help="pixels of full resolution in one of x and y (1, or that of the slides)",
    )  # fmt: skip
    grid.add_argument(
        "--offset", type=point, default=(0, 0), metavar="X,Y",
        help="where the annotations' origin lies in the slide, in pixels of full resolution (0,0)",
    )  # fmt: skip


def point(text: str) -> tuple[int, int]:
    """Return the coordinates that an argument names."""
    x, y = map(int, text.split(","))
    return x, y


def pixels(text: str) -> tuple[int, int]:
    """Return the width and height that an argument names, as one number or two."""
    width, height = point(text if "," in text else f"{text},{text}")
    if min(width, height) < 1:
        raise ValueError(text)
    return width, height


def factor(text: str) -> float:
    """Return the positive number that an argument is."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError(text)
    return number
