"""Predictions in a file a slide: where they lie, and how they are read."""

import hashlib
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from featurestore.errors import ArtifactError, os_errors_refused
from featurestore.io import atomic
from featurestore.views.folds import KEY

FOLDER = "predictions"


MANIFEST = "_manifest.json"  # readers of such folders pass over names that begin so


UNFINISHED = ".unfinished"


FORMAT = 3  # of the folder; 1 were folders of Hive, see `NAMES`, 2 had no names of classes


NAMES = ds.HivePartitioning(pa.schema([("slide_id", pa.string())]), null_fallback="/")
"""What names meant in `slide_id=NAME/tiles.parquet`: text, none of them a number or missing."""


READABLE = 32  # characters of a name in that of its file


def digest(manifest: dict[str, Any]) -> str:
    """Return the SHA-256 of what determines some predictions."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def recorded(folder: Path) -> dict[str, Any] | None:
    """Return what determined the predictions in a folder; None if it is no such folder.

    Of a manifest that is damaged it is nothing: such predictions are nobody's, and are replaced.
    """
    file = folder / MANIFEST
    if not file.exists():
        return None
    try:
        return dict(json.loads(file.read_bytes()))
    except (ValueError, TypeError):
        return {}


def check_same(folder: Path, manifest: dict[str, Any]) -> None:
    """Refuse to go on with predictions of something else.

    Raises
    ------
    ArtifactError
        There are none, or something differs.
    """
    earlier = recorded(folder)
    if earlier is None:
        raise ArtifactError(
            "There is nothing to resume",
            found=f"no predictions in {folder}",
            fix="leave resume=true out, or give the arguments of the command that was killed",
        )
    unlike = [name for name in manifest if earlier.get(name) != manifest[name]]
    if unlike:
        raise ArtifactError(
            f"The predictions in {folder} were made of something else",
            found=f"another {', '.join(unlike)}",
            fix="leave resume out to replace them, or name another output",
        )


def check_replaceable(folder: Path) -> None:
    """Refuse to replace what are no predictions.

    Raises
    ------
    ArtifactError
        The folder is there and holds something else.
    """
    if folder.exists() and recorded(folder) is None and any(folder.iterdir()):
        raise ArtifactError(
            f"{folder} is there, and is no folder of predictions",
            found=", ".join(sorted(entry.name for entry in folder.iterdir())[:4]),
            fix="remove it, or name another output",
        )


def rows(folder: Path, slide: str) -> int | None:
    """Return the number of predictions of a slide; None if they are not there, or cut."""
    try:
        return pq.read_metadata(folder / file_name(slide)).num_rows
    except (OSError, pa.ArrowException):
        return None


def whole_rows(folder: Path, slide: str, columns: Collection[str]) -> int | None:
    """Return `rows` after reading every byte; None if one is not what was written.

    Parameters
    ----------
    columns
        Names that are there; they have no checksum.
    """
    file = folder / file_name(slide)
    try:
        table = pq.ParquetFile(file, page_checksum_verification=True).read()
    except (OSError, pa.ArrowException, ValueError):
        return None
    return len(table) if set(columns) <= set(table.column_names) else None


def read(folder: Path, chosen: ds.Expression | None = None) -> pa.Table:
    """Return predictions: ``slide_id, x, y, target, pred, predicted, prob_<class>``, by key.

    Parameters
    ----------
    chosen
        Which ones; all by default.
    """
    table = dataset(folder, sorted(folder.glob("*.parquet"))).to_table(filter=chosen)
    return table.sort_by([(name, "ascending") for name in KEY])


def dataset(folder: Path, files: Sequence[Path]) -> ds.Dataset:
    """Return the predictions in some files of a folder, in this layout or the one before."""
    inside = "slide_id" in pq.read_schema(files[0]).names
    names = [str(file) for file in files]
    if inside:
        return ds.dataset(names, format="parquet")
    return ds.dataset(names, format="parquet", partitioning=NAMES, partition_base_dir=str(folder))


def of_slide(predicted: ds.Dataset, slide: str) -> ds.Dataset:
    """Return what holds the predictions of a slide: its file, where it has one, else all."""
    if isinstance(predicted, ds.FileSystemDataset):
        file = Path(next(predicted.get_fragments()).path).with_name(file_name(slide))
        if file.exists():
            return ds.dataset(str(file), format="parquet", schema=predicted.schema)
    return predicted


def file_name(slide: str) -> str:
    """Return the name of a slide's file, which no other slide's is on any disk.

    What is readable of the slide's name, and a digest that tells case, Unicode's forms and the
    rest apart. Nothing in it means anything to readers: the slide's name stands in the file.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", slide.lower())[:READABLE].strip("-")
    digest = hashlib.sha256(slide.encode()).hexdigest()[:16]
    return "-".join(filter(None, [plain, digest])) + ".parquet"


def put(file: Path, content: pa.Buffer) -> None:
    """Write a file by rename, in its own folder: a temporary one takes longer than the writing."""
    fresh = file.with_name(file.name + UNFINISHED)
    fix = "make room, and go on with resume=true; or name another output"
    with os_errors_refused(f"{file} could not be written", fix):
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(content)
        atomic.publish(fresh, file)
