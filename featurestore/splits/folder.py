"""The files of a split: tiles of both sides, the table of groups, and a manifest."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ibis.backends.sql import SQLBackend

from featurestore.backend import engine
from featurestore.backend.errors import translated
from featurestore.errors import ArtifactError, LeakageError
from featurestore.folds.extend import Codes
from featurestore.io import digests
from featurestore.io.progress import Rows
from featurestore.splits.assign import SIDES, TEST
from featurestore.splits.table import FILE
from featurestore.views.folds import KEY

TILES = ("kfold_tiles.parquet", "test_tiles.parquet")
"""By side: names under which the data configurations look for them."""
MANIFEST = "manifest.json"
KIND = "tissue-probe split"
FILES = (*TILES, FILE, MANIFEST)
ROWS = 131_072  # of a row group


@dataclass(frozen=True)
class Sides:
    """Which tiles are on which side.

    Parameters
    ----------
    column
        Of the tiles: the group's, or ``slide_id`` where the group is a column of the slides.
    values
        Its values.
    sides
        The side of each.
    """

    column: str
    values: pa.Array
    sides: Codes

    def of(self, column: pa.Array) -> Codes:
        """Return the side of each of some tiles.

        Raises
        ------
        ArtifactError
            There were other groups when they were counted.
        """
        places = pc.index_in(column, value_set=self.values.cast(column.type))
        if places.null_count:
            raise ArtifactError(
                "The tiles were changed while they were read",
                found=f"{places.null_count:,} tiles of another {self.column} than before",
                fix="run again, once nobody writes there",
            )
        codes: Codes = self.sides[places.to_numpy(zero_copy_only=False)]
        return codes


def check_output(folder: Path) -> None:
    """Refuse a folder that cannot become, or be, that of a split.

    Raises
    ------
    ArtifactError
        There is something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    is_split = read_manifest(folder) is not None
    if not is_split or names - set(FILES):
        others = sorted(names - set(FILES if is_split else ()))
        raise ArtifactError(
            f"{folder} is there already, and holds something else than a split",
            found=", ".join(others[:8]) if folder.is_dir() else "a file",
            fix="name a folder that is not there yet, or that of an earlier split: --to",
        )


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of the split in a folder; None where there is none."""
    try:
        content = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("kind") == KIND else None


def is_whole(folder: Path, lineage: Mapping[str, Any]) -> bool:
    """Return whether a folder holds the files of a split of some lineage as they were written."""
    manifest = read_manifest(folder) or {}
    sums = manifest.get("files")
    return (
        manifest.get("lineage") == lineage
        and isinstance(sums, dict)
        and all((folder / name).exists() for name in FILES)
        and all(digests.sha256(folder / name) == sums.get(name) for name in (*TILES, FILE))
    )


def write_tiles(
    tiles: ir.Table, sides: Sides, written: Mapping[str, str], folder: Path, rows: Rows
) -> None:
    """Write the tiles of both sides in a stream, in the order in which the engine reads them.

    Parameters
    ----------
    tiles
        Of DuckDB, all columns.
    written
        Names of columns in the artifact's files by those of the contract, where these differ.
    """
    with translated():
        total = int(tiles.count().to_pyarrow().as_py())
        batches = tiles.to_pyarrow_batches(chunk_size=ROWS)
    names = [written.get(name, name) for name in batches.schema.names]
    train, test = (_Writer(folder / name) for name in TILES)
    with train, test, rows.counting("tiles", total) as advance:
        while True:
            with translated():
                batch = next(batches, None)
            if batch is None:
                return
            held_out = sides.of(batch.column(sides.column)) == TEST
            named = pa.Table.from_batches([batch]).rename_columns(names)
            train.write(named.filter(pa.array(~held_out)))
            # Tiles to test have no fold: nobody trains on them.
            test.write(_without_fold(named.filter(pa.array(held_out))))
            advance(len(batch))


def _without_fold(tiles: pa.Table) -> pa.Table:
    return tiles.drop_columns(["fold"]) if "fold" in tiles.column_names else tiles


class _Writer:
    """A Parquet file whose row groups are large however few rows come at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer: pq.ParquetWriter | None = None
        self.pending: list[pa.Table] = []

    def write(self, rows: pa.Table) -> None:
        self.pending.append(rows)
        if sum(map(len, self.pending)) >= ROWS:
            self._flush()

    def _flush(self) -> None:
        rows = pa.concat_tables(self.pending)
        self.writer = self.writer or pq.ParquetWriter(self.path, rows.schema, compression="zstd")
        self.writer.write_table(rows)
        self.pending = []

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self.pending:
            self._flush()
        if self.writer is not None:
            self.writer.close()


def check_sides(
    connection: SQLBackend, folder: Path, sides: Sides, written: Mapping[str, str], tiles: int
) -> None:
    """Make sure, in the files, that no tile was lost, and no tile and no group is on both sides.

    Parameters
    ----------
    connection
        Of DuckDB, which reads them.
    sides, written
        As of `write_tiles`.
    tiles
        How many there are.

    Raises
    ------
    LeakageError
        Not so.
    """
    train, test = (
        engine.read_parquet(connection, [folder / name]).rename(dict(written)) for name in TILES
    )
    with translated():
        number = sum(int(side.count().to_pyarrow().as_py()) for side in (train, test))
        shared_tiles = train.semi_join(test, list(KEY)).count().to_pyarrow().as_py()
        values = [side.select(sides.column).distinct().to_pyarrow() for side in (train, test)]
    wrong = [
        f"{SIDES[side]} has one of {sides.column}"
        for side, distinct in enumerate(values)
        if not np.all(sides.of(distinct[sides.column].combine_chunks()) == side)
    ]
    if shared_tiles or wrong or number != tiles:
        raise LeakageError(
            "The split is not one, and was not kept",
            found=f"{number:,} of {tiles:,} tiles written, {shared_tiles:,} of them on both sides"
            + "".join(f"; {text} of the other side" for text in wrong),
            fix="run again, once nobody writes to the tiles; else report it: this is a bug",
        )


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """Write what a split is of, by which rules, what it came to, and the digests of its files."""
    sums = {name: digests.sha256(folder / name) for name in (*TILES, FILE)}
    text = json.dumps({"kind": KIND, **content, "files": sums}, indent=1, default=dict)
    (folder / MANIFEST).write_text(text + "\n")
