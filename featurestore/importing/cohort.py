"""A tool's output becomes artifacts: one Parquet file a slide, and a table of the slides."""

import json
import shutil
import tempfile
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.errors import (
    ArtifactError,
    ConfigError,
    EmbeddingError,
    FeatureStoreWarning,
    SchemaError,
    os_errors_refused,
)
from featurestore.importing.geometry import Placement, placement_of
from featurestore.importing.parquet_file import (
    RECORD,
    SlideFile,
    check_coordinates,
    file_name,
    is_whole,
    read_record,
)
from featurestore.importing.registry import reader
from featurestore.importing.slide import Request, Slide
from featurestore.importing.write_behind import WriteBehind
from featurestore.io import atomic, digests, locks, preflight
from featurestore.io.progress import Rows
from featurestore.printing import counted

EMBEDDINGS, SLIDES = "embeddings", "slides.parquet"
LOCK, BUILDING = ".import.lock", ".building-"
REVISION = 1  # of what an import writes: another one makes every slide anew


@dataclass(frozen=True)
class Imported:
    """What an import left: where, how many slides and tiles, and what x and y are.

    Parameters
    ----------
    folder
        With ``embeddings/`` and ``slides.parquet``.
    slides, tiles
        Of the source.
    written
        Slides that were not there already.
    units
        Of what x and y are pixels; several where slides differ.
    """

    folder: Path
    slides: int
    tiles: int
    written: int
    units: tuple[str, ...]


def import_slides(
    request: Request, to: Path, *, skip_empty: bool = False, rows: Rows | None = None
) -> Imported:
    """Write what a tool has written as artifacts.

    A slide that is there already, made of the same files by the same options, is not made again:
    what only its row of the table of slides says anew, as its spacing, leaves its file as it is.

    Parameters
    ----------
    request
        What to read.
    to
        The folder of the artifacts.
    skip_empty
        Leave slides without tiles out, rather than refuse them.
    rows
        The bar to show.

    Raises
    ------
    FeatureStoreError
        A file is not whole, has another number of coordinates than of embeddings, embeddings of
        another length or encoder than the rest, values that are not finite, or no tile; or two
        files are of one slide. All but what is among the values of embeddings is found before
        anything is written; slides that were whole until then stay.
    """
    preflight.check_folder(to, "name a folder elsewhere: --to FOLDER")
    if to.resolve().is_relative_to(request.source.resolve()):
        raise ConfigError(
            f"{to} lies within {request.source}, where the next import would find it",
            found=f"--to {to}",
            fix="name a folder elsewhere: --to FOLDER",
        )
    with (
        os_errors_refused(f"{to} could not be written", "make room, or name a folder elsewhere"),
        locks.exclusive(to / LOCK),
    ):
        for left_over in to.glob(f"{BUILDING}*"):  # of an import that was killed
            shutil.rmtree(left_over, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=BUILDING, dir=to) as folder:
            return _import(
                replace(request, scratch=Path(folder)), to, skip_empty, rows or Rows(None)
            )


def _import(request: Request, to: Path, skip_empty: bool, rows: Rows) -> Imported:
    slides = _with_tiles(reader(request.format)(request), skip_empty)
    placements = [placement_of(slide, request) for slide in slides]
    files = [to / EMBEDDINGS / file_name(slide.slide_id) for slide in slides]
    records = _records(slides, placements, request)
    existing = {file: read_record(file) for file in sorted((to / EMBEDDINGS).glob("*.parquet"))}
    _check_alike(slides, {file: existing[file] for file in existing.keys() - set(files)})
    if not request.replace:
        _check_replaced({file: (existing[file], record)
                         for file, record in zip(files, records, strict=True)
                         if file in existing})  # fmt: skip
    missing = {
        number
        for number, (file, record) in enumerate(zip(files, records, strict=True))
        if _content(existing.get(file)) != _content(record)
    }
    tiles = sum(slide.rows for slide in slides)
    sources = {id(slide.files): slide.files for slide in slides}  # which slides of a table share
    before = digests.identities(file for some in sources.values() for file in some)
    for number in sorted(missing):
        check_coordinates(slides[number], placements[number])
    with rows.counting(request.format, tiles) as done, WriteBehind() as behind:
        for number, slide in enumerate(slides):
            if number in missing:
                writer = SlideFile(slide, placements[number], records[number])
                writer.write(request.scratch, files[number], behind, done)
            else:
                done(slide.rows)
    digests.confirm(before)  # a slide whose file was changed is made again, by its record
    existing |= dict(zip(files, records, strict=True))
    latest = {row["id"]: row for row in [*_read_slides(to / SLIDES), *_slides(records)]}
    imported = _slides(existing[file] for file in sorted(existing) if existing[file])
    _write_slides([latest.get(row["id"], row) for row in imported], to / SLIDES, request)
    units = tuple(dict.fromkeys(placement.units for placement in placements))
    return Imported(to, len(slides), tiles, len(missing), units)


def _with_tiles(slides: Sequence[Slide], skip_empty: bool) -> list[Slide]:
    """Return the slides that have tiles, each once, by the names that readers read."""
    by_name: dict[str, Slide] = {}
    for slide in slides:
        name = unicodedata.normalize("NFC", slide.slide_id)
        if not name:
            raise SchemaError(
                f"{slide.files[0]} names no slide", found="an empty name", fix="name it"
            )
        if name in by_name:
            raise SchemaError(
                f"Two files are of one slide, {name}",
                found=f"{by_name[name].files[0]} and {slide.files[0]}",
                fix="remove one, import one folder at a time, or tell them apart by --slide-id",
            )
        by_name[name] = replace(slide, slide_id=name)
    empty = [slide for slide in by_name.values() if not slide.rows]
    if empty and not skip_empty:
        raise SchemaError(
            f"{empty[0].files[0]} has no tiles",
            found=f"{len(empty):,} of {len(by_name):,} slides without tiles",
            fix="leave them out: --skip-empty; or compute their features again",
        )
    if empty:
        names = ", ".join(slide.slide_id for slide in empty[:3])
        warnings.warn(
            f"{len(empty):,} slides have no tiles and are left out: {names}",
            FeatureStoreWarning,
            stacklevel=4,
        )
    with_tiles = [slide for slide in by_name.values() if slide.rows]
    if not with_tiles:
        raise SchemaError("No slide has tiles", found=f"{len(empty):,} slides", fix="name others")
    return with_tiles


def _check_alike(slides: Sequence[Slide], existing: dict[Path, dict[str, Any]]) -> None:
    """Refuse embeddings that are no numbers, or of several encoders, there as well."""
    for slide in slides:
        if slide.dtype.kind not in "fiu" or not slide.dim:
            raise EmbeddingError(
                f"{slide.files[0]} does not hold embeddings",
                found=f"{slide.dim} values a tile, of type {slide.dtype}",
                fix="name the tool's embeddings of tiles",
            )
    are = [(slide.files[0], slide.dim, slide.attributes.get("encoder")) for slide in slides]
    are += [(f, r["dim"], r["slide"].get("encoder")) for f, r in existing.items() if r]
    for what, values in (
        ("length", [(file, dim) for file, dim, _ in are]),
        ("encoder", [(file, encoder) for file, _, encoder in are if encoder]),
    ):
        for file, value in values:
            if value != values[0][1]:
                raise EmbeddingError(
                    f"{file} has embeddings of another {what} than {values[0][0]}",
                    found=f"{value} and {values[0][1]}",
                    fix="import the output of one encoder at a time, each into a folder of its own",
                )


def _check_replaced(pairs: Mapping[Path, tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """Refuse to replace slides of another tool or encoder, and files of no import.

    Parameters
    ----------
    pairs
        By file, what it was made of and what it would be made of.

    Raises
    ------
    ArtifactError
        There are some.
    """
    foreign: dict[str, list[Path]] = defaultdict(list)
    for file, (before, now) in pairs.items():
        if before and _made_by(before) != _made_by(now):
            foreign[_described(before)].append(file)
        elif not before and is_whole(file):
            foreign["of no import"].append(file)
    if foreign:
        files = [file for some in foreign.values() for file in some]
        counts = ", ".join(
            f"{counted(len(some), 'slide')} {what}" for what, some in foreign.items()
        )
        raise ArtifactError(
            f"{len(files):,} of the slides are in {files[0].parent} already, and not of this tool "
            "and encoder",
            found=f"{counts}; the first: {files[0].name}",
            fix="name another folder, --to FOLDER, or replace them: --replace",
        )


def _content(record: dict[str, Any] | None) -> dict[str, Any]:
    """Return what decides the rows of a slide's file: all of its record but the slide's own row."""
    return {**record, "slide": record["slide"].get("encoder")} if record else {}


def _made_by(record: dict[str, Any]) -> tuple[Any, ...]:
    return record.get("format"), record["slide"].get("encoder"), record["dim"]


def _described(record: dict[str, Any]) -> str:
    tool, encoder, dim = _made_by(record)
    encoded = f"embeddings of {encoder}" if encoder else "embeddings"
    return f"of {tool} ({encoded}: {dim:,} numbers a tile)"


def _records(
    slides: Iterable[Slide], placements: Iterable[Placement], request: Request
) -> list[dict[str, Any]]:
    """Return of each slide what its file is made of, and its row of the table of slides."""
    stamps: dict[int, str] = {}  # by the tuple of files, which slides of a table share
    options = {f.name: getattr(request, f.name) for f in fields(request)
               if f.name in ("format", "columns", "save_every")}  # fmt: skip
    records = []
    for slide, placement in zip(slides, placements, strict=True):
        if id(slide.files) not in stamps:
            named = {f"{number}:{file.name}": file for number, file in enumerate(slide.files)}
            stamps[id(slide.files)] = digests.stamp(named)
        attributes = {k: v for k, v in slide.attributes.items() if v is not None}
        row = {"id": slide.slide_id, **placement.row, "source": request.format, **attributes}
        made_of = {"revision": REVISION, "scale": placement.scale, **options}
        record = {"files": stamps[id(slide.files)], "dim": slide.dim, "slide": row, **made_of}
        records.append(json.loads(json.dumps(record)))  # as it is read again
    return records


def _slides(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record["slide"] for record in records]


def _read_slides(file: Path) -> list[dict[str, Any]]:
    """Return the rows that the last import has written; none of a table that no import wrote."""
    rows: list[dict[str, Any]] = read_record(file).get("slides", [])
    return rows


def _write_slides(rows: Sequence[dict[str, Any]], file: Path, request: Request) -> None:
    """Write the table of slides: the columns of which every slide's file says something.

    The rows whole stand beside them, for the imports to come.
    """
    names = [name for name in rows[0] if all(row.get(name) is not None for row in rows)]
    fresh = request.scratch / SLIDES
    table = pa.table(
        {name: pa.array([row[name] for row in rows]) for name in names},
        metadata={RECORD: json.dumps({"slides": rows})},
    )
    pq.write_table(table, fresh)
    atomic.publish(fresh, file)
