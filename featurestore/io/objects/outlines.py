"""Outlines: Parquet objects without their lists of numbers, at the cost of the other bytes.

An outline is a file of the object's size, with holes in place of the lists. Footer, keys and all
that is no list stand where they stand in the object, so whoever reads a Parquet file reads them
from it; a list read from a hole is an error, as no page of Parquet begins with zeros.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from io import FileIO
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.errors import ArtifactError
from featurestore.io import cache
from featurestore.io.objects.store import (
    NAME,
    OUTLINES,
    RECORD,
    Store,
    StoredObject,
    entry_of,
    object_behind,
    translated,
)
from featurestore.io.seals import Checks
from featurestore.io.walk import HIDDEN, MAGIC, SUFFIXES

NEAR = 2**16
"""Bytes that are read with those beside them: a request of its own would take as long. No smaller
object has an outline."""
END = 8  # bytes: the length of the footer, and what every Parquet file ends with

Ranges = list[tuple[int, int]]


def applies(name: str, stored: StoredObject) -> bool:
    """Return whether an object has an outline.

    It is a Parquet file of some size, and not of the log of a table, which is read as a whole.

    Parameters
    ----------
    name
        Its path within the artifact.
    """
    path = PurePosixPath(name)
    is_hidden = any(part.startswith(HIDDEN) for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not is_hidden and stored.size > NEAR


@contextmanager
def outline(store: Store, stored: StoredObject) -> Iterator[Path]:
    """Yield the outline of an object, read if it is not here; it stays until the block ends.

    Raises
    ------
    ArtifactError
        The object is no whole Parquet file, it was replaced, or the storage refuses or does not
        answer.
    """
    build = partial(_read, store, stored)
    entry = cache.get_or_build(OUTLINES, stored.digest, build, CHECKS, on_trial=False)
    with entry.lock:
        yield entry.folder / NAME


def object_of(file: Path) -> StoredObject | None:
    """Return the object that a file of an artifact is the outline of; None if it is no outline."""
    entry = entry_of(file)
    return object_behind(file) if entry is not None and entry[0] == OUTLINES else None


def _read(store: Store, stored: StoredObject, folder: Path) -> None:
    file = folder / NAME
    with translated(stored.uri, store.refusal), FileIO(file, "w+") as sparse:
        sparse.truncate(stored.size)
        start = max(stored.size - NEAR, 0)
        _bring(store, stored, [(start, stored.size)], sparse)
        length, mark = _end(file, stored.size)
        if mark not in MAGIC or length > stored.size - END:
            raise _no_parquet(stored, "no footer at its end")
        if (footer := stored.size - END - length) < start:
            _bring(store, stored, [(footer, start)], sparse)
            start = footer
        try:
            holes = _lists(pq.read_metadata(file))
        except (pa.ArrowException, OSError) as error:
            raise _no_parquet(stored, str(error).splitlines()[0]) from error
        here = _without(holes, start)
        _bring(store, stored, here, sparse)
    here.append((start, stored.size))
    record = {"object": asdict(stored), "ranges": here, "sha256": _sha256(file, here)}
    (folder / RECORD).write_text(json.dumps(record))


def _bring(
    store: Store, stored: StoredObject, ranges: Iterable[tuple[int, int]], sparse: FileIO
) -> None:
    for start, stop in ranges:
        sparse.seek(start)
        for chunk in store.read(stored, start, stop):
            view = memoryview(chunk)
            while view:
                view = view[sparse.write(view) :]
        if sparse.tell() != stop:
            raise _no_parquet(stored, "fewer bytes than its store says")


def _end(file: Path, size: int) -> tuple[int, bytes]:
    """Return the length of a Parquet file's footer, and the letters at its end."""
    with file.open("rb") as stream:
        stream.seek(max(size - END, 0))
        end = stream.read()
    return int.from_bytes(end[:-4], "little"), end[-4:]


def _lists(footer: pq.FileMetaData) -> Ranges:
    """Return where the lists of a Parquet file stand, those that are worth a hole."""
    holes = []
    lists = [n for n in range(footer.num_columns) if footer.schema.column(n).max_repetition_level]
    for group in (footer.row_group(number) for number in range(footer.num_row_groups)):
        for column in (group.column(number) for number in lists):
            pages = (column.dictionary_page_offset, column.data_page_offset)
            start = min(place for place in pages if place)  # without a dictionary: None, or 0
            holes.append((start, start + column.total_compressed_size))
    merged: Ranges = []
    for start, stop in sorted(holes):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return [(start, stop) for start, stop in merged if stop - start > NEAR]


def _without(holes: Ranges, end: int) -> Ranges:
    """Return what lies between some holes, up to an end."""
    edges = [0, *(min(place, end) for hole in holes for place in hole), end]
    between = zip(edges[::2], edges[1::2], strict=True)
    return [(start, stop) for start, stop in between if start < stop]


def _sha256(file: Path, ranges: Iterable[tuple[int, int]]) -> str:
    content = hashlib.sha256()
    with file.open("rb") as stream:
        for start, stop in ranges:
            stream.seek(start)
            content.update(stream.read(stop - start))
    return content.hexdigest()


def _fault(file: Path) -> str | None:
    """Return what is wrong with an outline, in words; its holes hold nothing that could be."""
    record = json.loads((file.parent / RECORD).read_bytes())
    if _sha256(file, record["ranges"]) != record["sha256"]:
        return "has other bytes than what was read"
    return None


def _no_parquet(stored: StoredObject, reason: str) -> ArtifactError:
    return ArtifactError(
        f"{stored.uri} is not a whole Parquet file",
        found=f"{stored.size:,} bytes; {reason}",
        fix="write or copy the file again",
    )


CHECKS: Checks = {NAME: _fault}
"""Of an outline, in place of a SHA-256, which would be that of its holes as well."""
