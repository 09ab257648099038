"""``featurestore import``: what other tools write, as artifacts."""

import argparse
from pathlib import Path
from typing import Any

from featurestore.errors import ConfigError
from featurestore.importing.cohort import EMBEDDINGS, SLIDES, import_slides
from featurestore.importing.registry import FORMATS, Reading
from featurestore.importing.slide import Request
from featurestore.importing.spacing import spacing
from featurestore.io.progress import Rows
from featurestore.io.uris import local_path
from featurestore.printing import Console, counted, say

COLUMNS = ("slide_id", "x", "y", "embedding")


def add(commands: Any) -> None:
    """Add the command to a parser's."""
    parser = commands.add_parser("import", help="what other tools wrote, as artifacts")
    formats = parser.add_subparsers(required=True, metavar="FORMAT", dest="format")
    for name, reading in FORMATS.items():
        one = formats.add_parser(name, help=reading.source)
        one.add_argument("source", metavar="SOURCE", help=reading.source)
        one.add_argument("--to", type=Path, required=True, help="folder of the artifacts")
        one.add_argument("--slide-id", metavar="PATTERN", help="regular expression whose first "
                         "group is the slide's name in that of its file")  # fmt: skip
        one.add_argument("--replace", action="store_true", help="replace slides that are there "
                         "already, of another tool or encoder")  # fmt: skip
        one.add_argument("--skip-empty", action="store_true", help="leave slides without tiles out")
        _add_options(one, reading)
        one.set_defaults(run=run)


def _add_options(parser: argparse.ArgumentParser, reading: Reading) -> None:
    if "columns" in reading.takes:
        parser.add_argument("--columns", nargs="+", default=[], metavar="NAME=COLUMN",
                            help=f"where {', '.join(COLUMNS)} are")  # fmt: skip
    if "coordinates" in reading.takes:
        parser.add_argument("--coords", type=Path, help="file or folder of the coordinates")
    if "level" in reading.takes:
        parser.add_argument("--level", type=int, choices=[0], help="convert x and y to this level")
    if "mpp" in reading.takes:
        parser.add_argument("--mpp", help="micrometres a pixel at level 0, of all slides or as a "
                            "table with id and mpp_x")  # fmt: skip
    if "downsample" in reading.takes:
        parser.add_argument("--downsample", type=float, help="pixels of level 0 in one of x and y")
    if "save_every" in reading.takes:
        parser.add_argument("--save-every-n", type=int, help="of eva's writer")


def run(options: argparse.Namespace) -> None:
    """Import, and say what came of it."""
    given = vars(options)
    request = Request(
        format=options.format,
        source=Path(local_path(options.source)),
        slide_id=options.slide_id,
        columns=_columns(given.get("columns", [])),
        level=given.get("level"),
        mpp=spacing(given["mpp"]) if given.get("mpp") else None,
        downsample=given.get("downsample"),
        coordinates=given.get("coords"),
        save_every=given.get("save_every_n"),
        replace=options.replace,
    )
    done = import_slides(
        request, options.to, skip_empty=options.skip_empty, rows=Rows(Console(stderr=True))
    )
    slides, tiles = counted(done.slides, "slide"), counted(done.tiles, "tile")
    say(f"{slides}, {tiles}: {done.written:,} written, "
        f"{done.slides - done.written:,} there already")  # fmt: skip
    for units in done.units:
        say(f"x and y: {units}")
    say(f"data.embeddings={done.folder / EMBEDDINGS} data.slides={done.folder / SLIDES}")


def _columns(given: list[str]) -> dict[str, str]:
    pairs = dict(text.partition("=")[::2] for text in given)
    for name, column in pairs.items():
        if name not in COLUMNS or not column:
            raise ConfigError(
                f"--columns does not know {name}={column}",
                found=f"{', '.join(COLUMNS)}",
                fix="write for example --columns slide_id=case x=left y=top embedding=features",
            )
    return pairs
