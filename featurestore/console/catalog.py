"""The views as a documented DuckDB file that any client opens: the views alone, no data."""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

from featurestore.backend import engine
from featurestore.console import outputs
from featurestore.console.settings import open_store
from featurestore.errors import ArtifactError, os_errors_refused
from featurestore.io.atomic import publish
from featurestore.printing import say
from featurestore.store import FeatureStore
from featurestore.views.catalogue import column_notes, describe_view

MAGIC, CHECKSUM = b"DUCK", 8  # the first word of a DuckDB file, behind so many bytes


@dataclass(frozen=True)
class Catalog:
    """A DuckDB file of views.

    Parameters
    ----------
    path
        Of the file.
    views
        Their names.
    files
        Parquet files that the views read.
    """

    path: Path
    views: list[str]
    files: list[Path]


def run(options: argparse.Namespace) -> None:
    """Write the views as a DuckDB file."""
    written = write(open_store(options), options.path)
    say(f"{written.path}: {len(written.views)} views")


def write(store: FeatureStore, path: Path) -> Catalog:
    """Write the views of a store's spec to a DuckDB file.

    Readers of an earlier file keep it; the new one takes its name when it is whole.

    Raises
    ------
    ArtifactError
        The file cannot be written, is of an artifact, or is there and is none of DuckDB's.
    """
    outputs.check(store, path)
    fix = "name a file in a folder that can be written"
    with os_errors_refused(f"{path} could not be written", fix):
        if path.is_file() and not _is_catalog(path):
            raise ArtifactError(
                f"{path} is there already, and is no DuckDB file",
                found=f"{path.stat().st_size:,} bytes of something else",
                fix="name a file that is not there yet, for example feature_views.duckdb",
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".building-", dir=path.parent) as folder:
            building = Path(folder) / path.name
            filed = FeatureStore(store.spec, store.threads, database=building)
            filed.add_runs(*store.runs)
            names = [name for name, _ in filed.name_views()]
            for name in names:
                notes = column_notes(filed.connection.table(name).columns)
                engine.comment(filed.connection, name, describe_view(name), notes)
            filed.sources.confirm()
            engine.close(filed.connection)
            publish(building, path)
    return Catalog(path, names, filed.files)


def _is_catalog(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(CHECKSUM + len(MAGIC))[CHECKSUM:] == MAGIC
