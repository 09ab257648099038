"""Parquet objects as tables of Spark: executors read them from their store.

What the driver has of them, or their outlines (`featurestore.io.objects.outlines`), other machines
have not. What an outline lacks, the lists, these tables refuse when they are asked for them.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path, PurePosixPath

import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq
from ibis.backends.sql import SQLBackend
from ibis.formats.pyarrow import PyArrowSchema

from featurestore.backend import engine, executors
from featurestore.backend.spark import refusing, spark_schema
from featurestore.io.objects import fetching, originals, outlines, shared
from featurestore.io.objects.listing import connect
from featurestore.io.objects.store import StoredObject
from featurestore.io.objects.workplace import Workplace
from featurestore.io.parquet import Fragment

Item = tuple[StoredObject, Mapping[str, str | None]]
"""An object, and what the names of its folders say."""


def objects_of(connection: SQLBackend, files: Collection[Path]) -> dict[Path, StoredObject]:
    """Return the objects that Spark's executors read instead of files of this machine.

    Without a store they have its working folder, and read outlines from there as DuckDB does.
    """
    if connection.name != "pyspark" or shared.current() is None:
        return {}
    return originals.elsewhere(files)


def object_rows(
    connection: SQLBackend, fragments: Sequence[Fragment], objects: Mapping[Path, StoredObject]
) -> ir.Table:
    """Return what some objects of one schema hold, and what their folders say.

    The rows are kept by executors, and found again by whoever asks for the same objects.

    Parameters
    ----------
    connection
        Spark.
    fragments
        Files of an artifact that are outlines here.
    objects
        Their objects, by path.
    """
    first = fragments[0]
    columns = pa.schema([field.with_name(first.column(field.name)) for field in first.schema])
    lists = pa.schema([field for field in columns if pa.types.is_nested(field.type)])
    folders = [name for name in first.partition if name not in columns.names]
    scalars = [field for field in columns if not pa.types.is_nested(field.type)]
    read = _spark_types(pa.schema([*scalars, *(pa.field(name, pa.string()) for name in folders)]))
    items = [(objects[fragment.path], fragment.partition) for fragment in fragments]
    rows = executors.read(
        connection, partial(read_object, schema=read, workplace=Workplace.here()), items, read
    )
    content = "\n".join(
        [str(read), *(f"{stored.digest} {dict(partition)}" for stored, partition in items)]
    )
    name = f"parquet_{hashlib.sha256(content.encode()).hexdigest()[:32]}"
    kept = engine.kept(connection, name)
    reason = "lists of numbers are read where they are converted; Spark has the other columns"
    return refusing(engine.keep(rows, name) if kept is None else kept, _floats(lists), reason)


def read_object(item: Item, schema: pa.Schema, workplace: Workplace) -> Iterator[pa.RecordBatch]:
    """Yield the rows of an object on an executor, at the cost of its outline.

    Raises
    ------
    ArtifactError
        As `featurestore.io.objects.outlines.outline`.
    """
    stored, folders = item
    written = [name for name in schema.names if name not in folders]
    with (
        workplace.entered(),
        _without_lists(stored) as file,
        pq.ParquetFile(file) as parquet,
    ):
        for batch in parquet.iter_batches(columns=written):
            constants = {name: pa.repeat(pa.scalar(folders[name], pa.string()), len(batch))
                    for name in schema.names if name in folders}  # fmt: skip
            table = pa.table({**{name: batch[name] for name in written}, **constants})
            yield from table.select(schema.names).cast(schema).to_batches()


def _without_lists(stored: StoredObject) -> AbstractContextManager[Path]:
    """Return the outline of an object on this machine, or all of one that has none."""
    store = connect(stored.uri)
    if outlines.applies(PurePosixPath(stored.key).name, stored):
        return outlines.outline(store, stored)
    return fetching.fetched(store, stored)


def _spark_types(schema: pa.Schema) -> pa.Schema:
    """Return the types in which rows come from executors."""
    return PyArrowSchema.from_ibis(PyArrowSchema.to_ibis(spark_schema(schema)))


def _floats(lists: pa.Schema) -> pa.Schema:
    """Return lists of half floats as such of single ones: Spark has none."""
    return pa.schema([
        field.with_type(pa.list_(pa.float32()))
        if getattr(field.type, "value_type", None) == pa.float16() else field
        for field in lists
    ])  # fmt: skip
