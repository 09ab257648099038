"""``featurestore cover``: from annotations to the coverages that labels are made of."""

import argparse
import importlib.util
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from featurestore.console.tables import print_table
from featurestore.errors import ArtifactError, ConfigError, os_errors_refused
from featurestore.io import parquet
from featurestore.io.progress import Rows
from featurestore.io.uris import local_path
from featurestore.printing import Console, counted, say
from featurestore.spec.store_spec import StoreSpec


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
    cover.set_defaults(run=run)


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


def run(options: argparse.Namespace) -> None:
    """Write the tiles, and print what covers them."""
    if importlib.util.find_spec("shapely") is None:
        raise ConfigError(
            "`featurestore cover` needs shapely", found="no package shapely",
            fix="pip install 'tissue-probe[annotations]'",
        )  # fmt: skip
    from featurestore.annotations import (
        correct,
        cover,
        files,
        grid,
    )  # where there is none, no other needs it
    from featurestore.annotations.areas import Selection

    classes = class_names(options.classes)
    _check_output(options.to, [options.tiles, options.slides, options.correct])
    drawn = files.find(options.annotations)
    layout = grid.GridOptions(
        options.tile_size, options.stride, options.origin, options.edge, options.downsample
    )
    tiles = grid.open_grid(options.tiles, options.slides, layout)
    selection = Selection(classes, frozenset(options.ignore), options.detections, options.offset)
    files_of = files.by_slide(drawn, options.slide_id, tiles.slides)
    bar = Rows(Console(stderr=True), "slides")
    with ExitStack() as stack:
        to = options.to
        if options.correct:
            to = Path(stack.enter_context(tempfile.TemporaryDirectory())) / to.name
        summary = cover.cover(tiles, files_of, selection, to, bar)
        print_table(summary.table(classes), Console())
        if options.correct:
            corrected = correct.correct(options.correct, to, options.to)
            number = f"{corrected:,} of them as annotated now"
            say(f"{options.to}: the tiles of {options.correct}, {number}")
            return
    number = f"{counted(summary.tiles, 'tile')} of {counted(summary.slides, 'slide')}"
    say(f"{options.to}: {number}")


def class_names(uri: str) -> tuple[str, ...]:
    """Return the names of the classes in a configuration, in its order.

    Those that are merged, or whose tiles are dropped, are columns like the others: the rules that
    say so act on coverages.

    Raises
    ------
    ConfigError
        It names none.
    """
    with os_errors_refused(f"{uri} cannot be read", "name a YAML file with class_indices"):
        spec = StoreSpec.from_yaml(Path(local_path(uri)).read_bytes(), uri)
    if not spec.class_indices:
        raise ConfigError(
            f"{uri} names no class", found="no class_indices",
            fix="write class_indices: {Fat: 0, Muscle: 1}, as in configs/classes",
        )  # fmt: skip
    merged = [name for members in spec.merge.values() for name in members]
    return tuple(dict.fromkeys([*spec.class_indices, *merged, *spec.drop]))


def _check_output(path: Path, uris: list[str | None]) -> None:
    """Refuse to write over what is read."""
    for uri in filter(None, uris):
        if any(file.exists() and path.exists() and file.samefile(path)
               for file in parquet.parquet_files(uri)):  # fmt: skip
            raise ArtifactError(
                f"{path} is a file of {uri}, which is read", found="the same file",
                fix="name another file: --to",
            )  # fmt: skip
