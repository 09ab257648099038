"""The parts that a snapshot names: written, read, and looked up by those who remove parts."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.embeddings import folder as parts_folder
from featurestore.embeddings.matrix import EmbeddingMatrix
from featurestore.embeddings.part import Part
from featurestore.io import cache
from featurestore.snapshots.layout import PART, PARTS, SNAPSHOTS


def write_parts(matrix: EmbeddingMatrix, files: Mapping[str, str], path: Path) -> None:
    """Write the parts of a matrix in the order of their rows.

    Parameters
    ----------
    files
        The names of the files that they were made of, by their own.
    """
    rows = [
        {"part": p.name, "file": files[p.name], "rows": p.rows, "dim": p.dim,
         "storage": p.storage, "content": p.content}
        for p in matrix.parts
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, PART), path)


def read_parts(folder: Path, manifest: Mapping[str, Any]) -> dict[str, list[Part]]:
    """Return the parts of each cohort of a snapshot, by prefix."""
    prefixes = [name.removesuffix("tiles") for name in manifest["cohorts"]]
    return {prefix: _parts(folder / f"{prefix}{PARTS}") for prefix in prefixes}


def _parts(path: Path) -> list[Part]:
    columns = pq.read_table(path).drop_columns(["file"]).to_pydict()
    return [Part(*row) for row in zip(*columns.values(), strict=True)]


def listed_parts(folder: Path) -> list[dict[str, Any]]:
    """Return a snapshot's parts of all cohorts, as rows of `featurestore.snapshots.layout.PART`."""
    return [
        row for file in sorted(folder.glob(f"*{PARTS}")) for row in pq.read_table(file).to_pylist()
    ]


def named_parts() -> set[str]:
    """Return the names of all parts that a snapshot on this machine names."""
    folders = (cache.place(SNAPSHOTS, name) for name in cache.names(SNAPSHOTS))
    files = [file for folder in folders for file in folder.glob(f"*{PARTS}")]
    return {name for file in files for name in pq.read_table(file)["part"].to_pylist()}


def remove_unnamed(names: Iterable[str] | None = None) -> list[Path]:
    """Remove parts that no snapshot names, unless somebody uses such; return their files.

    Parameters
    ----------
    names
        Those to look at; all of them by default.
    """
    asked = None if names is None else set(names)

    def unneeded(existing: list[str]) -> list[str]:
        needed = named_parts()
        return [n for n in existing if n not in needed and (asked is None or n in asked)]

    return parts_folder.remove(unneeded)
