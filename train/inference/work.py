"""What each process predicts: neighbouring row groups, with the tiles that are asked for in each.

The main process writes the tiles to a file in the order of their embeddings, beside the
predictions. A process reads its own stretch of it while it reads the embeddings, so none holds a
table of tiles and none is sent one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from featurestore.backend import engine
from featurestore.embeddings.batches import RowGroup, row_groups
from featurestore.errors import os_errors_refused
from featurestore.views.joins import look_up
from train.inference.cohort import Counts, PredictionSet
from train.predictions.partitions import UNFINISHED

TILES = f"_tiles{UNFINISHED}"
ELSEWHERE = "name an output that all machines share"
AHEAD = 2  # batches of tiles that are read before they are asked for


@dataclass(frozen=True)
class Work:
    """Row groups that one process reads.

    Parameters
    ----------
    row_groups
        In order.
    tiles
        How many tiles are asked for in each, at least one.
    """

    row_groups: Sequence[RowGroup]
    tiles: Sequence[int]

    @property
    def rows(self) -> int:
        """How many embeddings are read."""
        return sum(row_group.rows for row_group in self.row_groups)


def divided(cohort: PredictionSet, folder: Path, complete: Sequence[int], world: int) -> list[Work]:
    """Return the work of each of several processes, of like size; write the tiles that it is of.

    Row groups that hold no tile that is asked for are nobody's.

    Parameters
    ----------
    complete
        Numbers of slides that are not predicted again.
    """
    write_tiles(cohort, folder / TILES, complete)
    groups = row_groups(cohort.fragments)
    counts = tiles_within(folder / TILES, groups)
    asked = np.flatnonzero(counts)
    rows = np.array([groups[number].rows for number in asked])
    middle = rows.cumsum() - rows / 2
    owner = middle * world // max(rows.sum(), 1)
    return [
        Work([groups[number] for number in numbers], counts[numbers].tolist())
        for numbers in (asked[owner == rank] for rank in range(world))
    ]


def write_tiles(cohort: PredictionSet, file: Path, complete: Sequence[int]) -> None:
    """Write the tiles of the slides that are not complete, in the order of their embeddings.

    Their ``slide_id`` is the slide's number.
    """
    assert cohort.tiles is not None
    number = np.setdiff1d(np.arange(len(cohort.names)), complete)
    slides = cohort.slides.select(["slide_id"]).take(pa.array(number))
    slides = slides.append_column("number", pa.array(number.astype(np.int32)))
    numbers = engine.register(cohort.tiles.get_backend(), "asked_slides", slides)
    tiles = look_up(cohort.tiles, numbers, ["slide_id"], "number")
    tiles = tiles.filter(tiles.number.notnull())
    others = [name for name in cohort.tiles.columns if name != "slide_id"]
    tiles = tiles.select(tiles.number.name("slide_id"), *others)
    engine.write_parquet(tiles.order_by("row"), file)


def tiles_within(file: Path, groups: Sequence[RowGroup]) -> Counts:
    """Count the tiles of a file, which are sorted by row, in each row group."""
    starts = np.array([group.start for group in groups])
    counts = np.zeros(len(groups), dtype=np.int64)
    with pq.ParquetFile(file) as tiles:
        for batch in tiles.iter_batches(columns=["row"]):
            number = np.searchsorted(starts, batch["row"].to_numpy(), side="right") - 1
            if len(number):
                counts[number[0] : number[-1] + 1] += np.bincount(number - number[0])
    return counts


def read_tiles(file: Path, work: Work) -> Iterator[tuple[RowGroup, pa.Table]]:
    """Yield row groups with the tiles that are asked for in each, read in a stream."""
    if not work.row_groups:
        return
    first, last = work.row_groups[0], work.row_groups[-1]
    row = ds.field("row")
    within = (row >= first.start) & (row < last.start + last.rows)
    with os_errors_refused(f"The tiles to predict are not in {file.parent}", ELSEWHERE):
        tiles = ds.dataset(str(file), format="parquet")
    batches = tiles.to_batches(filter=within, batch_readahead=AHEAD)
    left = tiles.schema.empty_table()
    for row_group, number in zip(work.row_groups, work.tiles, strict=True):
        while len(left) < number:
            left = pa.concat_tables([left, pa.Table.from_batches([next(batches)])])
        yield row_group, left.slice(0, number)
        left = left.slice(number)
