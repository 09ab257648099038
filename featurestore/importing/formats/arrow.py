"""Parquet, Arrow's own files, and data sets of Hugging Face as ``save_to_disk`` writes them.

Of a folder of Hugging Face ``state.json`` says which files count: beside them may lie those of
its cache. Read from github.com/huggingface/datasets 5.2.0, ``src/datasets/arrow_dataset.py``.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.importing import tables
from featurestore.importing.files import slide_name, source_files
from featurestore.importing.slide import Request, Slide, file_error, size_of
from featurestore.importing.tables import Source
from featurestore.io import parquet

SUFFIXES = (".arrow", ".feather", ".ipc")
STATE = "state.json"
NAME = "slide_id"


def slides(request: Request) -> list[Slide]:
    """Return the slides of a file, or of all files of a folder."""
    files = _arrow_files(request)
    return tables.slides(request, _of_arrow(request, files) if files else _of_parquet(request))


def _arrow_files(request: Request) -> list[Path]:
    source = request.source
    if source.is_file():
        return [source] if source.suffix in SUFFIXES else []
    states = sorted(source.rglob(STATE))
    if states:
        return [state.parent / name for state in states for name in _listed(state)]
    names = {file.suffix for file in source.rglob("*")}
    return source_files(request, SUFFIXES) if names & set(SUFFIXES) else []


def _listed(state: Path) -> list[str]:
    try:
        return [entry["filename"] for entry in json.loads(state.read_text())["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise file_error(
            state, "is not what Hugging Face's save_to_disk writes", repr(error),
            "name a file of the data set, or save it again",
        ) from error  # fmt: skip


def _of_arrow(request: Request, files: list[Path]) -> Source:
    schema = _schema(files[0])
    named = _is_named(request, schema)

    def batches(names: Sequence[str], max_rows: int) -> Iterator[pa.RecordBatch]:
        for file in files:
            constant: dict[str, str | None] = {} if named else {NAME: slide_name(request, file)}
            for batch in _record_batches(file):
                rows = _picked(file, batch, names, constant)
                rows.validate(full=True)  # offsets of a damaged file would be followed anywhere
                for start in range(0, len(rows), max_rows):
                    yield rows.slice(start, max_rows)

    return Source(tuple(files), schema if named else _with_name(schema), batches)


def _of_parquet(request: Request) -> Source:
    dataset = parquet.dataset(str(request.source))
    schema = dataset.filled[0].schema
    for name in dataset.filled[0].partition:
        if name not in schema.names:
            schema = schema.append(pa.field(name, pa.string()))
    named = _is_named(request, schema)

    def batches(names: Sequence[str], max_rows: int) -> Iterator[pa.RecordBatch]:
        for fragment in dataset.filled:
            constant = dict(fragment.partition)
            if not named:
                constant[NAME] = slide_name(request, fragment.path)
            present = [name for name in names if name in fragment.schema.names]
            with pq.ParquetFile(fragment.path, pre_buffer=False) as file:
                # A column at least: the number of rows comes with it.
                for batch in file.iter_batches(
                    max_rows, columns=present or fragment.schema.names[:1]
                ):
                    yield _picked(fragment.path, batch, names, constant)

    schema = schema if named else _with_name(schema)
    return Source(tuple(dataset.identities), schema, batches)


def _is_named(request: Request, schema: pa.Schema) -> bool:
    """Return whether a column says of which slide a row is, rather than the file's name."""
    return request.slide_id is None and (NAME in request.columns or NAME in schema.names)


def _with_name(schema: pa.Schema) -> pa.Schema:
    fields = [field for field in schema if field.name != NAME]
    return pa.schema([*fields, pa.field(NAME, pa.string())])


def _picked(
    file: Path, batch: pa.RecordBatch, names: Sequence[str], constant: dict[str, str | None]
) -> pa.RecordBatch:
    """Return some columns of a batch, of which constants may be some."""
    columns = []
    for name in names:
        if name in constant and (name not in batch.schema.names or name == NAME):
            columns.append(pa.repeat(pa.scalar(constant[name], pa.string()), len(batch)))
        elif name in batch.schema.names:
            columns.append(batch.column(batch.schema.get_field_index(name)))
        else:
            raise file_error(
                file, f"has no column {name}", f"columns {', '.join(batch.schema.names)}",
                "write all files of the data set with the same columns",
            )  # fmt: skip
    return pa.RecordBatch.from_arrays(columns, names=list(names))


def _opened(file: Path) -> pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchStreamReader:
    """Open a file of Arrow, which has a footer, or a stream, which Hugging Face writes."""
    source = pa.memory_map(str(file))
    try:
        return pa.ipc.open_file(source)
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_stream(source)


def _schema(file: Path) -> pa.Schema:
    try:
        schema = _opened(file).schema
        schema.names  # noqa: B018 -- they may be no text
        return schema
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise file_error(
            file, "is not a whole Arrow file", f"{size_of(file)}; {str(error).splitlines()[0]}",
            "copy it again, or write it again",
        ) from error  # fmt: skip


def _record_batches(file: Path) -> Iterator[pa.RecordBatch]:
    reader = _opened(file)
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        yield from map(reader.get_batch, range(reader.num_record_batches))
    else:
        yield from reader
