"""Tables with a row a tile, of any number of slides in any order."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from featurestore.embeddings.batches import as_matrix, lengths
from featurestore.errors import ConfigError, EmbeddingError, SchemaError
from featurestore.importing.slide import Array, Blocks, Geometry, Request, Slide, file_error
from featurestore.spec.typed import nearest_name

KEY = ("slide_id", "x", "y")
BATCH_BYTES = 2**24
COORDINATE_ROWS = 2**16  # rows of which x and y alone are read
Codes = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Source:
    """A table that is read in batches.

    Parameters
    ----------
    files
        What decides its rows.
    schema
        Its columns.
    batches
        Read some of its columns, about so many rows at a time, always in the same order.
    """

    files: tuple[Path, ...]
    schema: pa.Schema
    batches: Callable[[Sequence[str], int], Iterator[pa.RecordBatch]]

    def read(self, names: Sequence[str], max_rows: int) -> Iterator[pa.RecordBatch]:
        """Do as ``batches``.

        Raises
        ------
        ArtifactError
            The files are not whole.
        """
        try:
            yield from self.batches(names, max_rows)
        except (pa.ArrowException, OSError, UnicodeError) as error:
            raise file_error(
                self.files[0], "or a file beside it is not whole", str(error).splitlines()[0][:200],
                "copy it again, or write it again",
            ) from error  # fmt: skip


def slides(request: Request, source: Source) -> list[Slide]:
    """Return the slides of a table, in the order in which they appear.

    Where the rows of a slide lie together they are read in one pass over the table; else they are
    sorted by slide on disk first, in another one.

    Raises
    ------
    ConfigError
        A column that is named is not there.
    SchemaError
        One is of another type than it must be.
    """
    columns = _columns(request, source)
    dim, dtype = _embeddings(source, columns["embedding"])
    names, codes = _slide_codes(source, columns["slide_id"])
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    rows = _Rows(source, columns, dim, dtype)
    coordinates = _Coordinates(source, columns, codes)
    if len(starts) == len(names):  # every slide is one run, and so they are coded in order
        stops = [*starts[1:].tolist(), len(codes)]
        runs = [*zip(starts.tolist(), stops, strict=True)]
        reads = [(partial(coordinates.run, a, b), partial(rows.run, a, b)) for a, b in runs]
    else:
        spool = _Spool(rows, codes, request.scratch)
        codes_of = range(len(names))
        reads = [(partial(coordinates.read, code), partial(spool.read, code)) for code in codes_of]
    return [
        Slide(name, source.files, int(count), dim, dtype, Geometry(), *read)
        for name, count, read in zip(names, np.bincount(codes), reads, strict=True)
    ]


def _columns(request: Request, source: Source) -> dict[str, str]:
    names = {name: name for name in (*KEY, "embedding")} | request.columns
    for name, column in names.items():
        if column not in source.schema.names:
            near = nearest_name(column, source.schema.names)
            raise ConfigError(
                f"{request.source} has no column {column!r} for {name}",
                found=f"columns {', '.join(source.schema.names)}",
                fix=f"name it: --columns {name}={near or 'COLUMN'}",
            )
    return names


def _embeddings(source: Source, column: str) -> tuple[int, np.dtype[Any]]:
    """Return the length of the first embedding, and the type that all are written in."""
    first = next((b for b in source.read([column], 1) if len(b)), None)
    kind = source.schema.field(column).type
    storage = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    value = getattr(storage, "value_type", None)
    if value is None or not (pa.types.is_floating(value) or pa.types.is_integer(value)):
        raise SchemaError(
            f"Column {column!r} of {source.files[0]} does not hold embeddings",
            found=str(kind),
            fix="name the column of lists of numbers: --columns embedding=COLUMN",
        )
    if first is None:
        raise SchemaError(
            f"{source.files[0]} has no rows", found="0 rows", fix="name a table with tiles"
        )
    dtype = np.dtype(np.float16 if pa.types.is_float16(value) else np.float32)
    return int(lengths(_storage(first.column(0)))[0]), dtype


def _slide_codes(source: Source, column: str) -> tuple[list[str], Codes]:
    """Return the slides by number, and the number of the slide of each row."""
    numbers: dict[str, int] = {}
    codes = [np.empty(0, np.int32)]
    for batch in source.read([column], 2**16):
        values = batch.column(0).cast(pa.string()).dictionary_encode()  # in order of appearance
        if values.null_count:
            raise SchemaError(
                f"Column {column!r} of {source.files[0]} has rows of no slide",
                found=f"{values.null_count:,} nulls in a batch of {len(values):,} rows",
                fix="fill them, or drop these rows",
            )
        names = values.dictionary.to_pylist()
        local = [numbers.setdefault(name, len(numbers)) for name in names]
        codes.append(np.array(local, np.int32)[values.indices.to_numpy()])
    return list(numbers), np.concatenate(codes)


def _coordinates(source: Source, columns: dict[str, str], batch: pa.RecordBatch) -> Array:
    """Return x and y of some rows, as numbers."""
    return np.stack([_numbers(source, columns[axis], axis, batch) for axis in ("x", "y")], axis=1)


def _numbers(source: Source, name: str, axis: str, batch: pa.RecordBatch) -> Array:
    column = batch.column(batch.schema.get_field_index(name))
    kind = column.type
    if column.null_count or not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise SchemaError(
            f"Column {name!r} of {source.files[0]} does not hold the {axis} of every tile",
            found=f"{kind}, {column.null_count:,} nulls in a batch of {len(column):,} rows",
            fix=f"name a column of whole numbers: --columns {axis}=COLUMN",
        )
    return column.to_numpy()


class _ForwardReader:
    """Reads some columns of a table once, from its beginning to its end."""

    def __init__(self, source: Source, names: Sequence[str], max_rows: int) -> None:
        self.source, self.names, self.max_rows = source, names, max_rows
        self._batches = self.batches()
        self._batch: Any = ()  # the record batch that was read last
        self._first_row = 0  # its number of the table

    def batches(self) -> Iterator[pa.RecordBatch]:
        return self.source.read(self.names, self.max_rows)

    def run(self, start: int, stop: int, max_rows: int) -> Iterator[pa.RecordBatch]:
        """Read the rows from one number up to another, none of which was read before."""
        while start < stop:
            end = self._first_row + len(self._batch)
            if start >= end:
                self._first_row, self._batch = end, self._next()
                continue
            count = min(stop, end, start + max_rows) - start
            yield self._batch.slice(start - self._first_row, count)
            start += count

    def _next(self) -> pa.RecordBatch:
        batch = next(self._batches, None)
        if batch is None:
            raise file_error(
                self.source.files[0], "was changed while it was read", "fewer rows than before",
                "run again, once nobody writes there",
            )  # fmt: skip
        return batch


class _Coordinates:
    """The coordinates of a table, those of each slide read once."""

    def __init__(self, source: Source, columns: dict[str, str], codes: Codes) -> None:
        self.source, self.columns, self.codes = source, columns, codes
        self._reader = _ForwardReader(source, [columns["x"], columns["y"]], COORDINATE_ROWS)

    def run(self, start: int, stop: int) -> Array:
        """Return those of the rows from one number up to another."""
        return self._joined(self._reader.run(start, stop, COORDINATE_ROWS))

    def read(self, code: int) -> Array:
        """Return those of a slide by its number."""
        return self._by_slide.pop(code)

    @cached_property
    def _by_slide(self) -> dict[int, Array]:
        order = np.argsort(self.codes, kind="stable")
        rows = self._joined(self._reader.batches())[order]
        return dict(enumerate(np.split(rows, np.cumsum(np.bincount(self.codes))[:-1])))

    def _joined(self, batches: Iterable[pa.RecordBatch]) -> Array:
        return np.concatenate([_coordinates(self.source, self.columns, one) for one in batches])


class _Rows:
    """The rows of a table as coordinates and embeddings, read from its beginning to its end."""

    def __init__(
        self, source: Source, columns: dict[str, str], dim: int, dtype: np.dtype[Any]
    ) -> None:
        self.source, self.columns, self.dim, self.dtype = source, columns, dim, dtype
        names = [columns[name] for name in ("x", "y", "embedding")]
        max_rows = max(1, BATCH_BYTES // (dtype.itemsize * max(dim, 1)))
        self._reader = _ForwardReader(source, names, max_rows)

    def batches(self) -> Iterator[pa.RecordBatch]:
        return self._reader.batches()

    def run(self, start: int, stop: int, max_rows: int) -> Blocks:
        """Read the rows from one number up to another, none of which was read before."""
        yield from map(self.arrays, self._reader.run(start, stop, max_rows))

    def arrays(self, batch: pa.RecordBatch) -> tuple[Array, Array]:
        """Return coordinates and embeddings of some rows."""
        coordinates = _coordinates(self.source, self.columns, batch)
        column = _storage(batch.column(batch.schema.get_field_index(self.columns["embedding"])))
        sizes = lengths(column)
        if (sizes != self.dim).any():
            raise EmbeddingError(
                f"Embeddings of {self.source.files[0]} are not all of one length",
                found=f"{self.dim} in the first row, and {int(sizes[sizes != self.dim][0])}",
                fix="write one embedding of the same model per tile",
            )
        with np.errstate(over="ignore"):  # what does not fit is found not to be finite
            return coordinates, as_matrix(column, self.dim).astype(self.dtype, copy=False)


class _Spool:
    """Sorts the rows of a table by slide on disk, a file a slide, when they are first asked for."""

    def __init__(self, rows: _Rows, codes: Codes, folder: Path) -> None:
        self.rows, self.codes, self.folder = rows, codes, folder
        self._written = False

    def read(self, code: int, max_rows: int) -> Blocks:
        """Read the rows of a slide by its number, at most so many at a time."""
        if not self._written:
            self._write()
            self._written = True
        row = self._row()
        with self._file(code).open("rb") as stream:
            while content := stream.read(max_rows * row.itemsize):
                block = np.frombuffer(content, row)
                yield block["coordinates"], np.ascontiguousarray(block["embedding"])

    def _write(self) -> None:
        start = 0
        for batch in self.rows.batches():
            coordinates, embeddings = self.rows.arrays(batch)
            codes = self.codes[start : start + len(batch)]
            start += len(batch)
            order = np.argsort(codes, kind="stable")
            sorted_rows = np.empty(len(order), self._row())
            sorted_rows["coordinates"] = coordinates[order]
            sorted_rows["embedding"] = embeddings[order]
            present, firsts = np.unique(codes[order], return_index=True)
            pieces = np.split(sorted_rows, firsts[1:])
            for code, piece in zip(present.tolist(), pieces, strict=True):
                with self._file(code).open("ab") as stream:
                    stream.write(piece.tobytes())

    def _row(self) -> np.dtype[np.void]:
        return np.dtype(
            [("coordinates", np.float64, 2), ("embedding", self.rows.dtype, self.rows.dim)]
        )

    def _file(self, code: int) -> Path:
        return self.folder / f"slide-{code}.rows"


def _storage(column: pa.Array) -> pa.Array:
    return column.storage if isinstance(column, pa.ExtensionArray) else column
