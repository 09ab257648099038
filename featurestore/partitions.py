"""Predictions in a file a slide: which rows make a slide up, and how it gets whole onto disk.

A tile's place is its row in the keys, which are sorted: a slide is a range of places, and the file
of a slide is complete as soon as all of them have been added, in whatever order the embeddings lie.
See docs/decisions/015-partitions.md.
"""

import hashlib
import json
import re
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from featurestore import atomic, backend, columns, contract, digests
from featurestore.batches import Piece, pieces, read_keys
from featurestore.errors import ArtifactError, EmptyViewError
from featurestore.folds import KEY
from featurestore.joins import look_up
from featurestore.matrix import Faults
from featurestore.store import FeatureStore

FOLDER = "predictions"
MANIFEST = "_manifest.json"  # readers of such folders pass over names that begin so
UNFINISHED = ".unfinished"
FORMAT = 2  # of the folder; 1 were folders of Hive, see `NAMES`
RULES = ("class_indices", "thresholds", "label_rule")
"""What decides a target."""
OWN = (*KEY, "target", "row")  # of keys; others are for people
NAMES = ds.HivePartitioning(pa.schema([("slide_id", pa.string())]), null_fallback="/")
"""What names meant in `slide_id=NAME/tiles.parquet`: text, none of them a number or missing."""
READABLE = 32  # characters of a name in that of its file

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cohort:
    """Tiles to predict, and the row groups that hold their embeddings.

    Parameters
    ----------
    keys
        ``slide_id, x, y, target, row``, sorted by key; ``row`` is that among all embeddings.
    pieces
        Row groups, in order.
    dim
        Length of an embedding.
    manifest
        What determines the predictions.
    embeddings
        The files of the embeddings by name.
    model
        The name of what predicts, for people.
    """

    keys: pa.Table
    pieces: list[Piece]
    dim: int
    manifest: dict[str, Any]
    embeddings: Mapping[str, Path]
    model: str | None = None

    @cached_property
    def _coded(self) -> pa.DictionaryArray:
        return self.keys["slide_id"].combine_chunks().dictionary_encode()

    @cached_property
    def slides(self) -> list[str]:
        """Names, in order: a slide's number is its place here."""
        return self._coded.dictionary.to_pylist()

    @cached_property
    def slide(self) -> npt.NDArray[np.int32]:
        """The slide's number of each place."""
        return self._coded.indices.to_numpy()

    @cached_property
    def starts(self) -> Places:
        """The first place of each slide, and the number of all."""
        return np.searchsorted(self.slide, np.arange(len(self.slides) + 1))

    def places(self, whole: Sequence[int]) -> Places:
        """Return the place of each row of the embeddings, -1 where nobody asks for it.

        Parameters
        ----------
        whole
            Slides that need not be read.
        """
        place = np.full(sum(piece.rows for piece in self.pieces), -1)
        asked = np.flatnonzero(~np.isin(self.slide, whole))
        place[self.keys["row"].to_numpy()[asked]] = asked
        return place

    def share(self, places: Places, rank: int, world: int) -> list[Piece]:
        """Return the row groups that one of several processes reads: neighbours, of like size.

        Those that hold no row that is asked for are nobody's.
        """
        work = [p for p in self.pieces if (places[p.start : p.start + p.rows] >= 0).any()]
        rows = np.array([piece.rows for piece in work])
        middle = rows.cumsum() - rows / 2
        owner = middle * world // max(rows.sum(), 1)
        return [piece for piece, own in zip(work, owner, strict=True) if own == rank]


def cohort(store: FeatureStore, checkpoint: str, more: Sequence[str] = ()) -> Cohort:
    """Return every tile to predict that has an embedding; no embedding is read.

    Parameters
    ----------
    checkpoint
        The digest of what predicts.
    more
        Further columns of tiles or slides that predictions carry.

    Raises
    ------
    EmptyViewError
        There is none.
    ArtifactError
        The artifacts were changed since the store first read them.
    """
    dataset = store.dataset("test_embeddings")
    dim = contract.dimension(store.view("test_embeddings"))
    known = read_keys(dataset.filled)
    known = known.append_column("row", pa.array(np.arange(len(known))))
    slides = store.view("slides") if store.spec.slides else None
    asked = columns.with_columns(store.predicted(), slides, more)
    keys = _joined(asked, backend.register(store.connection, "embedded", known), more)
    if not len(keys):
        raise EmptyViewError(
            "No tile has an embedding: the join is empty",
            found=f"{len(dataset.files)} embedding files, {len(known):,} rows",
            fix="check that both artifacts are of one cohort and spell their keys alike",
        )
    tiles = "predict_tiles" if store.spec.predict_tiles else "test_tiles"
    manifest = {
        "format": FORMAT,
        "checkpoint": checkpoint,
        "tiles": digests.digest(store.dataset(tiles).named, remember=False),
        "embeddings": digests.stamp(dataset.named),
        "columns": list(more),
        **{name: getattr(store.spec, name) for name in RULES},
    }
    store.confirm()
    manifest = json.loads(json.dumps(manifest, default=dict))
    return Cohort(keys, pieces(dataset.files), dim, manifest, dataset.named)


def _joined(tiles: ir.Table, known: ir.Table, more: Sequence[str]) -> pa.Table:
    both = look_up(tiles, known, KEY, "row")
    both = both.filter(both.row.notnull())
    chosen = both.select(*KEY, both.target.cast("int64").name("target"), "row", *more)
    with backend.translated():
        return chosen.order_by(list(KEY)).to_pyarrow()


# -- what is on disk ----------------------------------------------------------------------------


def digest(manifest: dict[str, Any]) -> str:
    """Return the SHA-256 of what determines some predictions."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def recorded(folder: Path) -> dict[str, Any] | None:
    """Return what determined the predictions in a folder; None if it is no such folder.

    Of a manifest that is damaged it is nothing: such predictions are nobody's, and are replaced.
    """
    file = folder / MANIFEST
    if not file.exists():
        return None
    try:
        return dict(json.loads(file.read_bytes()))
    except (ValueError, TypeError):
        return {}


def check_same(folder: Path, manifest: dict[str, Any]) -> None:
    """Refuse to go on with predictions of something else.

    Raises
    ------
    ArtifactError
        There are none, or something differs.
    """
    there = recorded(folder)
    if there is None:
        raise ArtifactError(
            "There is nothing to resume",
            found=f"no predictions in {folder}",
            fix="leave resume=true out, or give the arguments of the command that was killed",
        )
    unlike = [name for name in manifest if there.get(name) != manifest[name]]
    if unlike:
        raise ArtifactError(
            f"The predictions in {folder} were made of something else",
            found=f"another {', '.join(unlike)}",
            fix="leave resume out to replace them, or name another output",
        )


def check_replaceable(folder: Path) -> None:
    """Refuse to replace what are no predictions.

    Raises
    ------
    ArtifactError
        The folder is there and holds something else.
    """
    if folder.exists() and recorded(folder) is None and any(folder.iterdir()):
        raise ArtifactError(
            f"{folder} is there, and is no folder of predictions",
            found=", ".join(sorted(entry.name for entry in folder.iterdir())[:4]),
            fix="remove it, or name another output",
        )


def begin(folder: Path, cohort: Cohort) -> list[int]:
    """Make a folder ready; return the numbers of the slides that are whole in it."""
    content = cohort.manifest | {"model": cohort.model}
    atomic.write_bytes(folder / MANIFEST, json.dumps(content, indent=1).encode())
    for left in folder.glob(f"*{UNFINISHED}"):  # by a writer that was killed
        left.unlink()
    tiles, names = np.diff(cohort.starts), cohort.manifest["class_indices"] or {}
    wanted = {"slide_id", "x", "y", "target", "pred", *(f"prob_{name}" for name in names)}
    with ThreadPoolExecutor() as pool:
        there = pool.map(lambda name: whole_rows(folder, name, wanted), cohort.slides)
        return [n for n, found in enumerate(there) if found == tiles[n]]


def rows(folder: Path, slide: str) -> int | None:
    """Return the number of predictions of a slide; None if they are not there, or cut."""
    try:
        return pq.read_metadata(folder / file_name(slide)).num_rows
    except (OSError, pa.ArrowException):
        return None


def whole_rows(folder: Path, slide: str, columns: Collection[str]) -> int | None:
    """Return `rows` after reading every byte; None if one is not what was written.

    Parameters
    ----------
    columns
        Names that are there; they have no checksum.
    """
    file = folder / file_name(slide)
    try:
        table = pq.ParquetFile(file, page_checksum_verification=True).read()
    except (OSError, pa.ArrowException, ValueError):
        return None
    return len(table) if set(columns) <= set(table.column_names) else None


def check_sources(cohort: Cohort) -> None:
    """Refuse embeddings that were changed while they were read.

    Raises
    ------
    ArtifactError
        They were: nobody knows of which ones the predictions are.
    """
    there = all(file.exists() for file in cohort.embeddings.values())
    if not there or digests.stamp(cohort.embeddings) != cohort.manifest["embeddings"]:
        raise ArtifactError(
            "The embeddings were changed while they were read",
            found="another size, time or file than before",
            fix="run again without resume, once nobody writes there",
        )


def read(folder: Path) -> pa.Table:
    """Return all predictions: ``slide_id, x, y, target, pred, prob_<class>``, sorted by key."""
    table = dataset(folder, sorted(folder.glob("*.parquet"))).to_table()
    return table.sort_by([(name, "ascending") for name in KEY])


def dataset(folder: Path, files: Sequence[Path]) -> ds.Dataset:
    """Return the predictions in some files of a folder, in this layout or the one before."""
    inside = "slide_id" in pq.read_schema(files[0]).names
    names = [str(file) for file in files]
    if inside:
        return ds.dataset(names, format="parquet")
    return ds.dataset(names, format="parquet", partitioning=NAMES, partition_base_dir=str(folder))


def of_slide(predicted: ds.Dataset, slide: str) -> ds.Dataset:
    """Return what holds the predictions of a slide: its file, where it has one, else all."""
    if isinstance(predicted, ds.FileSystemDataset):
        file = Path(next(predicted.get_fragments()).path).with_name(file_name(slide))
        if file.exists():
            return ds.dataset(str(file), format="parquet", schema=predicted.schema)
    return predicted


def file_name(slide: str) -> str:
    """Return the name of a slide's file, which no other slide's is on any disk.

    What is readable of the slide's name, and a digest that tells case, Unicode's forms and the
    rest apart. Nothing in it means anything to readers: the slide's name stands in the file.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", slide.lower())[:READABLE].strip("-")
    digest = hashlib.sha256(slide.encode()).hexdigest()[:16]
    return "-".join(filter(None, [plain, digest])) + ".parquet"


def _put(file: Path, content: pa.Buffer) -> None:
    """Write a file by rename, in its own folder: a temporary one takes longer than the writing."""
    fresh = file.with_name(file.name + UNFINISHED)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(content)
        atomic.publish(fresh, file)
    except OSError as error:
        raise ArtifactError(
            f"{file} could not be written",
            found=error.strerror or str(error),
            fix="make room, and go on with resume=true; or name another output",
        ) from error


class Partitions:
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

    def __init__(self, folder: Path, cohort: Cohort, classes: Sequence[str]) -> None:
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
            self._written.append(self._disk.submit(_put, file, sink.getvalue()))

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


def refuse_faults(cohort: Cohort, places: Places, found: Iterable[Faults]) -> None:
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
    whole = Faults(cohort.dim, "float32")
    for some in found:
        asked = [row for row in some.rows if places[row] >= 0]
        whole.lengths.update((int(places[r]), some.lengths[r]) for r in asked if r in some.lengths)
        whole.values.extend(int(places[r]) for r in asked if r not in some.lengths)
    contract.refuse(whole.violations(cohort.keys))
