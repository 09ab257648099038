"""The parts of an artifact that are not there, converted: each file once, hashed as it is read."""

import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Semaphore

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.contract.violation import raise_first
from featurestore.embeddings.batches import KEYS as KEY_SCHEMA
from featurestore.embeddings.convert import Slice, Target, convert, each, slices, write_keys
from featurestore.embeddings.invalid import Faults, InvalidEmbeddings
from featurestore.embeddings.layout import KEYS, LOCK, STORED, Advance
from featurestore.embeddings.matrix import EmbeddingMatrix
from featurestore.embeddings.part import Part, content_of, folder
from featurestore.embeddings.parts import may_be_there, name_of, named, present
from featurestore.embeddings.publisher import Publisher
from featurestore.errors import ArtifactError
from featurestore.io import atomic, cache, digests, locks
from featurestore.io.cache import BUILDING
from featurestore.io.digests import Hashing
from featurestore.io.objects import fetching, originals
from featurestore.io.parquet import Dataset, Fragment
from featurestore.io.progress import Rows

IN_MEMORY = 64 * 2**20  # bytes of a file that is read whole, to be hashed and converted from there

Written = tuple[Path, pa.Table, InvalidEmbeddings]
"""Where the embeddings of a slice were written, its keys, and what is wrong with the embeddings."""


class Conversion:
    """Makes the parts of an artifact that are not there, and tells which ones are new.

    Parameters
    ----------
    dataset
        The artifact.
    target
        What its embeddings are converted to.
    sums
        SHA-256 of its files, by path; one that is not among them is hashed while it is converted,
        its bytes read once.
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
                # A second time for what is there by its name, which is known by then, and damaged.
                while not self._faults and (work := self._missing()):
                    total = sum(piece.rows for _, pieces in work for piece in pieces)
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
        """Return the files with slices whose parts are not there, as far as their names are known.

        What is there becomes part of this.
        """
        known = [fragment for fragment in self.dataset.filled if fragment.path in self.sums]
        by_name = named(known, self.target.storage, self.sums)
        parts = present(by_name.keys() - self.parts.keys())
        self.parts |= parts
        self.files = {name: piece.fragment.name for name, piece in by_name.items()}
        for part in parts.values():
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
        hashing = Hashing({fragment.path: fragment.identity for fragment, _ in work})
        stored = originals.Originals()
        # To wait for a store takes no processor: more files at once, of which few are converted.
        at_once = max(self.threads, fetching.AT_ONCE)
        turns = Semaphore(self.threads)
        with (
            TemporaryDirectory(prefix=BUILDING, dir=folder()) as fresh,
            ThreadPoolExecutor(at_once) as files,
            ThreadPoolExecutor(self.threads) as groups,
        ):
            publisher = Publisher(Path(fresh), self._named)

            def written(piece: Slice) -> Written:
                values = publisher.place()
                return values, *convert(piece, self.target, values, groups, advance)

            def one(item: tuple[Fragment, list[Slice]]) -> None:
                fragment, pieces = item
                stored.fetch(fragment.path)
                with turns:
                    if fragment.identity.size <= IN_MEMORY:
                        pieces = self._read(fragment, pieces, hashing, advance)
                    converted = self._hashed(fragment, hashing, lambda: list(map(written, pieces)))
                    for piece, done in zip(pieces, converted, strict=True):
                        self._hand_over(piece, done, publisher)

            each(files, one, work, stored.end)
            publisher.publish()
        atomic.sync(folder())

    def _read(
        self, fragment: Fragment, pieces: list[Slice], hashing: Hashing, advance: Advance
    ) -> list[Slice]:
        """Return those of some slices whose parts are not there, with the bytes of their file."""
        sha256, content = hashing.content(fragment.path)
        self._note(fragment, sha256)
        new = [p for p in pieces if not may_be_there(name_of(p, self.target.storage, sha256))]
        advance(sum(piece.rows for piece in pieces if piece not in new))
        return [replace(piece, content=pa.py_buffer(content)) for piece in new]

    def _hashed(
        self, fragment: Fragment, hashing: Hashing, work: Callable[[], list[Written]]
    ) -> list[Written]:
        """Return what some work on a file returns; its digest is known then."""
        if fragment.path in self.sums:
            return work()
        sha256, converted = hashing.during(fragment.path, work)
        self._note(fragment, sha256)
        return converted

    def _note(self, fragment: Fragment, sha256: str) -> None:
        if self.sums.setdefault(fragment.path, sha256) != sha256:
            raise ArtifactError(
                f"{fragment.path} has other bytes than when its digest was remembered",
                found=f"SHA-256 {sha256}",
                fix="bring the file back from its source; `featurestore verify` corrects digests",
            )

    def _hand_over(self, piece: Slice, written: Written, publisher: Publisher) -> None:
        """Have a part named, unless something is wrong with its embeddings."""
        values, keys, invalid = written
        if len(invalid.rows):
            self._faults.append(invalid.faults(keys))
            return
        name = name_of(piece, self.target.storage, self.sums[piece.fragment.path])
        part = Part(name, len(keys), self.target.dim, self.target.storage, content_of(keys))
        digest = write_keys(keys, part, values.with_suffix(KEYS))
        with values.open("r+b") as file:
            file.seek(part.seal_offset)
            file.write(bytes.fromhex(digest))
        publisher.add(part, values)

    def _named(self, part: Part) -> None:
        self.parts[part.name] = part
        self.new.append(part.name)

    def _check_room(self, work: list[tuple[Fragment, list[Slice]]]) -> None:
        fetching.refuse_too_large(originals.lacking(f.path for f, _ in work).values())
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
