"""Assignments of folds as artifacts: on this machine, and in MLflow; found again, never remade."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from featurestore.errors import ArtifactError
from featurestore.folds.assignment import Assignment, origin_of
from featurestore.folds.origin import CONVERTED, TAG, Origin
from featurestore.io import cache, digests, mlflow_artifacts, seals, uris
from featurestore.io.objects import shared
from featurestore.io.parquet import Dataset
from featurestore.spec.rules import FoldRules, LabelRules, field_names, values_of
from featurestore.spec.store_spec import StoreSpec

T = TypeVar("T")
Damaged = Callable[[Path, str], ArtifactError]
"""Makes a refusal of a file and what is wrong with it."""
NAME = "folds"
FILE = "folds.parquet"
RULES = field_names(LabelRules, FoldRules)
ASSIGNING = tuple(name for name in RULES if name != "fold_rule")
"""The rules that decide an assignment; one by a hash is none."""
LATER = ("absent_coverage", "merge", "drop", "where")  # rules that came when folds had names
METHOD = 2  # of assigning groups: one more when the same tiles and rules get other folds


@dataclass(frozen=True)
class Wanted:
    """The assignment that is asked for.

    Parameters
    ----------
    spec
        Rules.
    tiles
        The tiles artifact.
    remember
        Whether to look in MLflow as well as on this machine.
    logged
        URIs of the assignments that a run has logged which is to be replayed.
    slides
        The slides artifact, if a rule reads it.
    """

    spec: StoreSpec
    tiles: Dataset
    remember: bool = False
    logged: Sequence[str] = ()
    slides: Dataset | None = None

    @cached_property
    def cohort(self) -> str:
        """The digest of artifacts, rules and method, by which assignments are found."""
        read = [self.tiles] if self.slides is None else [self.tiles, self.slides]
        digest = " ".join(digests.digest(one.named, remember=False) for one in read)
        return content(self.spec, digest)

    @cached_property
    def rules(self) -> str:
        """The digest of rules and method: assignments that share it may extend each other."""
        return digests.of_values(_how(self.spec, METHOD))


@dataclass(frozen=True)
class Kept:
    """An assignment that is kept somewhere.

    Parameters
    ----------
    uri
        Of its file: a path, or ``runs:/RUN/folds.parquet``.
    origin
        Where it comes from.
    by_tile
        Whether an earlier version has logged it, of whose origin no more is known than the cohort,
        and when that was.
    """

    uri: str
    origin: Origin
    by_tile: bool = False


def content(spec: StoreSpec, tiles: str, method: int = METHOD) -> str:
    """Digest all that determines a first assignment: the tiles, the rules, how; no embedding.

    Parameters
    ----------
    tiles
        The digest of the artifact.
    """
    return digests.of_values([tiles, *_how(spec, method)])


def _how(spec: StoreSpec, method: int) -> list[Any]:
    rules = values_of(spec, ASSIGNING)
    defaults = LabelRules()
    for name in LATER:  # where nothing is read otherwise, names are as ever
        if rules[name] == getattr(defaults, name):
            del rules[name]
    parts: list[Any] = [rules]
    if spec.kfold_strategy == "stratified_group" and method > 1:  # the others are as ever
        parts.append({"method": method})
    return parts


# -- to find them ----------------------------------------------------------------------------------


def find_replayed(wanted: Wanted) -> Kept | None:
    """Return the assignment of a cohort among those that a run has logged, or None."""
    if not (wanted.remember and wanted.logged):
        return None
    kept = _logged("cohort", wanted.cohort)
    for method in range(METHOD, 0, -1):
        kept += _logged_by_tile(wanted, method)
    return next((one for one in kept if one.uri in wanted.logged), None)


def find_current(wanted: Wanted) -> Kept | None:
    """Return the latest assignment of a cohort under its rules, or None."""
    kept = [one for one in _here() if one.origin.cohort == wanted.cohort]
    if wanted.remember:
        kept += _logged("cohort", wanted.cohort)
    if kept:
        return max(kept, key=lambda one: one.origin.made)
    return next(iter(_logged_by_tile(wanted, METHOD) if wanted.remember else []), None)


def find_related(wanted: Wanted) -> list[Kept]:
    """Return the assignments of any cohort under the same rules."""
    kept = [one for one in _here() if one.origin.rules == wanted.rules]
    if wanted.remember:
        kept += _logged("rules", wanted.rules)
    return list({one.origin.name: one for one in reversed(kept)}.values())  # rather those of here


def _here() -> list[Kept]:
    """Return the assignments on this machine."""
    for name in set(shared.names(NAME, refresh=True)) - set(cache.names(NAME)):
        with suppress(ArtifactError):  # a damaged one has been warned of
            cache.open_entry(NAME, name).lock.close()  # which brings it here
    return [Kept(str(file), origin) for file, origin in in_cache(NAME, FILE, _damaged)]


def in_cache(kind: str, name: str, damaged: Damaged) -> Iterator[tuple[Path, Origin]]:
    """Yield the files of a name in the cache's folders of a kind, those that have an origin.

    Raises
    ------
    ArtifactError
        As `opened`.
    """
    for folder in cache.names(kind):
        file = cache.place(kind, folder) / name
        if origin := origin_of(opened(file, pq.read_schema, damaged)):
            yield file, origin


def _logged(tag: str, value: str) -> list[Kept]:
    """Return the assignments in MLflow, the latest first."""
    builds = mlflow_artifacts.find_builds(NAME, {TAG + tag: value})
    return [Kept(f"{build.root}/{FILE}", Origin.of_tags(build.tags)) for build in builds]


def _logged_by_tile(wanted: Wanted, method: int) -> list[Kept]:
    """Return what earlier versions have logged of a cohort, the earliest first."""
    named = wanted.tiles.named
    sums = [digests.digest(named, remember=False)]
    if not any(fragment.partition for fragment in wanted.tiles.fragments):  # which it left out
        sums.append(digests.earlier(named))
    cohorts = [content(wanted.spec, one, method) for one in dict.fromkeys(sums)]
    rules = digests.of_values(_how(wanted.spec, method))
    return [
        Kept(f"{one.root}/{FILE}", Origin(cohorts[0], rules, "", one.made, CONVERTED), by_tile=True)
        for cohort in cohorts
        for one in reversed(
            mlflow_artifacts.find_builds(NAME, {mlflow_artifacts.DIGEST_TAG: f"{NAME}-{cohort}"})
        )
    ]


# -- to read and to keep them ----------------------------------------------------------------------


def read(kept: Kept) -> Assignment:
    """Return an assignment that is kept; its rows are read when they are asked for.

    Raises
    ------
    ArtifactError
        It is damaged.
    """
    return Assignment.of_file(
        opened(_file(kept), pq.read_schema, _damaged), partial(read_rows, kept)
    )


def read_rows(kept: Kept) -> pa.Table:
    """Return the rows of an assignment; of one by tile those that have a fold.

    Raises
    ------
    ArtifactError
        It is damaged.
    """
    return opened(_file(kept), pq.read_table, _damaged).filter(pc.field("fold").is_valid())


def _file(kept: Kept) -> Path:
    """Return the file of an assignment, downloaded if it is not here, sound if it is."""
    file = Path(uris.local_path(kept.uri))
    is_here = kept.uri == str(file)
    if is_here:
        check_seal(file, _damaged)
    return file


def check_seal(file: Path, damaged: Damaged) -> None:
    """Refuse a file whose folder is not as it was sealed.

    Raises
    ------
    ArtifactError
        What ``damaged`` makes of the file and what is wrong with it.
    """
    if wrong := seals.fault(file.parent, file.parent.name, cache.NONE):
        raise damaged(file, wrong)


def opened(file: Path, reader: Callable[[Path], T], damaged: Damaged) -> T:
    """Return what a reader of Parquet makes of a file.

    Raises
    ------
    ArtifactError
        It is no whole Parquet file: what ``damaged`` makes of the file and what is wrong with it.
    """
    try:
        return reader(file)
    except (pa.ArrowException, OSError) as error:
        raise damaged(file, str(error).splitlines()[0]) from error


def _damaged(file: Path, wrong: str) -> ArtifactError:
    return ArtifactError(
        "An assignment of folds cannot be read",
        found=f"{file}: {wrong}",
        fix="remove its folder if it is one of .featurestore/, where MLflow has it; or set "
        "folds=new, once it is removed: what had a fold may get another",
    )


def keep(assignment: Assignment) -> Path:
    """Keep an assignment on this machine, once; return its file."""

    def build(folder: Path) -> None:
        pq.write_table(assignment.table, folder / FILE)

    return cache.get_or_build(NAME, assignment.origin.name, build).folder / FILE


def log(file: Path) -> str:
    """Log the file of an assignment to MLflow with a run of its own, once; return its URI."""
    origin = origin_of(pq.read_schema(file))
    assert origin is not None
    root = mlflow_artifacts.logged(
        NAME, origin.name, lambda folder: shutil.copyfile(file, folder / FILE), origin.tags
    )
    return f"{root}/{FILE}"
