"""Slides: what maps must know of them, how well each was predicted, and which are asked for."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from featurestore.backend import engine, errors
from featurestore.contract.schemas import checked_table
from featurestore.errors import EmptyViewError, SchemaError
from featurestore.io.parquet import Dataset
from featurestore.io.sources import united
from featurestore.spec.typed import nearest
from train.config.schema import ConfigError
from train.overlays.label_map import NONE, SlidePredictions
from train.predictions import partitions

COLUMNS = (
    "id", "extent_x", "extent_y", "tile_extent_x", "tile_extent_y", "mpp_x", "mpp_y", "level",
)  # fmt: skip
SHARE = "prob_"


@dataclass(frozen=True)
class Slide:
    """The geometry of a slide, in pixels of the level that its tiles were cut from.

    Parameters
    ----------
    name
        Its ``slide_id``.
    extent, tile
        Width and height: of the slide, and of each tile.
    mpp
        Micrometres of a pixel, across and down.
    downsample
        Pixels of full resolution in one of the level.
    """

    name: str
    extent: tuple[int, int]
    tile: tuple[int, int]
    mpp: tuple[float, float]
    downsample: float


def slides_artifact(uri: str | list[str], strip: str = "") -> Dataset:
    """Return the slides artifact, its names without the suffix that predictions are without.

    Parameters
    ----------
    strip
        ``data.slide_id_strip``.
    """
    return united(uri).stripped("id", strip)


def read_slides(
    artifact: Dataset, downsample: float | None, wanted: Collection[str] | None = None
) -> dict[str, Slide]:
    """Return slides by name.

    Parameters
    ----------
    artifact
        ``slides.parquet``, or several.
    downsample
        Of slides whose level is not 0, unless a column ``downsample`` says it.
    wanted
        Only those.

    Raises
    ------
    SchemaError
        A column or a wanted slide is missing, a value is missing or not positive.
    ConfigError
        The level of a slide is not 0, and nothing says how its pixels lie in full resolution.
    """
    uri, rows = artifact.uri, checked_table(engine.connect(), artifact, "slides")
    with errors.translated():
        table = rows.to_pyarrow()
    lacking = [name for name in COLUMNS if name not in table.column_names]
    if lacking:
        raise SchemaError(
            f"Slides lack {', '.join(lacking)}: no map can be laid over them",
            found=f"columns {', '.join(table.column_names)} in {uri}",
            fix="write them for each slide, as the README's table of artifacts says; `featurestore "
            "import --mpp 0.25` does where the tool's files do not say it",
        )
    names = table["id"].cast(pa.string()).to_pylist()
    if wanted is not None and (unknown := sorted(set(wanted) - set(names))):
        raise SchemaError(
            f"{len(unknown):,} of {len(wanted):,} slides are not among the slides of {uri}",
            found=f"{', '.join(unknown[:3])}{nearest(unknown[0], [n for n in names if n])}",
            fix="name the slides artifact of these tiles",
        )
    rows = table.select([n for n in (*COLUMNS, "downsample") if n in table.column_names])
    return {
        name: _slide(name, row, downsample)
        for name, row in zip(names, rows.to_pylist(), strict=True)
        if wanted is None or name in wanted
    }


def _slide(name: str, row: dict[str, Any], downsample: float | None) -> Slide:
    for column in COLUMNS[1:-1]:
        if not (row[column] or 0) > 0:
            raise SchemaError(
                f"Slide {name} has no {column}", found=f"{row[column]}",
                fix="write how large the slide, its tiles and its pixels are",
            )  # fmt: skip
    factor = row.get("downsample") or (downsample if row["level"] else 1.0)
    if factor is None:
        raise ConfigError(
            f"The tiles of slide {name} were not cut from its full resolution",
            found=f"level {row['level']}, and nothing says how many pixels one of it covers",
            fix="set for example maps.downsample=4, or write a column downsample of the slides",
        )
    return Slide(
        name=name,
        extent=(int(row["extent_x"]), int(row["extent_y"])),
        tile=(int(row["tile_extent_x"]), int(row["tile_extent_y"])),
        mpp=(float(row["mpp_x"]), float(row["mpp_y"])),
        downsample=float(factor),
    )


def scores(predicted: ds.Dataset) -> pa.Table:
    """Return ``slide_id, tiles, labelled, right``, read in pieces."""
    parts = []
    for batch in predicted.to_batches(columns=["slide_id", "target", "pred"]):
        target = batch["target"].cast(pa.int64())
        one = pa.table({
            "slide_id": batch["slide_id"].cast(pa.string()),
            "tiles": np.ones(len(batch), dtype=np.int64),
            "labelled": target.is_valid().cast(pa.int64()),
            "right": pc.equal(target, batch["pred"].cast(pa.int64())).cast(pa.int64()),
        })  # fmt: skip
        parts.append(_summed(one))
    if not parts or not sum(map(len, parts)):
        raise EmptyViewError(
            "There are no predictions", found="0 tiles", fix="name a run that predicted some"
        )
    return _summed(pa.concat_tables(parts)).sort_by("slide_id")


def _summed(table: pa.Table) -> pa.Table:
    added = ("tiles", "labelled", "right")
    summed = table.group_by("slide_id").aggregate([(name, "sum") for name in added])
    return summed.rename_columns({f"{name}_sum": name for name in added})


def choose(asked: str, counts: pa.Table) -> list[str]:
    """Return the slides that are asked for.

    Parameters
    ----------
    asked
        ``worst:20`` (the lowest accuracy first; of equals, the one with more tiles), ``all``, or
        names with commas between.
    counts
        See `scores`.

    Raises
    ------
    ConfigError
        It is none of these, or names a slide that has no predictions.
    EmptyViewError
        The worst are asked for, and no tile has a label.
    """
    names = counts["slide_id"].to_pylist()
    number = worst(asked)
    if asked == "all":
        return names
    if number is None:
        listed = names_of(asked, names)
        for name in listed:
            if name not in names:
                raise ConfigError(
                    f"There is no slide {name!r} among the predictions",
                    found=f"{len(names):,} slides{nearest(name, names)}",
                    fix="set maps.slides to worst:20, all, or names with commas between",
                )
        return listed
    tiles, labelled, right = (counts[n].to_numpy() for n in ("tiles", "labelled", "right"))
    labelled_rows = np.flatnonzero(labelled)
    if not len(labelled_rows):
        raise EmptyViewError(
            "Without labels no slide can be the worst",
            found=f"{len(names):,} slides, no tile of which has a label",
            fix="set maps.slides=all, or names with commas between",
        )
    order = np.lexsort((-tiles[labelled_rows], right[labelled_rows] / labelled[labelled_rows]))
    return [names[row] for row in labelled_rows[order[:number]]]


def names_of(asked: str, names: Collection[str]) -> list[str]:
    """Return the names in a list; one that holds a comma itself is understood where it is alone."""
    return [asked] if asked in names else [name.strip() for name in asked.split(",")]


def worst(asked: str) -> int | None:
    """Return how many of the worst are asked for; None if it is not that.

    Raises
    ------
    ConfigError
        Not a number, or less than one.
    """
    kind, colon, number = asked.partition(":")
    if kind != "worst":
        return None
    if not colon or not number.isdecimal() or int(number) < 1:
        raise ConfigError(
            "maps.slides does not say how many of the worst",
            found=f"maps.slides={asked}",
            fix="set for example maps.slides=worst:20",
        )
    return int(number)


def classes_of(predicted: ds.Dataset) -> list[str]:
    """Return the classes, by index.

    Raises
    ------
    SchemaError
        They are no predictions.
    """
    names = predicted.schema.names
    classes = [name.removeprefix(SHARE) for name in names if name.startswith(SHARE)]
    lacking = [n for n in ("slide_id", "x", "y", "target", "pred") if n not in names]
    if lacking or not classes:
        raise SchemaError(
            f"Predictions lack {', '.join(lacking) or 'probabilities'}",
            found=f"columns {', '.join(names[:12])}",
            fix="name a run of train/probe.py, or a file that it has written",
        )
    return classes


def read_tiles(predicted: ds.Dataset, slide: Slide, classes: list[str]) -> SlidePredictions:
    """Return the tiles of one slide.

    Raises
    ------
    SchemaError
        A tile begins outside the slide.
    """
    columns = ["x", "y", "target", "pred", *(SHARE + name for name in classes)]
    near = partitions.of_slide(predicted, slide.name)
    table = near.to_table(columns=columns, filter=ds.field("slide_id") == slide.name)
    x, y = (table[name].to_numpy().astype(np.int64) for name in ("x", "y"))
    astray = (x < 0) | (y < 0) | (x >= slide.extent[0]) | (y >= slide.extent[1])
    if astray.any():
        first = int(np.argmax(astray))
        raise SchemaError(
            f"{int(astray.sum()):,} tiles of slide {slide.name} begin outside it",
            found=f"a tile at {x[first]}, {y[first]}; an extent of {slide.extent}",
            fix="name the slides artifact of these tiles: extents are pixels of their level",
        )
    shares = [table[SHARE + name].to_numpy() for name in classes]
    return SlidePredictions(
        x, y, *slide.tile,
        target=table["target"].cast(pa.int64()).fill_null(NONE).to_numpy(),
        pred=table["pred"].to_numpy().astype(np.int64),
        probabilities=np.stack(shares, axis=1).astype(np.float32),
    )  # fmt: skip
