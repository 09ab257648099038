"""The parts of an artifact that are not there, converted: each file once, hashed as it is read."""

import os
import secrets
import shutil
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.contract.violation import raise_first
from featurestore.embeddings.batches import KEYS as KEY_SCHEMA
from featurestore.embeddings.convert import Slice, Target, convert, each, slices, write_keys
from featurestore.embeddings.invalid import Faults, InvalidEmbeddings
from featurestore.embeddings.layout import KEYS, LOCK, STORED, VALUES, Advance
from featurestore.embeddings.matrix import EmbeddingMatrix
from featurestore.embeddings.part import Part, content_of, folder
from featurestore.embeddings.parts import name_of, named, present
from featurestore.errors import ArtifactError
from featurestore.io import atomic, cache, digests, locks
from featurestore.io.cache import BUILDING
from featurestore.io.parquet import Dataset, Fragment
from featurestore.io.progress import Rows


class Conversion:
    """Makes the parts of an artifact that are not there, and tells which ones are new.

    Parameters
    ----------
    dataset
        The artifact.
    target
        What its embeddings are converted to.
    sums
        SHA-256 of its files, by path; one that is not among them is hashed while it is converted.
    threads
        One per core by default.
    """

    def __init__(
        self,
        dataset: Dataset,
        target: Target,
        sums: Mapping[Path, str],
        threads: int | None = None,
    ) -> None:
        self.dataset, self.target, self.sums = dataset, target, dict(sums)
        self.threads = threads or os.cpu_count() or 1
        self.parts: dict[str, Part] = {}
        self.files: dict[str, str] = {}  # of which file of the artifact a part was made
        self.new: list[str] = []
        self._faults: list[Faults] = []
        self._stamp = digests.stamp(dataset.named)[: cache.NAME_LENGTH]

    def run(self, rows: Rows) -> None:
        """Do as `convert`, and refuse what is wrong.

        Raises
        ------
        EmbeddingError
            An embedding has another length than the target, or a value is not finite.
        """
        self.convert(rows)
        looked_at = sum(fragment.rows for fragment in self.dataset.filled)
        target = self.target
        raise_first(self.faults.violations(target.dim, target.storage, looked_at))

    def convert(self, rows: Rows) -> None:
        """Convert what is missing, and note what is wrong with it as ``faults``.

        Parameters
        ----------
        rows
            Shows the rows as they are done.

        Raises
        ------
        ArtifactError
            There is too little room on the disk, or a file was changed while it was read.
        """
        try:
            with locks.exclusive(folder() / f".converting-{self._stamp}{LOCK}"):
                work = self._missing()
                total = sum(piece.rows for _, pieces in work for piece in pieces)
                if total:
                    with rows.counting(f"embeddings to {self.target.storage}", total) as advance:
                        self._convert(work, advance)
        except OSError as error:
            raise cache.refusal(folder(), error) from error

    @property
    def faults(self) -> Faults:
        """What is wrong with the embeddings of all files together."""
        return sum(self._faults, Faults())

    @property
    def matrix(self) -> EmbeddingMatrix:
        """The embeddings of the artifact, once it has run."""
        return EmbeddingMatrix(tuple(self.parts[name] for name in sorted(self.parts)))

    def _missing(self) -> list[tuple[Fragment, list[Slice]]]:
        """Return the files with slices whose parts are not there."""
        known = [fragment for fragment in self.dataset.filled if fragment.path in self.sums]
        by_name = named(known, self.target.storage, self.sums)
        self.parts = present(by_name)
        self.files = {name: piece.fragment.name for name, piece in by_name.items()}
        for part in self.parts.values():
            if part.dim != self.target.dim:  # of an artifact of its own it was sound
                keys = pq.read_table(part.keys, columns=KEY_SCHEMA.names)
                lengths = np.full(part.rows, part.dim)
                self._faults.append(Faults.of(keys, lengths, self.target.dim))
        missing: dict[Path, list[Slice]] = {
            fragment.path: slices(fragment)
            for fragment in self.dataset.filled
            if fragment.path not in self.sums
        }
        for name, piece in by_name.items():
            if name not in self.parts:
                missing.setdefault(piece.fragment.path, []).append(piece)
        return [(f, missing[f.path]) for f in self.dataset.filled if f.path in missing]

    def _convert(self, work: list[tuple[Fragment, list[Slice]]], advance: Advance) -> None:
        self._check_room(work)
        with ThreadPoolExecutor(self.threads) as files, ThreadPoolExecutor(self.threads) as groups:

            def one(item: tuple[Fragment, list[Slice]]) -> None:
                self._convert_file(*item, groups, advance)

            each(files, one, work)
        atomic.sync(folder())

    def _convert_file(
        self, fragment: Fragment, pieces: list[Slice], pool: Executor, advance: Advance
    ) -> None:
        fresh = [
            folder() / f"{BUILDING}{self._stamp}-{secrets.token_hex(8)}{VALUES}" for _ in pieces
        ]

        def work() -> list[tuple[pa.Table, InvalidEmbeddings]]:
            return [
                convert(piece, self.target, values, pool, advance)
                for piece, values in zip(pieces, fresh, strict=True)
            ]

        try:
            if fragment.path in self.sums:
                sha256, converted = self.sums[fragment.path], work()
            else:
                sha256, converted = digests.hashed_during(fragment.path, work)
                self.sums[fragment.path] = sha256
            for piece, values, (keys, invalid) in zip(pieces, fresh, converted, strict=True):
                if len(invalid.rows):
                    self._faults.append(invalid.faults(keys))
                else:
                    name = name_of(piece, self.target.storage, sha256)
                    self.files[name] = fragment.name
                    self._publish(name, keys, values)
        finally:
            for values in fresh:
                values.unlink(missing_ok=True)
                values.with_suffix(KEYS).unlink(missing_ok=True)

    def _publish(self, name: str, keys: pa.Table, values: Path) -> None:
        """Give the files of a part their names, the keys last."""
        target = self.target
        part = Part(name, len(keys), target.dim, target.storage, content_of(keys))
        written = values.with_suffix(KEYS)
        write_keys(keys, part, written)
        with values.open("r+b") as file:
            file.seek(part.seal_offset)
            file.write(bytes.fromhex(digests.sha256(written)))
        atomic.sync(values)
        atomic.sync(written)
        values.replace(part.values)
        written.replace(part.keys)
        digests.note(dict.fromkeys((part.keys, part.values), part.when_whole))
        self.parts[name] = part
        self.new.append(name)

    def _check_room(self, work: list[tuple[Fragment, list[Slice]]]) -> None:
        width = STORED[self.target.storage].itemsize
        rows = sum(piece.rows for _, pieces in work for piece in pieces)
        need, free = rows * self.target.dim * width, shutil.disk_usage(folder()).free
        if free < need:
            raise ArtifactError(
                "The disk has too little room for the embeddings",
                found=f"{need / 1e9:.1f} GB to write, {free / 1e9:.1f} GB free in {folder()}",
                fix="make room (`featurestore gc` removes old snapshots), "
                + ("" if width == 2 else "set storage=float16, ")
                + "or work in a folder on another disk",
            )
