"""Maps of predictions that a pathologist opens: GeoJSON for QuPath, pyramidal TIFFs, an overview.

    python train/maps.py predictions=outputs/predictions.parquet data.slides=slides.parquet
    python train/maps.py predictions=RUN maps.slides=worst:20 output=maps
    python train/maps.py predictions=models:/tissue-probe/1 maps.slides=slide-07,slide-12

`predictions` is a file, a folder with a file a slide, the id of a run or a models:/ URI. Writes a
folder (which must not be there yet): for each slide NAME.geojson, NAME.classes.ome.tif, NAME.png
and, where there are labels, NAME.errors.ome.tif; and index.parquet, which says what is where. Names
are percent-encoded. With maps.slides=... train/probe.py writes the same of what it has predicted.
Needs `pip install -e '.[maps]'`.
"""

import sys

from train.config import installed

# What the extra `train` brings is looked for before it is imported: without it one refusal is told.
if __name__ == "__main__":
    installed.check_or_exit()

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from featurestore.spec.rules import Uris
from train.config.schema import MISSING, ConfigError, doc
from train.config.sections import Maps, Server
from train.overlays.checks import check_extra

if TYPE_CHECKING:
    pass

EXAMPLE = "predictions=predictions.parquet data.slides=slides.parquet"


@dataclass
class Data:
    """Where the artifacts are."""

    slides: Uris = field(
        default=None, metadata=doc("slides artifact (default: that of the run's configuration)")
    )


@dataclass
class Keys:
    """The keys of this script."""

    predictions: str = field(
        default=MISSING,
        metadata=doc("a file, a folder with a file a slide, a run or a models:/ URI"),
    )
    data: Data = field(default_factory=Data, metadata=doc("artifacts"))
    maps: Maps = field(default_factory=Maps, metadata=doc("which slides, and how"))
    output: str = field(default="maps", metadata=doc("a new folder"))
    tracking: Server = field(default_factory=Server, metadata=doc("MLflow"))


def main(argv: Sequence[str]) -> int:
    """Write maps; return the exit status, 2 after a refusal."""
    from train.config.help import run_command

    return run_command(argv, usage, work)


def usage() -> str:
    """Return the help: the keys."""
    from train.config.help import keys

    head = "usage: python train/maps.py predictions=... [key=value ...]"
    return "\n".join([head, "", *keys(Keys)])


def work(argv: list[str]) -> int:
    """Write the maps that the arguments name."""
    from featurestore.io import names
    from train.config.load import small

    with names.resolved_once():
        run(small(Keys, argv, EXAMPLE))
    return 0


def run(keys: Keys) -> None:
    """Do what the arguments say."""
    check_extra()
    from featurestore.io import atomic
    from featurestore.printing import Console
    from train.overlays.slides import slides_artifact
    from train.overlays.write import write
    from train.predictions.files import dataset

    if not keys.maps.slides:
        keys.maps.slides = "all"
    if Path(keys.output).exists():
        atomic.new_folder(Path(keys.output), lambda _: None)  # refuses before any work
    predicted = dataset(keys.predictions, keys.tracking.uri)
    uri, strip = (keys.data.slides, "") if keys.data.slides else recorded_slides(keys.predictions)
    slides = slides_artifact(uri, strip)
    console = Console()
    atomic.new_folder(
        Path(keys.output), lambda folder: write(folder, predicted, slides, keys.maps, console)
    )
    console.print(f"written: {keys.output}", soft_wrap=True)


def recorded_slides(run: str) -> tuple[str | list[str], str]:
    """Return the slides artifact that a run has recorded, and the suffix to take from its names.

    Raises
    ------
    ConfigError
        It has none, or is not a run.
    """
    from featurestore.io import names, uris
    from train.config import load

    if not Path(run).exists():
        file = Path(uris.local_path(f"runs:/{names.run_of(run)}/config.yaml"))
        data = load.excerpt(file.read_text(), ["data"]).get("data", {}) if file.is_file() else {}
        slides: Uris = data.get("slides")
        if slides:
            return slides, data.get("slide_id_strip") or ""
    raise ConfigError(
        "No slides artifact says how large slides and tiles are",
        found=f"data.slides is not set, and {run} has recorded none",
        fix="set for example data.slides=slides.parquet",
    )


# -- from train/probe.py --------------------------------------------------------------------------


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
