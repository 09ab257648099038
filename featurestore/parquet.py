"""Parquet artifacts: which files make one up, and what their footers say."""

import glob
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.errors import ArtifactError
from featurestore.uris import local_path


def parquet_files(uri: str) -> list[Path]:
    """Return the Parquet files behind a URI, sorted, each with a readable footer.

    Raises
    ------
    ArtifactError
        There is none, or one is not whole.
    """
    path = local_path(uri)
    if Path(path).is_dir():
        files = sorted(Path(path).rglob("*.parquet"))
    elif Path(path).exists():
        files = [Path(path)]
    else:
        # Path.glob takes no absolute pattern.
        files = sorted(Path(m) for m in glob.glob(path, recursive=True))  # noqa: PTH207
    if not files:
        raise ArtifactError(
            f"There is no Parquet file at {uri}",
            found=_neighbours(Path(path)),
            fix="correct the URI: a file, a folder of *.parquet or a glob",
        )
    for file in files:
        columns(file)
    return files


def columns(file: Path) -> list[str]:
    """Return the column names of a Parquet file, read from its footer.

    Raises
    ------
    ArtifactError
        The file is not Parquet, or is cut off.
    """
    try:
        return list(pq.read_schema(file).names)
    except (pa.ArrowException, OSError) as error:
        raise ArtifactError(
            f"{file} is not a whole Parquet file",
            found=f"{file.stat().st_size} bytes; {str(error).splitlines()[0]}",
            fix="write or copy the file again",
        ) from error


def _neighbours(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        return f"no folder {folder}"
    names = sorted(entry.name for entry in folder.iterdir())
    return f"in {folder}: {', '.join(names[:8]) or 'nothing'}"
