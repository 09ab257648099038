"""Parts of an object, without the rest of it: any bytes, and some columns of a Parquet file."""

import io
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.errors import ArtifactError
from featurestore.io import cache
from featurestore.io.objects import fetching
from featurestore.io.objects.stored import Store, Stored, translated

KIND = "columns"
FOOTER, COLUMNS = "footer.parquet", "columns.parquet"


class _Ranges(io.RawIOBase):
    """A file whose reads are requests of just those bytes."""

    def __init__(self, store: Store, stored: Stored) -> None:
        super().__init__()
        self.store, self.stored, self.place = store, stored, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.stored.size}[whence]
        self.place = start + offset
        return self.place

    def readinto(self, buffer: Any) -> int:
        begin, stop = self.place, min(self.place + len(buffer), self.stored.size)
        with translated(self.stored.uri, self.store.refusal):
            for chunk in self.store.read(self.stored, begin, stop):
                buffer[self.place - begin : self.place - begin + len(chunk)] = chunk
                self.place += len(chunk)
        return self.place - begin


def opened(store: Store, stored: Stored) -> pa.NativeFile:
    """Return an object to read from: each read is a request of those bytes, none is kept.

    Reads raise an `ArtifactError` where the object was replaced or the storage does not answer.
    """
    return pa.PythonFile(_Ranges(store, stored), mode="r")


@contextmanager
def columns(store: Store, stored: Stored, names: Collection[str]) -> Iterator[Path]:
    """Yield a folder with the footer and some columns of a Parquet object; it stays in the block.

    The other columns are not read. What was read is kept under what the store says of the content,
    and asked for once; of an object that is here, nothing is asked.

    Parameters
    ----------
    names
        Of columns, without regard to case. Those that the file has not are left out: its folder
        may give them.

    Yields
    ------
    Path
        A folder with `FOOTER`, which `pyarrow.parquet.read_metadata` reads, and `COLUMNS`, a
        Parquet file of the same rows in the same order.

    Raises
    ------
    ArtifactError
        It is no whole Parquet file, it was replaced, or the storage refuses or does not answer.
    """
    wanted = sorted({name.lower() for name in names})
    digest = stored.having(*wanted)
    entry = cache.get_or_build(KIND, digest, partial(_read, store, stored, wanted), on_trial=False)
    with entry.lock:
        yield entry.folder


def _read(store: Store, stored: Stored, wanted: Collection[str], folder: Path) -> None:
    with _source(store, stored) as source:
        with _whole(stored):
            file = pq.ParquetFile(source, pre_buffer=True)
        file.metadata.write_metadata_file(folder / FOOTER)
        names = [name for name in file.schema_arrow.names if name.lower() in wanted]
        schema = pa.schema([file.schema_arrow.field(name) for name in names])
        with pq.ParquetWriter(folder / COLUMNS, schema) as writer:
            for group in range(file.num_row_groups):  # one in memory
                with _whole(stored):
                    rows = file.read_row_group(group, columns=names)
                writer.write_table(rows)


@contextmanager
def _whole(stored: Stored) -> Iterator[None]:
    """Refuse what pyarrow cannot read."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ArtifactError(
            f"{stored.uri} is not a whole Parquet file",
            found=f"{stored.size:,} bytes; {str(error).splitlines()[0]}",
            fix="write or copy the file again",
        ) from error


@contextmanager
def _source(store: Store, stored: Stored) -> Iterator[pa.NativeFile]:
    if cache.place(fetching.KIND, stored.digest).exists():
        with fetching.fetched(store, stored) as file, pa.OSFile(str(file)) as source:
            yield source
    else:
        with opened(store, stored) as source:
            yield source
