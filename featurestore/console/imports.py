"""``featurestore import``: what other tools write, as artifacts."""

import argparse
from pathlib import Path

from featurestore.console.commands.imports import COLUMNS
from featurestore.errors import ConfigError
from featurestore.importing.cohort import EMBEDDINGS, SLIDES, import_slides
from featurestore.importing.slide import Request
from featurestore.importing.spacing import spacing
from featurestore.io.progress import Rows
from featurestore.io.uris import local_path
from featurestore.printing import Console, counted, say


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
