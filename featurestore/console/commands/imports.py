"""Arguments of ``featurestore import``."""

import argparse
from pathlib import Path
from typing import Any

from featurestore.importing.registry import FORMATS, FormatInfo

COLUMNS = ("slide_id", "x", "y", "embedding")


def add(commands: Any) -> None:
    """Add the command to a parser's."""
    parser = commands.add_parser("import", help="what other tools wrote, as artifacts")
    formats = parser.add_subparsers(required=True, metavar="FORMAT", dest="format")
    for name, info in FORMATS.items():
        one = formats.add_parser(name, help=info.source)
        one.add_argument("source", metavar="SOURCE", help=info.source)
        one.add_argument("--to", type=Path, required=True, help="folder of the artifacts")
        one.add_argument("--slide-id", metavar="PATTERN", help="regular expression whose first "
                         "group is the slide's name in that of its file")  # fmt: skip
        one.add_argument("--replace", action="store_true", help="replace slides that are there "
                         "already, of another tool or encoder")  # fmt: skip
        one.add_argument("--skip-empty", action="store_true", help="leave slides without tiles out")
        _add_options(one, info)
        one.set_defaults(run="imports:run")


def _add_options(parser: argparse.ArgumentParser, info: FormatInfo) -> None:
    if "columns" in info.takes:
        parser.add_argument("--columns", nargs="+", default=[], metavar="NAME=COLUMN",
                            help=f"where {', '.join(COLUMNS)} are")  # fmt: skip
    if "coordinates" in info.takes:
        parser.add_argument("--coords", type=Path, help="file or folder of the coordinates")
    if "level" in info.takes:
        parser.add_argument("--level", type=int, choices=[0], help="convert x and y to this level")
    if "mpp" in info.takes:
        parser.add_argument("--mpp", help="micrometres a pixel at level 0, of all slides or as a "
                            "table with id and mpp_x")  # fmt: skip
    if "downsample" in info.takes:
        parser.add_argument("--downsample", type=float, help="pixels of level 0 in one of x and y")
    if "save_every" in info.takes:
        parser.add_argument("--save-every-n", type=int, help="of eva's writer")
