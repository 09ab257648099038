"""What lies below a folder: Parquet by what it can be, what other tools wrote, annotations.

A folder whose own Parquet files are of one kind is one artifact; ``test`` in a name tells held-out
tiles from the others. Only footers are read.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from featurestore.discovery.kinds import TILES, kinds_of
from featurestore.errors import ConfigError, os_errors_refused
from featurestore.io import foreign, parquet
from featurestore.io.parquet import Dataset
from featurestore.io.tables import delta, iceberg
from featurestore.io.uris import local_path
from featurestore.io.walk import HIDDEN, SUFFIXES
from featurestore.spec.places import is_path

DEPTH = 8  # folders below the one that is named
ENTRIES = 50_000  # that are looked at, of all folders
ANNOTATIONS = (".geojson", ".geojson.gz", ".xml", ".xml.gz")
RUNS = ("mlruns", "mlartifacts")  # of MLflow, which holds copies of artifacts
HELD_OUT = {"test", "tests", "heldout", "holdout"}  # words of names

TRAINED = {"train", "training", "kfold", "folds"}


@dataclass(frozen=True)
class Candidate:
    """Parquet that may be an artifact.

    Parameters
    ----------
    uri
        What names it.
    name
        What names it from the place that was looked at.
    dataset
        Its files.
    kinds
        What it can be.
    """

    uri: str
    name: str
    dataset: Dataset
    kinds: frozenset[str]

    @property
    def held_out(self) -> bool:
        """Whether its name says that it is for tests."""
        return is_held_out(self.name)

    @property
    def rows(self) -> int:
        """Its number of rows, as the footers have it."""
        return sum(fragment.rows for fragment in self.dataset.fragments)


@dataclass
class Contents:
    """What lies at some places.

    Parameters
    ----------
    candidates
        Parquet, in the order of names.
    foreign
        Folders, or files, with embeddings that other tools wrote.
    annotations
        Folders with annotations, and the suffix of these.
    tables
        Tables of text: CSV.
    """

    candidates: list[Candidate] = field(default_factory=list)
    foreign: list[Path] = field(default_factory=list)
    annotations: dict[Path, str] = field(default_factory=dict)
    tables: list[Path] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[Candidate]:
        """Return what can be of a kind."""
        return [one for one in self.candidates if kind in one.kinds]


def is_held_out(name: str) -> bool:
    """Return whether a path has a word for what is held out, and its last name none for training.

    A folder of both parts may be called after the one.
    """
    last = _words(PurePath(name).name)
    words = _words(name)
    return not TRAINED & last and (bool(HELD_OUT & words) or {"held", "out"} <= words)


def _words(name: str) -> set[str]:
    return set("".join(sign if sign.isalnum() else " " for sign in name.casefold()).split())


def look(places: Iterable[str]) -> Contents:
    """Return what lies at folders and URIs.

    Raises
    ------
    ArtifactError
        A place is not there, or a file is not whole.
    ConfigError
        A folder holds more than can be looked at.
    """
    contents = Contents()
    for uri in dict.fromkeys(places):
        folder = Path(local_path(uri))
        if folder.is_dir() and not _is_table(folder):
            _look_below(folder, uri, contents)
        else:
            contents.candidates.append(candidate(uri))
    return contents


def candidate(uri: str, name: str | None = None) -> Candidate:
    """Return the artifact that a URI names, whatever it is; raises as `parquet.dataset`."""
    dataset = parquet.dataset(uri)
    first = dataset.filled[0]
    kinds = kinds_of(first.schema, first.partition)
    return Candidate(uri, name or PurePath(uri).name, dataset, kinds)


def _look_below(folder: Path, uri: str, contents: Contents) -> None:
    groups: dict[Path, list[Path]] = defaultdict(list)
    for entry in _entries(folder):
        name = entry.name.casefold()
        if entry.is_dir() and _is_table(entry):
            contents.candidates.append(_below(entry, folder, uri))
        elif name.endswith(SUFFIXES):
            groups[_home(entry, folder)].append(entry)
        elif name.endswith(tuple(foreign.TOOLS)):
            if entry.parent not in contents.foreign:
                contents.foreign.append(entry.parent)
        elif foreign.is_text(entry):
            contents.tables.append(entry)
        elif name.endswith(ANNOTATIONS):
            suffix = next(one for one in ANNOTATIONS if name.endswith(one))
            contents.annotations.setdefault(entry.parent, suffix)
    for home, files in sorted(groups.items()):
        alone = not any(other != home and other.is_relative_to(home) for other in groups)
        contents.candidates += [
            _below(place, folder, uri) for place in _artifacts(home, files, alone)
        ]


def _artifacts(home: Path, files: list[Path], alone: bool) -> list[Path]:
    """Return what names the artifacts that the Parquet files of a folder are.

    Parameters
    ----------
    alone
        Whether no other folder with Parquet lies below it.
    """
    if len(files) == 1 and files[0].parent == home:
        return files
    kinds = {_kinds(file, home) for file in files}
    held_out = {is_held_out(file.relative_to(home).as_posix()) for file in files}
    if len(kinds) > 1 or (len(held_out) > 1 and TILES in kinds.copy().pop()):
        return sorted(files)
    if alone:
        return [home]
    suffixes = {file.suffix for file in files}
    flat = all(file.parent == home for file in files)
    return [home / f"*{suffixes.pop()}"] if flat and len(suffixes) == 1 else sorted(files)


def _kinds(file: Path, home: Path) -> frozenset[str]:
    [fragment] = parquet.dataset(str(file)).fragments
    folders = [part.partition("=")[0] for part in file.relative_to(home).parts[:-1]]
    return kinds_of(fragment.schema, folders)


def _home(file: Path, root: Path) -> Path:
    """Return the folder of a file, those left out whose names give values (``slide_id=A``)."""
    home = file.parent
    while "=" in home.name and home != root:
        home = home.parent
    return home


def _below(place: Path, folder: Path, uri: str) -> Candidate:
    """Return what lies below a folder that a URI names."""
    name = place.relative_to(folder).as_posix()
    local = is_path(uri) or uri.startswith("file:")
    return candidate(str(place) if local else f"{uri.rstrip('/')}/{name}", name)


def _is_table(folder: Path) -> bool:
    return delta.is_table(folder) or iceberg.is_table(folder)


def _entries(folder: Path) -> Iterator[Path]:
    """Yield files below a folder, and folders that are one thing, in the order of names."""
    looked_at = 0
    for place, folders, files in os.walk(folder, followlinks=True):
        here = Path(place)
        with os_errors_refused(f"{here} cannot be read", "ask for the right to read it"):
            whole = [name for name in folders if _is_whole(here / name)]
        depth = len(here.relative_to(folder).parts)
        folders[:] = sorted(
            name
            for name in folders
            if name not in (*whole, *RUNS) and not name.startswith(HIDDEN) and depth < DEPTH
        )
        looked_at += len(folders) + len(files)
        if looked_at > ENTRIES:
            raise ConfigError(
                f"{folder} holds more than can be looked at",
                found=f"more than {ENTRIES:,} files and folders",
                fix="name the artifacts: --tiles URI --embeddings URI",
            )
        yield from (here / name for name in sorted([*whole, *files]) if name[0] not in HIDDEN)


def _is_whole(folder: Path) -> bool:
    """Return whether a folder is one thing, whose files are not looked at one by one."""
    return folder.suffix.lower() in foreign.TOOLS or _is_table(folder)
