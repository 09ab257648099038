"""The formats that are read, by the names of the tools that write them."""

from dataclasses import dataclass

from featurestore.importing.formats import arrow, clam, eva, lance, slide2vec, stamp, trident
from featurestore.importing.slide import Format


@dataclass(frozen=True)
class Reading:
    """How a format is read.

    Parameters
    ----------
    slides
        Return the slides of a source.
    source
        What the source is.
    takes
        The options that mean something to it, see `featurestore.importing.slide.Request`.
    """

    slides: Format
    source: str
    takes: tuple[str, ...] = ()


PIXELS = ("level", "downsample", "mpp")
"""The options that say what x and y are."""
FORMATS = {
    "trident": Reading(trident.slides, "TRIDENT's features_ENCODER/*.h5", PIXELS),
    "clam": Reading(clam.slides, "CLAM's h5_files/ or pt_files/", ("coordinates", *PIXELS)),
    "stamp": Reading(stamp.slides, "STAMP's *.h5", ("level", "mpp")),
    "slide2vec": Reading(slide2vec.slides, "slide2vec's output folder", ("coordinates",)),
    "eva": Reading(
        eva.slides,
        "eva's folder with manifest.csv",
        ("coordinates", "save_every", "columns", "level", "downsample", "mpp"),
    ),
    "lance": Reading(lance.slides, "a table NAME.lance", ("columns", *PIXELS)),
    "arrow": Reading(
        arrow.slides,
        "Parquet, Arrow, or a data set of Hugging Face",
        ("columns", *PIXELS),
    ),
}
