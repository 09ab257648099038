"""Of which level x and y are, and what a slide's row of ``slides.parquet`` says."""

from dataclasses import dataclass
from typing import Any

from featurestore.errors import ConfigError, SchemaError
from featurestore.importing.slide import Geometry, Request, Slide

SAY_LEVEL = "say it by --level 0 --downsample 1, or 4 where they are of a level a quarter as wide"


@dataclass(frozen=True)
class Placement:
    """How the coordinates of a slide become x and y.

    Parameters
    ----------
    scale
        Pixels in one unit of the coordinates.
    units
        Of what x and y are pixels, in words.
    row
        Columns of ``slides.parquet``.
    """

    scale: float
    units: str
    row: dict[str, Any]


def placement_of(slide: Slide, request: Request) -> Placement:
    """Return how the coordinates of a slide become x and y.

    Raises
    ------
    ConfigError
        They are to be converted, and what that takes is not known.
    """
    geometry = slide.geometry
    mpp = _mpp(slide, request)
    if geometry.micrometres is not None:
        placement = _of_micrometres(slide, request, mpp, geometry.micrometres)
    elif request.downsample is not None and (geometry.level != 0 or geometry.is_assumed):
        if request.level != 0:
            raise ConfigError(
                "--downsample says how to come to level 0, which nobody asked for",
                found=f"--downsample {request.downsample:g} without --level 0",
                fix="add --level 0, or leave --downsample out",
            )
        placement = Placement(request.downsample, "pixels of level 0", {"level": 0, "mpp": mpp})
    elif geometry.level is None and request.level == 0:
        raise ConfigError(
            f"{slide.files[0]} does not say of which level its x and y are",
            found="--level 0",
            fix="say how many pixels of level 0 are one of x and y: --downsample 1 if they are of "
            "level 0 already, 4 of a level a quarter as wide",
        )
    else:
        level = geometry.level
        units = f"of level {level}"
        if level is None:
            units = "as they are: it is not said of which level"
        elif geometry.is_assumed:
            units = f"taken for those of level {level}, which the files do not say; {SAY_LEVEL}"
        placement = Placement(1.0, f"pixels {units}", {"level": level, "mpp": mpp})
    return Placement(placement.scale, placement.units, _row(geometry, placement))


def _of_micrometres(
    slide: Slide, request: Request, mpp: float | None, micrometres: float
) -> Placement:
    geometry = slide.geometry
    if request.level == 0:
        if mpp is None:
            raise ConfigError(
                f"{slide.files[0]} has x and y in micrometres, and does not say how many are a "
                "pixel of level 0",
                found="--level 0 without --mpp",
                fix="add --mpp 0.25, or --mpp slides.csv with the columns id and mpp_x",
            )
        return Placement(micrometres / mpp, "pixels of level 0", {"level": 0, "mpp": mpp})
    if not geometry.tile or not geometry.tile_pixels:
        raise ConfigError(
            f"{slide.files[0]} has x and y in micrometres, and does not say how many are a pixel",
            found="no tile_size_px among its attributes",
            fix="convert to pixels of level 0: --level 0 --mpp 0.25",
        )
    tile_mpp = geometry.tile * micrometres / geometry.tile_pixels
    units = f"pixels of {tile_mpp:g} micrometres, as the tiles' own"
    return Placement(micrometres / tile_mpp, units, {"level": None, "mpp": tile_mpp})


def _row(geometry: Geometry, placement: Placement) -> dict[str, Any]:
    def pixels(length: float | None) -> int | None:
        return None if length is None else round(length * placement.scale)

    row = {"level": placement.row["level"], "magnification": geometry.magnification}
    width, height = geometry.extent or (None, None)
    lengths = {"extent": (width, height), "tile_extent": (geometry.tile,) * 2,
               "stride": (geometry.stride,) * 2}  # fmt: skip
    for name, values in lengths.items():
        row |= {f"{name}_{axis}": pixels(v) for axis, v in zip("xy", values, strict=True)}
    return row | {f"mpp_{axis}": placement.row["mpp"] for axis in "xy"}


def _mpp(slide: Slide, request: Request) -> float | None:
    if not isinstance(request.mpp, dict):
        return slide.geometry.mpp if request.mpp is None else request.mpp
    if slide.slide_id not in request.mpp:
        raise SchemaError(
            f"--mpp says nothing of slide {slide.slide_id}",
            found=f"{len(request.mpp):,} slides: {', '.join(list(request.mpp)[:3])}",
            fix="add its row",
        )
    return request.mpp[slide.slide_id]
