"""Delta Lake: what a table's log says of its files. The one file that names ``deltalake``."""

from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from featurestore.errors import library_needed
from featurestore.io.tables.version import (
    Partition,
    TableVersion,
    damaged,
    log_needed,
    no_version,
    unread,
)

KIND = "Delta Lake"
LOG = "_delta_log"
PARTITION = "partition."  # before the name of a column, among the columns of a log's files
HARMLESS = {
    "columnMapping", "deletionVectors",  # which are looked for below
    "timestampNtz", "typeWidening", "typeWidening-preview", "v2Checkpoint", "vacuumProtocolCheck",
    "variantType", "variantType-preview", "variantShredding", "variantShredding-preview",
}  # fmt: skip
"""What a protocol may ask of readers that leaves files as plain Parquet."""


def is_table(folder: Path) -> bool:
    """Return whether a folder is a table of Delta Lake."""
    return (folder / LOG).is_dir()


def newest(root: Path) -> int:
    """Return the number of a table's newest version; raises as `read`."""
    return int(_opened(root, None).version())


def read(root: Path, number: int) -> TableVersion:
    """Return a version of a table.

    Raises
    ------
    ArtifactError
        The library is not installed, the log is damaged or has no such version, or rows of files
        are deleted or columns renamed in the log alone.
    """
    table = _opened(root, number)
    _refuse_features(root, table)
    actions = pa.table(table.get_add_actions(flatten=True))
    given = [name for name in actions.column_names if name.startswith(PARTITION)]
    values = {
        name.removeprefix(PARTITION): actions[name].cast(pa.string()).to_pylist() for name in given
    }
    files: dict[Path, Partition] = {}
    for index, path in enumerate(actions["path"].to_pylist()):
        files[_place(root, path)] = {name: column[index] for name, column in values.items()}
    names = {field.name for field in table.schema().fields}

    def columns(_file: Path, schema: pa.Schema) -> pa.Schema:
        return pa.schema([field for field in schema if field.name in names], schema.metadata)

    return TableVersion(root.absolute(), number, files, columns)


def _opened(root: Path, number: int | None) -> Any:
    with library_needed(log_needed(root, KIND), "delta"):
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError
    try:
        table = DeltaTable(root.absolute())
    except (DeltaError, ValueError, OSError) as error:
        raise damaged(root, KIND, error) from error
    if number is None or number == table.version():
        return table
    there = f"versions up to {table.version()}, the newest"
    if number > table.version():
        raise no_version(root, number, there)
    try:
        return DeltaTable(root.absolute(), version=number)
    except (DeltaError, ValueError, OSError) as error:
        raise no_version(root, number, f"{there}; {str(error).splitlines()[0]}") from error


def _refuse_features(root: Path, table: Any) -> None:
    mapping = table.metadata().configuration.get("delta.columnMapping.mode", "none")
    if mapping != "none":
        raise unread(
            root, f"column mapping by {mapping}: the log, not the file, names columns",
            "write its rows to a table without delta.columnMapping.mode, or to plain Parquet files",
        )  # fmt: skip
    features = set(table.protocol().reader_features or ())
    if unknown := sorted(features - HARMLESS):
        raise unread(
            root, f"its protocol asks readers for {', '.join(unknown)}",
            "write its rows to a table without, or to plain Parquet files",
        )  # fmt: skip
    if "deletionVectors" in features:
        vectors = pa.table(table.deletion_vectors())
        if len(vectors):
            raise unread(
                root, f"deletion vectors: rows of {len(vectors):,} files are deleted in the log "
                f"alone, the first {vectors['filepath'][0].as_py()}",
                "rewrite these files: REORG TABLE ... APPLY (PURGE)",
            )  # fmt: skip


def _place(root: Path, path: str) -> Path:
    """Return where a file of the log lies; one of another table, as a clone has, by its URI."""
    name = unquote(path)
    if name.startswith("file:"):
        return Path("/" + name.removeprefix("file:").lstrip("/"))
    if "://" in name:
        raise unread(
            root, f"a file that lies elsewhere: {name}", "copy its rows: a deep clone, for example"
        )
    return root.absolute() / name
