"""What executors do for a snapshot: they hash and convert files, and write the fates.

The driver is told of files, slides, groups and classes, never of tiles.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq
from ibis.backends.sql import SQLBackend

from featurestore.backend import executors
from featurestore.embeddings.conversion import Conversion
from featurestore.embeddings.convert import SLICE_BYTES, Target, slices
from featurestore.embeddings.invalid import Faults
from featurestore.embeddings.layout import FOLDER
from featurestore.embeddings.part import Part
from featurestore.embeddings.parts import may_be_there, name_of, share
from featurestore.errors import ArtifactError, QueryError
from featurestore.io import digests
from featurestore.io.digest_cache import Identity
from featurestore.io.objects import fetching, originals, shared
from featurestore.io.objects.listing import connect
from featurestore.io.objects.store import StoredObject
from featurestore.io.objects.workplace import Workplace
from featurestore.io.parquet import Dataset, Fragment
from featurestore.io.progress import Rows
from featurestore.snapshots import fingerprints
from featurestore.views.folds import KEY

CODE = (
    "embeddings/batches", "embeddings/conversion", "embeddings/convert", "embeddings/layout",
    "embeddings/near", "embeddings/part", "embeddings/parts", "embeddings/rounding",
    "snapshots/spark",
)  # fmt: skip
"""What executors must have as the driver has it."""
ROW_GROUP = 122_880  # rows: what DuckDB writes


class ConversionTask(NamedTuple):
    """A file to convert: its SHA-256 if that is known, and its object if it lies in a store."""

    fragment: Fragment
    sha256: str | None
    stored: StoredObject | None


class HashingTask(NamedTuple):
    """A file to hash: its identity on the driver, and its object if it lies in a store."""

    path: Path
    identity: Identity
    stored: StoredObject | None


class ConversionResult(NamedTuple):
    """A converted file: its SHA-256, its parts, the names of new ones, and its faults."""

    sha256: str
    parts: list[Part]
    new: list[str]
    faults: Faults


class SparkConversion(Conversion):
    """Makes the parts of an artifact that are not there on executors, a task a file.

    Parameters
    ----------
    connection
        Spark.
    dataset, target, sums
        As of `featurestore.embeddings.conversion.Conversion`.
    """

    def __init__(
        self,
        connection: SQLBackend,
        dataset: Dataset,
        target: Target,
        sums: Mapping[Path, str],
    ) -> None:
        super().__init__(dataset, target, sums)
        self.connection = connection

    def convert(self, rows: Rows) -> None:
        """Convert what is missing, and note what is wrong with it as ``faults``.

        Parameters
        ----------
        rows
            Not shown: Spark shows tasks where it shows anything.

        Raises
        ------
        ArtifactError
            An executor lacks a file or the working folder, or has too little room.
        """
        fragments = self.dataset.filled
        work = partial(
            convert_file,
            target=self.target, workplace=Workplace.here(), code=fingerprints.of_code(*CODE),
        )  # fmt: skip
        objects = originals.elsewhere(fragment.path for fragment in fragments)
        tasks = [ConversionTask(f, self.sums.get(f.path), objects.get(f.path)) for f in fragments]
        results = executors.run(self.connection, work, tasks)
        for fragment, converted in zip(fragments, results, strict=True):
            self.sums[fragment.path] = converted.sha256
            self.parts |= {part.name: part for part in converted.parts}
            self.files |= {part.name: fragment.name for part in converted.parts}
            self.new += converted.new
            self._faults.append(converted.faults)
        digests.remember_remote(self.sums, self.dataset.identities)
        if (store := shared.current()) is not None:
            store.entries(FOLDER, refresh=True)


def convert_file(
    task: ConversionTask, target: Target, workplace: Workplace, code: str
) -> ConversionResult:
    """Convert a file on an executor, unless its parts are there.

    Parameters
    ----------
    task
        A file by a path that all machines have, or an object, which is fetched from its store.
    target
        What its embeddings are converted to.
    workplace
        Where its parts go.
    code
        SHA-256 of `CODE` on the driver.

    Raises
    ------
    ArtifactError
        The executor lacks the file, has another version of this package, or too little room.
    """
    _check_code(code)
    fragment, sha256, stored = task
    if stored is None:
        fragment = replace(fragment, identity=_verified_identity(fragment.path, fragment.identity))
    with workplace.entered(), _fetched(task, fragment, target) as here:
        sums = {here.path: sha256} if sha256 else {}
        conversion = Conversion(Dataset((here,), here.name), target, sums, threads=1)
        conversion.convert(Rows(None))
        parts = list(conversion.parts.values())
        share(parts)
        return ConversionResult(
            conversion.sums[here.path], parts, conversion.new, conversion.faults
        )


@contextmanager
def _fetched(task: ConversionTask, fragment: Fragment, target: Target) -> Iterator[Fragment]:
    """Yield a file of this machine, an object among its own, unless its parts are there."""
    if task.stored is None or _is_converted(task, target):
        yield fragment
        return
    with fetching.fetched(connect(task.stored.uri), task.stored) as original:
        path = original.absolute()
        yield replace(fragment, path=path, identity=digests.identity(path))


def _is_converted(task: ConversionTask, target: Target) -> bool:
    if task.sha256 is None or task.fragment.identity.size > SLICE_BYTES:
        return False
    [piece] = slices(task.fragment)
    return may_be_there(name_of(piece, target.storage, task.sha256))


def _check_code(code: str) -> None:
    if fingerprints.of_code(*CODE) != code:
        raise QueryError(
            "An executor has another version of this package than the driver",
            found=f"other code in {os.uname().nodename}",
            fix="install the same version everywhere",
        )


def _verified_identity(file: Path, expected: Identity) -> Identity:
    """Return the identity of a file on this machine, after a check that it is the driver's file.

    Devices, and on some disks inodes, are numbered otherwise on each machine.
    """
    node = os.uname().nodename
    if not file.is_file():
        raise ArtifactError(
            "An executor does not have a file that the driver has",
            found=f"no {file} on {node}",
            fix="keep artifacts, and the working folder if they are fetched to it, on a file "
            "system that all machines mount under one path",
        )
    here = digests.identity(file)
    if (here.size, here.mtime) != (expected.size, expected.mtime):
        raise ArtifactError(
            f"{file} is another file on an executor than on the driver",
            found=f"{here.size:,} bytes on {node}, {expected.size:,} on the driver, or another "
            "time",
            fix="run again, once nobody writes there; or mount one file system on all machines",
        )
    return here


def hash_files(connection: SQLBackend, datasets: Iterable[Dataset]) -> None:
    """Have executors hash the files that nothing is remembered of.

    Raises
    ------
    ArtifactError
        An executor lacks a file, or it was changed meanwhile.
    """
    identities = {path: one for dataset in datasets for path, one in dataset.identities.items()}
    files = sorted(identities.keys() - digests.remembered(identities).keys())
    objects = originals.elsewhere(files)
    tasks = [HashingTask(file, identities[file], objects.get(file)) for file in files]
    work = partial(hash_file, workplace=Workplace.here(), code=fingerprints.of_code(*CODE))
    hashed = executors.run(connection, work, tasks)
    digests.remember_remote(dict(zip(files, hashed, strict=True)), identities)


def hash_file(task: HashingTask, workplace: Workplace, code: str) -> str:
    """Return the SHA-256 of a file on an executor, or of an object, which it fetches."""
    path, expected, stored = task
    _check_code(code)
    if stored is not None:
        with workplace.entered(), fetching.fetched(connect(stored.uri), stored) as original:
            return digests.sha256(original)
    here = _verified_identity(path, expected)
    sha256 = digests.sha256(path)
    digests.confirm({path: here})
    return sha256


@dataclass(frozen=True)
class Destination:
    """Where executors write fates to.

    Parameters
    ----------
    folder
        A folder of the driver's, from its working folder.
    name
        What the names of the files begin with.
    schema
        Of the rows.
    workplace
        The driver's.
    """

    folder: Path
    name: str
    schema: pa.Schema
    workplace: Workplace

    def draft(self, number: int) -> Path:
        """Return where the rows of a range of keys lie until all ranges are known."""
        return self.folder / f"range-{number}-{self.name}.parquet"


class FatesFile(NamedTuple):
    """A file of fates: its number, and the keys of its first and last row."""

    number: int
    first: tuple[str, int, int]
    last: tuple[str, int, int]


def write_fates(fates: ir.Table, folder: Path, name: str) -> list[Path]:
    """Have executors write fates into a folder of the driver's; return the files, sorted by key.

    Parameters
    ----------
    fates
        A table of Spark.
    folder
        Where, from the working folder.
    name
        What the names of the files begin with.
    """
    destination = Destination(folder, name, fates.schema().to_pyarrow(), Workplace.here())
    work = partial(write_range, destination=destination)
    ranges = executors.write(fates.get_backend(), work, fates, KEY)
    written = sorted((one for one in ranges if one is not None), key=lambda one: one.first)
    assert all(one.last < other.first for one, other in pairwise(written))
    destination.workplace.fetch(folder)
    files = [folder / f"{name}-{place:05d}.parquet" for place in range(len(written))]
    for one, file in zip(written, files, strict=True):
        destination.draft(one.number).replace(file)
    return files


def write_range(
    number: int, batches: Iterator[pa.RecordBatch], destination: Destination
) -> FatesFile | None:
    """Write the fates of a range of keys on an executor; return None if there is no row in it."""
    first = last = None
    with destination.workplace.entered():
        destination.folder.mkdir(parents=True, exist_ok=True)
        fresh = destination.folder / f".{os.getpid()}-{number}-{destination.name}.parquet"
        try:
            with pq.ParquetWriter(fresh, destination.schema, compression="zstd") as writer:
                for rows in _row_groups(batches):
                    first, last = first or _key(rows, 0), _key(rows, len(rows) - 1)
                    writer.write_table(rows.cast(destination.schema), len(rows))
            if first is None or last is None:
                return None
            destination.workplace.send(fresh, destination.draft(number))
        finally:
            fresh.unlink(missing_ok=True)
    return FatesFile(number, first, last)


def _key(rows: pa.Table, row: int) -> tuple[str, int, int]:
    [key] = rows.select(list(KEY)).slice(row, 1).to_pylist()
    return key["slide_id"], key["x"], key["y"]


def _row_groups(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield rows in tables as large as a row group."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= ROW_GROUP:
            yield pa.Table.from_batches(held)
            held = []
    if any(map(len, held)):
        yield pa.Table.from_batches(held)
