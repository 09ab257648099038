"""The writer of predictions: a file a slide, whole or not there.

Embeddings lie in any order, so a slide's tiles come from several row groups, and from several
processes. Those of slides that are not whole wait in memory, and beyond a limit on the disk, where
the processes find each other's at the end.
"""

import json
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from featurestore.errors import os_errors_refused
from featurestore.io import atomic
from featurestore.views.folds import KEY
from train.inference.cohort import Counts, PredictionSet
from train.inference.work import ELSEWHERE
from train.predictions.partitions import MANIFEST, UNFINISHED, file_name, put, whole_rows

WAITING = 2**20  # predictions that wait in the memory of a process: some 100 MB
STRETCHES = 64  # into which what waits on the disk is divided, to be read one after the other
SLIDE = ds.field("slide_id")
OWN = (*KEY, "target", "row")  # of tiles; others are for people


def begin(folder: Path, cohort: PredictionSet) -> list[int]:
    """Make a folder ready; return the numbers of the slides that are whole in it."""
    content = cohort.manifest | {"model": cohort.model}
    atomic.write_bytes(folder / MANIFEST, json.dumps(content, indent=1).encode())
    tidy(folder)
    names = cohort.manifest["class_indices"] or {}
    wanted = {
        "slide_id",
        "x",
        "y",
        "target",
        "pred",
        "predicted",
        *(f"prob_{name}" for name in names),
    }
    with ThreadPoolExecutor() as pool:
        rows_on_disk = pool.map(lambda name: whole_rows(folder, name, wanted), cohort.names)
        return [n for n, rows in enumerate(rows_on_disk) if rows == cohort.counts[n]]


def tidy(folder: Path) -> None:
    """Remove what waited there, for this writer or for one that was killed."""
    for left in folder.glob(f"*{UNFINISHED}"):
        left.unlink()


class PredictionWriter:
    """Predictions as they come: a slide is written when its last tile is added.

    Parameters
    ----------
    folder
        Where they go.
    cohort
        What is predicted.
    classes
        Names, by index.
    rank
        Which process this is.
    """

    def __init__(
        self, folder: Path, cohort: PredictionSet, classes: Sequence[str], rank: int = 0
    ) -> None:
        self.folder, self.cohort, self.classes, self.rank = folder, cohort, classes, rank
        self.left = cohort.counts.copy()  # tiles that a slide lacks
        self.on_disk = np.zeros(len(self.left), dtype=np.int64)  # tiles that wait there
        self.files: list[str] = []
        self._waiting: list[pa.Table] = []
        self._rows = self._ready = 0  # that wait in memory; of whole slides
        self._lock = threading.Lock()
        # The disk takes milliseconds for a file, and hardly more for several at once.
        self._disk = ThreadPoolExecutor(atomic.SYNCS)
        self._written: list[Future[None]] = []

    def add(self, tiles: pa.Table, probabilities: npt.NDArray[np.float32]) -> None:
        """Take predictions of some tiles; any thread may.

        Parameters
        ----------
        tiles
            As `train.inference.work.write_tiles` has written them.
        probabilities
            Shape (tiles, K).
        """
        slides, counts = np.unique(tiles["slide_id"].to_numpy(), return_counts=True)
        table = self._table(tiles, probabilities)
        with self._lock:
            self._waiting.append(table)
            self._rows += len(table)
            self.left[slides] -= counts
            self._ready += self.cohort.counts[slides[self._is_whole(slides)]].sum()
            complete = table.slice(0, 0)
            # To part whole slides from the rest costs as much as all that waits.
            if 2 * self._ready >= self._rows or self._rows > WAITING:
                complete = self._take_whole()
            if 2 * self._rows > WAITING:
                self._spill()
        self._write_slides(complete)

    def _table(self, tiles: pa.Table, probabilities: npt.NDArray[np.float32]) -> pa.Table:
        table = tiles.select([*KEY, "target"])
        table = table.append_column("pred", pa.array(probabilities.argmax(axis=1)))
        for index, name in enumerate(self.classes):
            table = table.append_column(f"prob_{name}", pa.array(probabilities[:, index].copy()))
        for name in (name for name in tiles.column_names if name not in OWN):
            table = table.append_column(name, tiles[name])
        return table

    def _is_whole(self, slides: Counts) -> npt.NDArray[np.bool_]:
        """Return which of some slides are in memory with all their tiles."""
        return (self.left[slides] == 0) & (self.on_disk[slides] == 0)

    def _take_whole(self) -> pa.Table:
        """Return what waits of whole slides, which waits no more."""
        table = pa.concat_tables(self._waiting)
        complete = self._is_whole(table["slide_id"].to_numpy())
        self._waiting = [table.filter(pa.array(~complete))]
        self._rows, self._ready = len(self._waiting[0]), 0
        return table.filter(pa.array(complete))

    def _spill(self) -> None:
        """Have all that waits in memory wait on the disk, sorted by slide."""
        table = pa.concat_tables(self._waiting).sort_by("slide_id")
        name = f"_{self.rank}-{len(self.files)}{UNFINISHED}"
        with os_errors_refused(f"{self.folder / name} could not be written", "make room"):
            pq.write_table(table, self.folder / name, row_group_size=WAITING // STRETCHES)
        self.files.append(name)
        self.on_disk += np.bincount(table["slide_id"].to_numpy(), minlength=len(self.on_disk))
        self._waiting, self._rows, self._ready = [], 0, 0

    def leave(self) -> list[str]:
        """Write the slides that are whole, and leave the rest where all processes find it.

        Returns
        -------
        list of str
            The names of files.
        """
        if self._rows:
            self._write_slides(self._take_whole())
        if self._rows:
            self._spill()
        return self.files

    def join(self, files: Sequence[str], on_disk: Counts, world: int) -> None:
        """Write the slides that fall to this process of those that waited on the disk.

        Parameters
        ----------
        files
            What all processes have left.
        on_disk
            Tiles of each slide in them.
        world
            How many processes there are.

        Raises
        ------
        ArtifactError
            A slide cannot be written, or not all is there that was left.
        """
        waiting = [str(self.folder / name) for name in files]
        for slides in stretches(self.cohort.counts, on_disk, world)[self.rank :: world]:
            # Python's numbers: those of NumPy before 2.3 ask a field for its truth value.
            first, last = int(slides[0]), int(slides[-1])
            within = (first <= SLIDE) & (last >= SLIDE)
            with os_errors_refused(f"Not all that was predicted is in {self.folder}", ELSEWHERE):
                table = ds.dataset(waiting, format="parquet").to_table(filter=within)
            of_stretch = np.isin(table["slide_id"].to_numpy(), slides)
            self._write_slides(table.filter(pa.array(of_stretch)))
        for written in self._written:
            written.result()

    def _write_slides(self, table: pa.Table) -> None:
        """Write whole slides."""
        table = table.sort_by([(name, "ascending") for name in KEY])
        slide = table["slide_id"].to_numpy()
        edges = np.flatnonzero(np.diff(slide, prepend=-1, append=-1))
        for first, last in pairwise(edges.tolist()):
            self._write(int(slide[first]), table.slice(first, last - first))

    def _write(self, slide: int, table: pa.Table) -> None:
        table, name = self.cohort.named(table), self.cohort.names[slide]
        place = table.column_names.index("pred")
        of_class = pa.array(self.classes, pa.string()).take(table["pred"].combine_chunks())
        table = table.add_column(place + 1, "predicted", of_class)
        sink = pa.BufferOutputStream()
        # A dictionary of shares would cost and not pay.
        named = ["slide_id", "predicted"]
        pq.write_table(table.combine_chunks(), sink, use_dictionary=named, write_page_checksum=True)
        file = self.folder / file_name(name)
        with self._lock:
            self._written.append(self._disk.submit(put, file, sink.getvalue()))

    def close(self) -> None:
        """Let go of the threads, once they have written what they were given."""
        self._disk.shutdown()


def stretches(tiles: Counts, on_disk: Counts, world: int) -> list[Counts]:
    """Divide the slides that are whole on the disk into stretches of like size.

    Parameters
    ----------
    tiles
        Of each slide.
    on_disk
        Those of them that wait on the disk.
    world
        How many processes share them.

    Returns
    -------
    list of ndarray of int64
        Numbers of slides, ascending.
    """
    slides = np.flatnonzero((on_disk > 0) & (on_disk == tiles))
    if not len(slides):
        return []
    rows = tiles[slides].cumsum()
    size = min(-(-rows[-1] // world), max(WAITING, rows[-1] // STRETCHES))
    edges = np.flatnonzero(np.diff((rows - 1) // size)) + 1
    return np.split(slides, edges)
