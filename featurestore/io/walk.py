"""Which files a path or glob names: those of a folder, and whether they are Parquet."""

import errno
import glob
import os
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from pathlib import Path

SUFFIXES = (".parquet", ".pq", ".parq")
MAGIC = (b"PAR1", b"PARE")  # at the beginning of every Parquet file; the second is encrypted
HIDDEN = ("_", ".")  # names that begin so are left out, as Spark, pyarrow and Hive do
SIGNS = frozenset("*?[")


def matches(path: Path) -> tuple[Path, list[Path]]:
    """Return an artifact's own folder, and the files and folders that a path or glob names."""
    if path.is_dir():
        return path, [path]
    if path.exists():
        return path.parent, [path]
    fixed = Path()
    for part in path.parts[:-1]:
        if SIGNS & set(part) and not (fixed / part).exists():  # a folder may be called data[1]
            break
        fixed /= part
    pattern = path.relative_to(fixed).as_posix()
    # Path.glob leaves no link to a folder out of `**`, and takes no account of hidden names.
    matches = glob.glob(pattern, root_dir=fixed, recursive=True)  # noqa: PTH207
    return fixed, sorted(fixed / match for match in matches)


def walked(
    root: Path, places: Iterable[Path], written: Collection[str]
) -> tuple[list[Path], list[str]]:
    """Return the Parquet files of some places, in order, and the names of those left out.

    Parameters
    ----------
    written
        The names of which the URI is made.
    """
    files: dict[Path, None] = {}
    left_out: dict[str, None] = {}
    for place in places:
        # A name that the URI writes out is asked for; one that a sign of a glob matches is not.
        hidden = place.name not in written and _is_hidden(place.relative_to(root))
        for file, counts in _below(place) if place.is_dir() else [(place, True)]:
            if counts and not hidden:
                files[file] = None
            else:
                left_out[file.relative_to(root).as_posix()] = None
    return sorted(files), sorted(left_out.keys() - {f.relative_to(root).as_posix() for f in files})


def _is_hidden(name: Path) -> bool:
    return any(part.startswith(HIDDEN) for part in name.parts)


def _below(folder: Path, above: frozenset[str] = frozenset()) -> Iterator[tuple[Path, bool]]:
    """Yield the Parquet files below a folder, and whether they count; links are followed."""
    real = os.path.realpath(folder)
    if real in above:  # a link that leads up
        return
    for entry in sorted(folder.iterdir()):
        if not entry.exists() and not entry.name.startswith(HIDDEN):
            raise FileNotFoundError(errno.ENOENT, "a link to what is not there", str(entry))
        if entry.is_dir() and not entry.name.startswith(HIDDEN):
            yield from _below(entry, above | {real})
        elif entry.is_dir():
            yield from ((file, False) for file, _ in islice(_below(entry, above | {real}), 1))
        elif entry.suffix.lower() in SUFFIXES:
            yield entry, not entry.name.startswith(HIDDEN)
        elif _is_parquet(entry):
            yield entry, False


def _is_parquet(file: Path) -> bool:
    if not file.is_file():  # a pipe would be waited for
        return False
    with file.open("rb") as stream:
        return stream.read(4) in MAGIC
