"""Files of annotations: which there are, whose slide each is of, and what it holds."""

import glob
import gzip
import re
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote
from xml.etree.ElementTree import ParseError

from featurestore.annotations import asap, geojson
from featurestore.annotations.annotation import Annotation, AnnotationError
from featurestore.errors import os_errors_refused
from featurestore.io.uris import local_path
from featurestore.spec.typed import composed

READERS = {"geojson": geojson.read, "json": geojson.read, "xml": asap.read}
SUFFIX = re.compile(rf"\.({'|'.join(READERS)})(\.gz)?$", re.IGNORECASE)
FORMATS = "GeoJSON of QuPath (.geojson, .json) or XML of ASAP (.xml), each also as .gz"


def find(uris: Iterable[str]) -> list[Path]:
    """Return the files of annotations that URIs name: files, globs, and folders with all below.

    Raises
    ------
    AnnotationError
        There is none, or a file has a name of another format.
    """
    uris = list(uris)
    files: dict[Path, None] = {}
    for uri in uris:
        path = Path(local_path(uri))
        # Path.glob takes no absolute pattern.
        places = [path] if path.exists() else map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207
        for place in sorted(places):
            below = (file for file in sorted(place.rglob("*")) if SUFFIX.search(file.name))
            files |= dict.fromkeys(below if place.is_dir() else [place])
    for file in files:
        if not SUFFIX.search(file.name):
            raise AnnotationError(
                f"{file} is no file of annotations, by its name", found=file.name,
                fix=f"name {FORMATS}",
            )  # fmt: skip
    if not files:
        raise AnnotationError(
            f"There are no annotations at {' '.join(uris)}", found="no file",
            fix=f"name files, a folder or a glob: {FORMATS}",
        )  # fmt: skip
    return list(files)


def by_slide(
    files: Iterable[Path], pattern: str | None, slides: Collection[str] | None
) -> dict[str, list[Path]]:
    """Return the files of each slide, which the names of files tell.

    Parameters
    ----------
    pattern
        A regular expression that is searched for in a file's name without its format: its first
        group, or all of it, is the slide. The whole name by default.
    slides
        Those that there are. A name that is not among them may be percent-encoded, as this
        project's own maps are.

    Raises
    ------
    AnnotationError
        The pattern is none, or a name does not match it.
    """
    try:
        matcher = re.compile(pattern or "^.*$", re.DOTALL)
    except re.error as error:
        raise AnnotationError(
            f"--slide-id {pattern} is no regular expression", found=str(error),
            fix=r"write for example --slide-id '(.+)\.svs'",
        ) from error  # fmt: skip
    known = set(slides or ())
    files_of = defaultdict(list)
    for file in files:
        stem = SUFFIX.sub("", file.name)
        match = matcher.search(stem)
        if not match:
            raise AnnotationError(
                f"The name of {file} does not say which slide it is of", found=stem,
                fix=f"correct --slide-id {pattern}",
            )  # fmt: skip
        name = composed(match[1] if matcher.groups else match[0])
        plain = composed(unquote(name))
        files_of[plain if name not in known and plain in known else name].append(file)
    return dict(files_of)


def read(files: Iterable[Path]) -> list[Annotation]:
    """Return what files hold, one after another.

    Raises
    ------
    AnnotationError
        One of them is not what its name says.
    """
    return [annotation for file in files for annotation in _read(file)]


def _read(file: Path) -> list[Annotation]:
    match = SUFFIX.search(file.name)
    assert match, file
    try:
        with os_errors_refused(f"{file} cannot be read", "ask for the right to read it"):
            content = file.read_bytes()
        content = gzip.decompress(content) if match[2] else content
        return list(READERS[match[1].lower()](content))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
    except (ParseError, OSError, EOFError, zlib.error) as error:
        reason = str(error)
    raise AnnotationError(
        f"{file} holds no annotations that can be read",
        found=" ".join(reason.split())[:200],
        fix=f"export it again: {FORMATS}",
    )


def match(files_of: Mapping[str, object], slides: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the slides without a file, and the names of slides of which there are only files."""
    names = set(slides)
    return sorted(names - set(files_of)), sorted(set(files_of) - names)
