"""Overlays of a run: refused early, drawn and recorded."""

import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from train.config.schema import Config, ConfigError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

    from train.runtime.run import Run

NEEDED = ("shapely", "tifffile")


FOLDERS = ("maps", "oof_maps")


def check_extra() -> None:
    """Refuse to begin without the packages that maps need."""
    lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        raise ConfigError(
            f"Maps need {' and '.join(NEEDED)}", found=f"no {', no '.join(lacking)}",
            fix="pip install -e '.[maps]'",
        )  # fmt: skip


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

    from featurestore.io import atomic
    from train.overlays.slides import choose, read_slides
    from train.overlays.write import INDEX

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


def record(session: "Run", predicted: "pa.Table | ds.Dataset", name: str = "maps") -> None:
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

    from featurestore.io import atomic
    from train.overlays.write import write

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
