"""Apache Iceberg: what a table's metadata say of its files. The one file that names ``pyiceberg``.

Without a catalog: the newest metadata file says which snapshot is current.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from featurestore.errors import ArtifactError, library_needed
from featurestore.io.tables.version import (
    Partition,
    TableVersion,
    damaged,
    log_needed,
    no_version,
    unread,
)

KIND = "Apache Iceberg"
FOLDER = "metadata"
METADATA = re.compile(r"v?(\d+)(-[0-9a-f-]+)?(\.gz)?\.metadata\.json")
FIELD_ID = b"PARQUET:field_id"
REWRITE = "rewrite_data_files, or an overwrite of the table with its own rows"


def is_table(folder: Path) -> bool:
    """Return whether a folder is a table of Iceberg."""
    return bool(_numbered(folder))


def is_metadata(path: Path) -> bool:
    """Return whether a path is that of a table's metadata file."""
    return path.parent.name == FOLDER and bool(METADATA.fullmatch(path.name))


def _numbered(root: Path) -> dict[Path, int]:
    folder = root / FOLDER
    names = sorted(folder.glob("*.metadata.json")) if folder.is_dir() else []
    matches = {path: METADATA.fullmatch(path.name) for path in names}
    return {path: int(match[1]) for path, match in matches.items() if match}


def newest_metadata(root: Path) -> Path:
    """Return a table's newest metadata file, by the number in its name.

    Raises
    ------
    ArtifactError
        Two bear the same number: the table's catalog alone knows which commit failed.
    """
    numbers = _numbered(root)
    newest = [path for path, number in numbers.items() if number == max(numbers.values())]
    if len(newest) > 1:
        raise ArtifactError(
            f"The table {root} has several newest metadata files",
            found=", ".join(path.name for path in newest),
            fix=f"name the one that the catalog names: {newest[0]}",
        )
    return newest[0]


def read(metadata: Path, number: int | None) -> TableVersion:
    """Return a snapshot of a table.

    Parameters
    ----------
    metadata
        One of its metadata files.
    number
        The id of the snapshot, with the columns that the table had then; by default the current
        one, with those that it has now.

    Raises
    ------
    ArtifactError
        The library is not installed, the metadata are damaged or know no such snapshot, or rows of
        files are deleted or columns renamed in the metadata alone.
    """
    root, table = metadata.parent.parent, _opened(metadata)
    if number is not None and table.snapshot_by_id(number) is None:
        ids = [str(snapshot.snapshot_id) for snapshot in table.snapshots()]
        raise no_version(root, number, f"snapshots {', '.join(ids[-8:]) or 'none'}")
    scan = table.scan(snapshot_id=number)
    schema = scan.projection()
    tasks = _tasks(root, scan)
    snapshot = scan.snapshot()
    files: dict[Path, Partition] = {
        table.io.local(task.file.file_path): _partition(table, schema, task.file) for task in tasks
    }

    def columns(file: Path, written: pa.Schema) -> pa.Schema:
        return _columns(root, schema.fields, file, written)

    return TableVersion(root.absolute(), snapshot.snapshot_id if snapshot else 0, files, columns)


def _tasks(root: Path, scan: Any) -> list[Any]:
    """Return the data files of a scan, refused where they alone do not say what its rows are."""
    try:
        tasks = list(scan.plan_files())
    except (ValueError, OSError) as error:
        if "equality deletes" in str(error):
            raise unread(root, "equality deletes", f"rewrite its files: {REWRITE}") from error
        raise damaged(root, KIND, error) from error
    deleted = [task.file.file_path for task in tasks if task.delete_files]
    if deleted:
        raise unread(
            root, f"position deletes or deletion vectors: rows of {len(deleted):,} files are "
            f"deleted in files of their own, the first {deleted[0]}",
            f"rewrite these files: {REWRITE}",
        )  # fmt: skip
    others = [task.file for task in tasks if task.file.file_format.value != "PARQUET"]
    if others:
        raise unread(
            root, f"a file of {others[0].file_format.value}: {others[0].file_path}",
            "set write.format.default=parquet, and rewrite its files",
        )  # fmt: skip
    return tasks


def _columns(root: Path, fields: Iterable[Any], file: Path, written: pa.Schema) -> pa.Schema:
    """Return the columns of a file that are the table's: by their ids, where it has any."""
    names, by_id, kept = {field.name for field in fields}, {f.field_id: f for f in fields}, []
    for column in written:
        number = int((column.metadata or {}).get(FIELD_ID, -1))
        field = by_id.get(number)
        if field is not None and field.name != column.name:
            raise unread(
                root, f"a renamed column: {file} still calls {field.name!r} {column.name!r}",
                f"rewrite its files: {REWRITE}",
            )  # fmt: skip
        if field is not None or (number < 0 and column.name in names):
            kept.append(column)
    lacking = names - {column.name for column in kept}
    if given := [f.name for f in fields if f.name in lacking and f.initial_default is not None]:
        raise unread(
            root, f"a default value of the column {given[0]!r}, which {file} lacks",
            f"rewrite its files: {REWRITE}",
        )  # fmt: skip
    return pa.schema(kept, written.metadata)


def _partition(table: Any, schema: Any, file: Any) -> dict[str, str | None]:
    """Return what a file's partition says of whole columns, which files of Hive tables lack."""
    values: dict[str, str | None] = {}
    for index, part in enumerate(table.specs()[file.spec_id].fields):
        name, value = schema.find_column_name(part.source_id), file.partition[index]
        if name is not None and str(part.transform) == "identity":
            kind = schema.find_type(part.source_id)
            values[name] = None if value is None else part.transform.to_human_string(kind, value)
    return values


def _opened(metadata: Path) -> Any:
    root = metadata.parent.parent
    with library_needed(log_needed(root, KIND), "iceberg"):
        from pyiceberg.catalog.noop import NoopCatalog
        from pyiceberg.exceptions import ValidationError
        from pyiceberg.io.pyarrow import PyArrowFileIO
        from pyiceberg.serializers import FromInputFile
        from pyiceberg.table import StaticTable

    class Here(PyArrowFileIO):
        """Finds below the table's folder what the metadata name below its location."""

        def local(self, location: str) -> Path:
            recorded, path = _path(str(self.properties["recorded"])), _path(location)
            if path.startswith(recorded + "/"):
                return root.absolute() / path.removeprefix(recorded + "/")
            if "://" in path:
                raise unread(
                    root, f"a file outside its location: {location}",
                    "copy the table with all its files into one folder",
                )  # fmt: skip
            return Path(path)

        def new_input(self, location: str) -> Any:
            return super().new_input(str(self.local(location)))

    try:
        file = PyArrowFileIO().new_input(str(metadata.absolute()))
        content = FromInputFile.table_metadata(file)
    except (ValueError, OSError, ValidationError) as error:
        raise damaged(root, KIND, error) from error
    return StaticTable(
        identifier=("static-table", str(metadata)),
        metadata=content,
        metadata_location=str(metadata),
        io=Here({"recorded": content.location}),
        catalog=NoopCatalog("static-table"),
    )


def _path(location: str) -> str:
    """Return a location without a final slash, and without the scheme of files."""
    if location.startswith("file:"):
        location = "/" + location.removeprefix("file:").lstrip("/")
    return location.rstrip("/")
