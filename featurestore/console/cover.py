"""``featurestore cover``: from annotations to the coverages that labels are made of."""

import argparse
import importlib.util
import tempfile
from contextlib import ExitStack
from pathlib import Path

from featurestore.console.tables import print_table
from featurestore.errors import ArtifactError, ConfigError, os_errors_refused
from featurestore.io import parquet
from featurestore.io.progress import Rows
from featurestore.io.uris import local_path
from featurestore.printing import Console, counted, say
from featurestore.spec.store_spec import StoreSpec


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
