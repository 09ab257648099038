"""The writer of predictions: a file a slide, whole or not there."""

import json
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.contract import violation
from featurestore.embeddings.invalid import InvalidEmbeddings
from featurestore.io import atomic
from featurestore.views.folds import KEY
from train.inference.cohort import OWN, Places, PredictionSet
from train.predictions.partitions import MANIFEST, UNFINISHED, file_name, put, whole_rows


def begin(folder: Path, cohort: PredictionSet) -> list[int]:
    """Make a folder ready; return the numbers of the slides that are whole in it."""
    content = cohort.manifest | {"model": cohort.model}
    atomic.write_bytes(folder / MANIFEST, json.dumps(content, indent=1).encode())
    for left in folder.glob(f"*{UNFINISHED}"):  # by a writer that was killed
        left.unlink()
    tiles, names = np.diff(cohort.starts), cohort.manifest["class_indices"] or {}
    wanted = {"slide_id", "x", "y", "target", "pred", *(f"prob_{name}" for name in names)}
    with ThreadPoolExecutor() as pool:
        rows_on_disk = pool.map(lambda name: whole_rows(folder, name, wanted), cohort.slides)
        return [n for n, rows in enumerate(rows_on_disk) if rows == tiles[n]]


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
    """

    def __init__(self, folder: Path, cohort: PredictionSet, classes: Sequence[str]) -> None:
        self.folder, self.cohort, self.classes = folder, cohort, classes
        self.shares = np.empty((len(cohort.keys), len(classes)), dtype=np.float32)
        self.seen = np.zeros(len(cohort.keys), dtype=bool)
        self.left = np.diff(cohort.starts)  # tiles that a slide lacks
        self._lock = threading.Lock()
        # The disk takes milliseconds for a file, and hardly more for several at once.
        self._disk = ThreadPoolExecutor(atomic.SYNCS)
        self._written: list[Future[None]] = []

    def add(self, places: Places, shares: npt.NDArray[np.float32]) -> None:
        """Take the probabilities of some tiles, shape (tiles, K); any thread may."""
        self.shares[places], self.seen[places] = shares, True
        slides, tiles = np.unique(self.cohort.slide[places], return_counts=True)
        with self._lock:
            self.left[slides] -= tiles
            done = slides[self.left[slides] == 0]
        for slide in done:
            self._write(slide)

    def _write(self, slide: int) -> None:
        first, last = self.cohort.starts[slide : slide + 2]
        shares = self.shares[first:last]
        keys = self.cohort.keys.slice(first, last - first)
        table = keys.select([*KEY, "target"])
        table = table.append_column("pred", pa.array(shares.argmax(axis=1)))
        for index, name in enumerate(self.classes):
            table = table.append_column(f"prob_{name}", pa.array(shares[:, index].copy()))
        for name in (name for name in keys.column_names if name not in OWN):
            table = table.append_column(name, keys[name])
        sink = pa.BufferOutputStream()
        # A dictionary of shares would cost and not pay.
        pq.write_table(table, sink, use_dictionary=["slide_id"], write_page_checksum=True)
        file = self.folder / file_name(self.cohort.slides[slide])
        with self._lock:
            self._written.append(self._disk.submit(put, file, sink.getvalue()))

    def begun(self) -> tuple[Places, npt.NDArray[np.float32]]:
        """Return the tiles of slides of which others are elsewhere: places and probabilities."""
        places = np.flatnonzero(self.seen & (self.left > 0)[self.cohort.slide])
        return places, self.shares[places]

    def join(
        self, others: Iterable[tuple[Places, npt.NDArray[np.float32]]], rank: int, world: int
    ) -> None:
        """Add what the processes have begun, and write the slides that fall to this one."""
        for places, shares in others:
            mine = (self.cohort.slide[places] % world == rank) & ~self.seen[places]
            self.add(places[mine], shares[mine])

    def finish(self) -> None:
        """Wait until all slides are on the disk.

        Raises
        ------
        ArtifactError
            One cannot be written.
        """
        for written in self._written:
            written.result()

    def close(self) -> None:
        """Let go of the threads, once they have written what they were given."""
        self._disk.shutdown()


def raise_invalid(
    cohort: PredictionSet, places: Places, faults: Iterable[InvalidEmbeddings]
) -> None:
    """Refuse embeddings that no prediction was made of.

    Parameters
    ----------
    places
        Of the rows that the faults name.

    Raises
    ------
    EmbeddingError
        There are such, with how many and the first key.
    """
    invalid = InvalidEmbeddings(cohort.dim, "float32")
    for part in faults:
        asked = [row for row in part.rows if places[row] >= 0]
        invalid.lengths.update(
            (int(places[r]), part.lengths[r]) for r in asked if r in part.lengths
        )
        invalid.values.extend(int(places[r]) for r in asked if r not in part.lengths)
    violation.raise_first(invalid.violations(cohort.keys))
