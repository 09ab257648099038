"""One version of a table: what its log says, whichever format the log is in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from featurestore.errors import ArtifactError

Partition = Mapping[str, str | None]
"""Values that all rows of a file have, by column, as text."""


@dataclass(frozen=True)
class TableVersion:
    """The files of a table as they count in one version.

    Parameters
    ----------
    root
        The table's folder.
    number
        Delta Lake's version, or Iceberg's snapshot id.
    files
        What the log gives to the rows of each file that counts.
    columns
        Of a file's name and schema: the columns in it that are the table's.
    """

    root: Path
    number: int
    files: Mapping[Path, Partition]
    columns: Callable[[Path, pa.Schema], pa.Schema]


def log_needed(root: Path, kind: str) -> str:
    """Return why a table cannot be read without the library of its format, in words."""
    return f"{root} is a table of {kind}, whose log says which files and rows count"


def unread(root: Path, what: str, fix: str) -> ArtifactError:
    """Return the refusal of a table of which more than whole files must be known to read it.

    Parameters
    ----------
    what
        The feature of the format that it uses, and where.
    fix
        How to rewrite it.
    """
    return ArtifactError(f"The table {root} cannot be read as its files are", found=what, fix=fix)


def damaged(root: Path, kind: str, error: Exception) -> ArtifactError:
    """Return the refusal of a table whose log cannot be read."""
    lines = str(error).splitlines() or [type(error).__name__]
    return ArtifactError(
        f"The log of the table {root} cannot be read",
        found=f"{kind}: {lines[0]}",
        fix="copy the whole table again, its log included, or name one that is whole",
    )


def no_version(root: Path, asked: int, there: str) -> ArtifactError:
    """Return the refusal of a version that a table does not have.

    Parameters
    ----------
    there
        Which ones it has.
    """
    return ArtifactError(
        f"The table {root} has no version {asked}",
        found=there,
        fix="name one of them, or leave @v... out for the newest",
    )


def check_files(version: TableVersion) -> TableVersion:
    """Return a version whose files are all here.

    Raises
    ------
    ArtifactError
        One is not, or there is none.
    """
    if not version.files:
        raise ArtifactError(
            f"The table {version.root} has no row",
            found=f"version {version.number} without a file",
            fix="write rows to it, or name an earlier version: TABLE@vNUMBER",
        )
    for file in version.files:
        if not file.exists():
            raise ArtifactError(
                f"A file of the table {version.root} is not there",
                found=f"version {version.number} names {file}",
                fix="name a version that is not vacuumed or expired, or copy the whole table again",
            )
    return version
