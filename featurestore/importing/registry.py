"""The formats that are read, by the names of the tools that write them.

What a command line says of them is here; what reads one is imported when it is read.
"""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featurestore.importing.slide import Format


@dataclass(frozen=True)
class Reading:
    """What a format is.

    Parameters
    ----------
    source
        What the source is.
    takes
        The options that mean something to it, see `featurestore.importing.slide.Request`.
    """

    source: str
    takes: tuple[str, ...] = ()


PIXELS = ("level", "downsample", "mpp")
"""The options that say what x and y are."""
FORMATS = {
    "trident": Reading("TRIDENT's features_ENCODER/*.h5", PIXELS),
    "clam": Reading("CLAM's h5_files/ or pt_files/", ("coordinates", *PIXELS)),
    "stamp": Reading("STAMP's *.h5", ("level", "mpp")),
    "slide2vec": Reading("slide2vec's output folder", ("coordinates",)),
    "eva": Reading(
        "eva's folder with manifest.csv",
        ("coordinates", "save_every", "columns", "level", "downsample", "mpp"),
    ),
    "lance": Reading("a table NAME.lance", ("columns", *PIXELS)),
    "arrow": Reading(
        "Parquet, Arrow, or a data set of Hugging Face",
        ("columns", *PIXELS),
    ),
}
"""Each is read by the module of its name in `featurestore.importing.formats`."""


def reader(name: str) -> "Format":
    """Return what finds the slides of a source, by the name of its format."""
    module = importlib.import_module(f"featurestore.importing.formats.{name}")
    slides: Format = module.slides
    return slides
