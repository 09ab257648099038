"""What cannot be mapped is refused before a run begins."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from train.config.schema import Config, ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

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


def check_maps(config: Config, slides: "pa.Table") -> None:
    """Refuse what cannot be mapped, before a run begins.

    Parameters
    ----------
    slides
        ``slide_id, tiles, labelled`` of the slides of the run.

    Raises
    ------
    ConfigError
        A package, the slides artifact or a level is missing, or there is no such slide.
    ArtifactError
        Where maps would go there is something else.
    EmptyViewError
        The worst are asked for, and no tile has a label.
    """
    selection = config.maps.slides
    if not selection:
        return
    check_extra()
    from featurestore.io import atomic
    from train.overlays.slides import choose, read_slides, slides_artifact
    from train.overlays.write import INDEX

    if not config.data.slides:
        raise ConfigError(
            "No slides artifact says how large slides and tiles are",
            found=f"maps.slides={selection}, and data.slides is not set",
            fix="set for example data.slides=slides.parquet, or leave maps.slides out",
        )
    for name in FOLDERS:
        folder = Path(config.output or "") / name
        if config.output and folder.exists() and not (folder / INDEX).is_file():
            atomic.new_folder(folder, lambda _: None)  # refuses: it holds something else
    selected = choose(selection, slides.append_column("right", slides["labelled"]))
    if selection.startswith("worst:"):  # which, is not known yet
        selected = slides["slide_id"].to_pylist()
    artifact = slides_artifact(config.data.slides, config.data.slide_id_strip or "")
    read_slides(artifact, config.maps.downsample, selected)
