"""From a path to a version of the table that lies there, and the refusal of tables unasked for."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from featurestore.errors import ArtifactError
from featurestore.io import names
from featurestore.io.tables import delta, iceberg
from featurestore.io.tables.version import TableVersion, check_files

VERSION = re.compile(r"(.+)@v(\d+)")
UNREAD = {".hoodie": "Apache Hudi", "_spark_metadata": "Spark Structured Streaming"}
"""Folders beside the files of tables that are not read here."""


def asked(uri: str) -> tuple[str, int | None]:
    """Return a URI without the version that it asks for, and that: ``TABLE@vNUMBER``.

    A path that is there bears its whole name, and ``models:/NAME@v3`` an alias.
    """
    match = VERSION.fullmatch(uri)
    if not match or Path(uri).exists() or re.fullmatch("models:/[^/]+", uri):
        return uri, None
    return match[1], int(match[2])


def table(path: Path, number: int | None) -> TableVersion | None:
    """Return a version of the table that a path names, or None where it names none.

    Parameters
    ----------
    path
        A folder, or one of Iceberg's metadata files.
    number
        The version that is asked for; by default the newest, the same until the command ends.

    Raises
    ------
    ArtifactError
        The table cannot be read, has no such version, or a file of it is not here.
    """
    if delta.is_table(path):
        if number is None:
            number = int(_remembered(path, delta.newest))
        return check_files(delta.read(path, number))
    if iceberg.is_table(path):
        path = Path(_remembered(path, iceberg.newest_metadata))
    if iceberg.is_metadata(path):
        return check_files(iceberg.read(path, number))
    if number is not None:
        raise ArtifactError(
            f"{path} is asked for at version {number}, and is no table that has versions",
            found="neither the log of Delta Lake nor metadata of Iceberg",
            fix=f"name the table's folder, or leave @v{number} out",
        )
    return None


def _remembered(path: Path, newest: Callable[[Path], object]) -> str:
    return names.remembered(("table", str(path.resolve())), lambda: str(newest(path)))


def refuse_within(files: Iterable[Path]) -> None:
    """Refuse files of a table that were found without its log.

    Raises
    ------
    ArtifactError
        There are such.
    """
    places = [place for file in files for place in (file.absolute(), file.resolve())]
    for folder in dict.fromkeys(parent for place in places for parent in place.parents):
        kind = next((kind for name, kind in UNREAD.items() if (folder / name).is_dir()), None)
        fix = "write the table's present rows to plain Parquet files, and name those"
        if delta.is_table(folder) or iceberg.is_table(folder):
            kind = delta.KIND if delta.is_table(folder) else iceberg.KIND
            fix = f"name the table itself: {folder}"
        if kind:
            raise ArtifactError(
                f"{folder} is a table of {kind}, whose log says which files and rows count",
                found="files that the table may have deleted or replaced",
                fix=fix,
            )
