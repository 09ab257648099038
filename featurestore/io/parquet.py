"""Parquet artifacts: which files make one up, under which names, and what their footers say.

One reader decides: the files, partitions and schemas found here are what every engine is given. A
partition (``name=value``, as Hive and Spark write folders) counts only below the artifact's own
folder; its value is text. See docs/decisions/023-one-reader.md. Of a table of Delta Lake or Iceberg
its log decides instead (`featurestore.io.tables`).
"""

import io
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.errors import ArtifactError
from featurestore.io import digests, foreign, walk
from featurestore.io.digest_cache import Identity
from featurestore.io.objects import originals
from featurestore.io.tables import find
from featurestore.io.tables.version import Partition, TableVersion
from featurestore.io.uris import local_path

MARK = b"PAR1"
LAST = 8  # bytes: the length of the footer, and the mark
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Fragment:
    """One file of an artifact.

    Parameters
    ----------
    path
        Where it lies, from the root: the working folder may change.
    name
        Its path within the artifact, with ``/``: the same wherever the artifact lies.
    partition
        Values that the folders within the artifact, or a table's log, give to all its rows, by
        column.
    schema, rows
        Of its footer; of a table, the columns that are its own.
    identity
        What the file system, or its store, said of it before it was first read.
    written
        Names of columns in the file, by those under which they are read, where these differ.
    suffixes
        What is taken away from the end of texts, by the column as it is read.
    place
        Of an artifact in several places: which of them it lies in, from 1.
    """

    path: Path
    name: str
    partition: Partition
    schema: pa.Schema
    rows: int
    identity: Identity
    written: Mapping[str, str] = field(default_factory=dict)
    suffixes: Mapping[str, str] = field(default_factory=dict)
    place: int = 1

    def column(self, name: str) -> str:
        """Return the name in the file of a column that is read under a name."""
        return self.written.get(name, name)

    def renamed(self, columns: Mapping[str, str]) -> "Fragment":
        """Return the file with columns read under other names.

        A column that bears such a name itself gives way.

        Parameters
        ----------
        columns
            Names in the file, or of its folders, by those under which they are to be read.
        """
        present = {*self.schema.names, *self.partition}
        written = {name: own for name, own in columns.items() if own in present and name != own}
        if not written:
            return self
        read = {own: name for name, own in written.items()}
        stays = {name: read.get(name, name) for name in present - (written.keys() - read.keys())}
        fields = [f.with_name(stays[f.name]) for f in self.schema if f.name in stays]
        partition = {stays[name]: v for name, v in self.partition.items() if name in stays}
        schema = pa.schema(fields, self.schema.metadata)
        return replace(self, schema=schema, partition=partition, written=written)


@dataclass(frozen=True)
class Dataset:
    """An artifact: its files in order.

    Parameters
    ----------
    fragments
        Every file.
    uri
        What names it: of a table, with the version that was read, whichever was asked for.
    left_out
        Names of Parquet files that are no part of it.
    version
        Of a table: the number of its version.
    """

    fragments: tuple[Fragment, ...]
    uri: str
    left_out: tuple[str, ...] = ()
    version: int | None = None

    @cached_property
    def filled(self) -> tuple[Fragment, ...]:
        """The files with rows: one without, as pandas writes it, has no types to speak of."""
        return tuple(f for f in self.fragments if f.rows) or self.fragments[:1]

    @property
    def files(self) -> list[Path]:
        """The paths of the files with rows, in order."""
        return [fragment.path for fragment in self.filled]

    @property
    def named(self) -> dict[str, Path]:
        """Path by name, of every file: what the artifact's digest is made of.

        A table's names say its version as well, and what its log says of the file; that of a file
        with columns that are read under other names says which, and so do suffixes.
        """
        return {self._name(fragment): fragment.path for fragment in self.fragments}

    def stripped(self, column: str, suffix: str) -> "Dataset":
        """Return it with a suffix to be taken away from the texts of a column, if it has one."""
        if not suffix:
            return self
        fragments = tuple(replace(one, suffixes={column: suffix}) for one in self.fragments)
        return replace(self, fragments=fragments)

    def _name(self, fragment: Fragment) -> str:
        identity: list[object] = [fragment.name]
        if self.version is not None:
            identity += [self.version, fragment.schema.names, fragment.partition]
        if fragment.written:
            identity.append({"written": dict(fragment.written)})
        if fragment.suffixes:
            identity.append({"suffixes": dict(fragment.suffixes)})
        return json.dumps(identity, sort_keys=True) if len(identity) > 1 else fragment.name

    @property
    def identities(self) -> dict[Path, Identity]:
        """What the file system said of every file before it was first read."""
        return {fragment.path: fragment.identity for fragment in self.fragments}

    def fetch(self, unread: bool = False) -> "Dataset":
        """Bring the lists of its files to this machine, where they lie in a store; return it.

        Parameters
        ----------
        unread
            Those alone of whose content nothing is remembered.
        """
        originals.fetch(self.unread if unread else self.identities)
        return self

    @property
    def unread(self) -> list[Path]:
        """The files of whose content nothing is remembered."""
        return [*(self.identities.keys() - digests.remembered(self.identities).keys())]

    @property
    def here(self) -> list[Path]:
        """The files that are on this machine as a whole."""
        return [*(self.identities.keys() - originals.lacking(self.identities).keys())]

    def digest(self, remember: bool = True) -> str:
        """Return its SHA-256; a file of a store that nothing is remembered of is fetched for it.

        Raises as `fetch`, and as `featurestore.io.digests.digest`.
        """
        return digests.digest(self.fetch(unread=True).named, remember)

    @property
    def columns(self) -> list[str]:
        """Names of the columns, the first file's order, then those of partitions and others."""
        names = dict.fromkeys(name for f in self.filled for name in f.schema.names)
        return list(names | dict.fromkeys(name for f in self.filled for name in f.partition))


def dataset(uri: str, columns: Mapping[str, str] | None = None, outlined: bool = False) -> Dataset:
    """Return the artifact behind a URI: a file, a folder with all below it, a glob, or a table.

    Links to files and folders are followed. Below a folder, names that begin with ``_`` or ``.``
    are left out, and files that are Parquet without being called so. A table of Delta Lake or
    Iceberg is its newest version, or that of ``TABLE@vNUMBER``.

    Parameters
    ----------
    columns
        Names of columns in the files by those under which they are read, see `Fragment.renamed`.
    outlined
        Whether lists may stay in an object store until `Dataset.fetch` brings them.

    Raises
    ------
    ArtifactError
        There is no Parquet file, one is not whole, or the folder is a table of Hudi or a stream,
        or a part of a table; or as `featurestore.io.tables.find.table`.
    """
    located = _found(uri, outlined)
    renamed = tuple(fragment.renamed(columns or {}) for fragment in located.fragments)
    return replace(located, fragments=renamed)


def _found(uri: str, outlined: bool) -> Dataset:
    bare, number = find.asked(uri)
    path = Path(local_path(bare, outlined))
    if table := find.table(path, number):
        fragments = _opened(table.root, sorted(table.files), table)
        return Dataset(fragments, f"{bare}@v{table.number}", version=table.number)
    try:
        root, places = walk.matches(path)
        files, left_out = walk.walked(root, places, path.parts)
    except (OSError, UnicodeError) as error:
        raise ArtifactError(
            f"{uri} cannot be read",
            found=f"{getattr(error, 'filename', None) or uri}: "
            + (getattr(error, "strerror", None) or str(error)),
            fix="correct the name, ask for the right to read it, or name another place",
        ) from error
    if not files:
        raise ArtifactError(
            f"There is no Parquet file at {uri}",
            found=_neighbours(path),
            fix=foreign.advice(path) or "correct the URI: a file, a folder of *.parquet or a glob",
        )
    find.refuse_within(files)
    return Dataset(_opened(root, files), uri, tuple(left_out))


def parquet_files(uri: str) -> list[Path]:
    """Return the paths of the files behind a URI; raises as `dataset`."""
    return [fragment.path for fragment in dataset(uri).fragments]


def _opened(
    root: Path, files: list[Path], table: TableVersion | None = None
) -> tuple[Fragment, ...]:
    def opened(file: Path) -> Fragment:
        name = file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)
        identity, footer = _footer(file)
        schema = _schema(footer)
        if table is None:
            partition = _partition(name)
        else:
            schema = table.columns(file, schema)
            partition = {n: v for n, v in table.files[file].items() if n not in schema.names}
        return Fragment(file.absolute(), name, partition, schema, footer.num_rows, identity)

    with ThreadPoolExecutor() as pool:
        return tuple(pool.map(opened, files))


def _schema(footer: pq.FileMetaData) -> pa.Schema:
    """Return the columns that Arrow has a type for.

    Shapes, as Parquet's own GEOMETRY, are left out: no rule reads them, and not every engine can.
    """
    leaves = (footer.schema.column(number) for number in range(len(footer.schema)))
    unknown = {
        leaf.path
        for leaf in leaves
        if leaf.logical_type.type == "UNKNOWN" and leaf.physical_type == "BYTE_ARRAY"
    }
    schema = footer.schema.to_arrow_schema()
    return pa.schema([field for field in schema if field.name not in unknown], schema.metadata)


def _partition(name: str) -> dict[str, str | None]:
    """Return what the folders of a name say, as Hive and Spark write it."""
    values: dict[str, str | None] = {}
    for part in PurePosixPath(name).parts[:-1]:
        key, sign, value = part.partition("=")
        if sign and key:
            text = None if value == NULL_PARTITION else unquote(value)
            if values.setdefault(unquote(key), text) != text:
                raise ArtifactError(
                    f"Folders give {unquote(key)} two values",
                    found=name,
                    fix="rename one of the folders",
                )
    return values


def read_footer(file: Path) -> pq.FileMetaData:
    """Return the footer of a Parquet file, of which nothing else is read.

    pyarrow reads the last 64 KiB of whatever file, most of what many small files hold.

    Raises
    ------
    OSError, pa.ArrowException
        As `pyarrow.parquet.read_metadata`, of a file that is not whole.
    """
    with file.open("rb") as source:
        size = source.seek(0, io.SEEK_END)
        source.seek(max(size - LAST, 0))
        length, mark = source.read(4), source.read(4)
        start = size - LAST - int.from_bytes(length, "little")
        if mark == MARK and start >= len(MARK):
            source.seek(start)
            end = source.read(size - start)
            return pq.read_metadata(pa.BufferReader(MARK + end))
    return pq.read_metadata(file)


def _footer(file: Path) -> tuple[Identity, pq.FileMetaData]:
    if not file.is_file():
        raise ArtifactError(
            f"{file} is no file", found="a pipe, a device or a link to what is not there",
            fix="write a Parquet file there",
        )  # fmt: skip
    try:
        return digests.identity(file), read_footer(file)
    except PermissionError as error:
        raise ArtifactError(
            f"{file} cannot be read", found=str(error.strerror), fix="ask for the right to read it"
        ) from error
    except UnicodeError as error:
        raise ArtifactError(
            f"{file!r} has a name that is not UTF-8", found=str(error), fix="rename it"
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise ArtifactError(
            f"{file} is {foreign.unread(file)}",
            found=f"{file.stat().st_size if file.exists() else 'no'} bytes; "
            + str(error).splitlines()[0],
            fix=foreign.advice(file) or "write or copy the file again",
        ) from error


def _neighbours(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        return f"no folder {folder}"
    names = sorted(entry.name for entry in folder.iterdir())
    return f"in {folder}: {', '.join(names[:8]) or 'nothing'}"
