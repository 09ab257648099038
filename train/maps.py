"""Maps of predictions that a pathologist opens: GeoJSON for QuPath, pyramidal TIFFs, an overview.

    python train/maps.py predictions=outputs/predictions.parquet slides=slides.parquet
    python train/maps.py predictions=RUN maps.slides=worst:20 output=maps
    python train/maps.py predictions=models:/tissue-probe/1 maps.slides=slide-07,slide-12

`predictions` is a file, a folder with a file a slide, the id of a run or a models:/ URI. Writes a
folder (which must not be there yet): for each slide NAME.geojson, NAME.classes.ome.tif, NAME.png
and, where there are labels, NAME.errors.ome.tif; and index.parquet, which says what is where. Names
are percent-encoded. With maps.slides=... train/probe.py writes the same of what it has predicted.
Needs `pip install -e '.[maps]'`.
"""

import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from train.schema import MISSING, Config, ConfigError, Maps, doc

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

    from train.session import Session

EXAMPLE = "predictions=predictions.parquet slides=slides.parquet"
NEEDED = ("shapely", "tifffile")
FOLDERS = ("maps", "oof_maps")


@dataclass
class Keys:
    """The keys of this script."""

    predictions: str = field(
        default=MISSING,
        metadata=doc("a file, a folder with a file a slide, a run or a models:/ URI"),
    )
    slides: str | None = field(
        default=None, metadata=doc("slides artifact (default: that of the run's configuration)")
    )
    maps: Maps = field(default_factory=Maps, metadata=doc("which slides, and how"))
    output: str = field(default="maps", metadata=doc("a new folder"))
    uri: str | None = field(
        default=None, metadata=doc("tracking URI (default: MLFLOW_TRACKING_URI, else sqlite)")
    )


def main(argv: Sequence[str]) -> int:
    """Write maps; return the exit status, 2 after a refusal."""
    from featurestore import names
    from featurestore.errors import FeatureStoreError
    from featurestore.printing import print_error
    from train import config

    if {"-h", "--help"} & set(argv):
        print("usage: python train/maps.py predictions=... [key=value ...]\n")
        print("\n".join(config.keys(Keys)))
        return 0
    try:
        with names.resolved_once():
            run(config.small(Keys, list(argv), EXAMPLE))
    except FeatureStoreError as error:
        print_error(error)
        return 2
    return 0


def run(keys: Keys) -> None:
    """Do what the arguments say."""
    check_extra()
    from featurestore import atomic
    from featurestore.console import Console
    from train.atlas import write
    from train.predictions import dataset

    if not keys.maps.slides:
        keys.maps.slides = "all"
    if Path(keys.output).exists():
        atomic.new_folder(Path(keys.output), lambda _: None)  # refuses before any work
    predicted = dataset(keys.predictions, keys.uri)
    slides = keys.slides or recorded_slides(keys.predictions)
    console = Console()
    atomic.new_folder(
        Path(keys.output), lambda folder: write(folder, predicted, slides, keys.maps, console)
    )
    console.print(f"written: {keys.output}", soft_wrap=True)


def recorded_slides(run: str) -> str:
    """Return the slides artifact that a run has recorded.

    Raises
    ------
    ConfigError
        It has none, or is not a run.
    """
    from featurestore import names, uris
    from train import config

    if not Path(run).exists():
        file = Path(uris.local_path(f"runs:/{names.run_of(run)}/config.yaml"))
        data = config.excerpt(file.read_text(), ["data"]).get("data", {}) if file.is_file() else {}
        slides: str | None = data.get("slides")
        if slides:
            return slides
    raise ConfigError(
        "No slides artifact says how large slides and tiles are",
        found=f"slides is not set, and {run} has recorded none",
        fix="set for example slides=slides.parquet",
    )


def check_extra() -> None:
    """Refuse to begin without the packages that maps need."""
    lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        raise ConfigError(
            f"Maps need {' and '.join(NEEDED)}", found=f"no {', no '.join(lacking)}",
            fix="pip install -e '.[maps]'",
        )  # fmt: skip


# -- from train/probe.py --------------------------------------------------------------------------


def ready(config: Config, keys: "pa.Table") -> None:
    """Refuse what cannot be mapped, before a run begins.

    Parameters
    ----------
    keys
        Tiles of the run, with ``slide_id`` and, where they are known, ``target`` and ``split``.

    Raises
    ------
    ConfigError
        A package, the slides artifact or a level is missing, or there is no such slide.
    ArtifactError
        Where maps would go there is something else.
    EmptyViewError
        The worst are asked for, and no tile has a label.
    """
    asked = config.maps.slides
    if not asked:
        return
    check_extra()
    import pyarrow as pa
    import pyarrow.compute as pc

    from featurestore import atomic
    from train.atlas import INDEX
    from train.slides import choose, read_slides

    if not config.data.slides:
        raise ConfigError(
            "No slides artifact says how large slides and tiles are",
            found=f"maps.slides={asked}, and data.slides is not set",
            fix="set for example data.slides=slides.parquet, or leave maps.slides out",
        )
    for name in FOLDERS:
        folder = Path(config.output or "") / name
        if config.output and folder.exists() and not (folder / INDEX).is_file():
            atomic.new_folder(folder, lambda _: None)  # refuses: it holds something else
    if "split" in keys.column_names:
        keys = keys.filter(pc.not_equal(keys["split"], "train"))
    slide = keys["slide_id"].cast(pa.string())
    known = keys["target" if "target" in keys.column_names else "slide_id"].is_valid()
    tiles = pa.table({"slide_id": slide, "labelled": known.cast(pa.int64())})
    by_slide = tiles.group_by("slide_id").aggregate([("labelled", "sum"), ("labelled", "count")])
    found = by_slide.rename_columns(["slide_id", "labelled", "tiles"])
    chosen = choose(asked, found.append_column("right", found["labelled"]))
    several = asked.startswith("worst:")  # which, is not known yet
    read_slides(
        config.data.slides, config.maps.downsample,
        found["slide_id"].to_pylist() if several else chosen,
    )  # fmt: skip


def record(session: "Session", predicted: "pa.Table | ds.Dataset", name: str = "maps") -> None:
    """Write and record the maps of what a run has predicted, if it is to.

    Parameters
    ----------
    predicted
        Predictions of a split.
    name
        Of the folder, in the output and among the run's artifacts.
    """
    if not session.config.maps.slides:
        return
    import pyarrow as pa
    import pyarrow.dataset as ds

    from featurestore import atomic
    from train.atlas import write

    if isinstance(predicted, pa.Table):
        predicted = ds.dataset(predicted)
    folder, slides = session.folder / name, session.config.data.slides
    assert slides is not None  # see `ready`
    with tempfile.TemporaryDirectory(prefix=".building-", dir=session.folder) as scratch:
        new = Path(scratch) / name
        new.mkdir()
        write(new, predicted, slides, session.config.maps, session.console)
        if folder.exists():  # of an earlier run with the same output, like its other files
            shutil.rmtree(folder)
        atomic.publish(new, folder)
    for file in sorted(folder.iterdir()):
        session.tracker.file(file, name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
