"""The formats that are read, by the names of the tools that write them.

What a command line says of them is here; what reads one is imported when it is read.
"""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featurestore.importing.slide import Format


@dataclass(frozen=True)
class FormatInfo:
    """What the command line says of a format.

    Parameters
    ----------
    source
        What the argument SOURCE names.
    takes
        The options that mean something to it, see `featurestore.importing.slide.Request`.
    """

    source: str
    takes: tuple[str, ...] = ()


PIXELS = ("level", "downsample", "mpp")
"""The options that say of which pixels x and y are."""
FORMATS = {
    "trident": FormatInfo("TRIDENT's features_ENCODER/*.h5", PIXELS),
    "clam": FormatInfo("CLAM's h5_files/ or pt_files/", ("coordinates", *PIXELS)),
    "stamp": FormatInfo("STAMP's *.h5", ("level", "mpp")),
    "slide2vec": FormatInfo("slide2vec's output folder", ("coordinates",)),
    "eva": FormatInfo(
        "eva's folder with manifest.csv",
        ("coordinates", "save_every", "columns", "level", "downsample", "mpp"),
    ),
    "lance": FormatInfo("a table NAME.lance", ("columns", *PIXELS)),
    "arrow": FormatInfo(
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
