"""Splits that were made: in a folder, on this machine, in MLflow; found again, never remade."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.errors import ArtifactError
from featurestore.folds.artifact import check_seal, in_cache, opened
from featurestore.folds.assignment import Assignment, origin_of
from featurestore.folds.origin import Origin
from featurestore.io import cache, digests, mlflow_artifacts, uris
from featurestore.spec.rules import LabelRules, field_names, values_of
from featurestore.spec.split_rules import SplitRules
from featurestore.spec.store_spec import StoreSpec
from featurestore.splits.table import FILE, of_table, to_table

NAME = "splits"
TAG = "featurestore.split."  # begins the names of tags in MLflow
METHOD = 1  # one more when the same tiles and rules get other sides


@dataclass(frozen=True)
class Wanted:
    """The split that is asked for.

    Parameters
    ----------
    spec
        Label rules, which decide the strata.
    rules
        Share, group, strata and seed.
    artifacts
        Digest of each artifact that is read, by its name.
    """

    spec: StoreSpec
    rules: SplitRules
    artifacts: Mapping[str, str]

    @cached_property
    def cohort(self) -> str:
        """The digest of artifacts, rules and method, by which a split is found."""
        labels = values_of(self.spec, field_names(LabelRules))
        return digests.of_values([dict(self.artifacts), labels, self.under])

    @cached_property
    def under(self) -> str:
        """The digest of rules and method: splits that share it extend each other.

        Label rules are none of them: who tries another threshold keeps what is held out.
        """
        rules = asdict(self.rules) | {"stratify": sorted(self.rules.stratify)}
        return digests.of_values([rules, METHOD])


@dataclass(frozen=True)
class Kept:
    """A split that is kept somewhere: its table by path or ``runs:/RUN/``, and its lineage."""

    uri: str
    origin: Origin


def in_folder(folder: Path) -> Kept | None:
    """Return the split in a folder where a user keeps it.

    Raises
    ------
    ArtifactError
        It is damaged.
    """
    file = folder / FILE
    if not file.exists():
        return None
    origin = origin_of(opened(file, pq.read_schema, _damaged))
    return Kept(str(file), origin) if origin else None


def find(wanted: Wanted) -> list[Kept]:
    """Return the splits under the same rules on this machine and in MLflow, of any cohort."""
    kept = [Kept(str(file), origin) for file, origin in in_cache(NAME, FILE, _damaged)]
    kept = [one for one in kept if one.origin.rules == wanted.under]
    for build in mlflow_artifacts.find_builds(NAME, {f"{TAG}rules": wanted.under}):
        tags = {k.removeprefix(TAG): v for k, v in build.tags.items() if k.startswith(TAG)}
        kept.append(Kept(f"{build.root}/{FILE}", Origin.of(tags)))
    return list({one.origin.name: one for one in reversed(kept)}.values())  # rather those of here


def read(kept: Kept, rules: SplitRules) -> Assignment:
    """Return a split; its rows are read when they are asked for."""
    return Assignment(kept.origin, {}, {}, partial(_rows, kept, rules), is_kept=True)


def _rows(kept: Kept, rules: SplitRules) -> pa.Table:
    file = Path(uris.local_path(kept.uri))
    if file.parent == cache.place(NAME, kept.origin.name):
        check_seal(file, _damaged)
    table = opened(file, pq.read_table, _damaged)
    if rules.group not in table.column_names:
        raise _damaged(file, f"columns {', '.join(table.column_names)}, not {rules.group}")
    return of_table(table, rules.group).replace_schema_metadata(table.schema.metadata)


def _damaged(file: Path, wrong: str) -> ArtifactError:
    return ArtifactError(
        "A split cannot be read",
        found=f"{file}: {wrong}",
        fix="bring it back, or remove its folder: then another one that knows these groups is "
        "extended, where there is one, and else every group is assigned anew",
    )


def keep(assignment: Assignment, rules: SplitRules) -> None:
    """Keep a split on this machine, once."""

    def build(folder: Path) -> None:
        pq.write_table(to_table(assignment, rules.group), folder / FILE)

    cache.get_or_build(NAME, assignment.origin.name, build).lock.close()


def log(assignment: Assignment, folder: Path) -> str:
    """Log the files of a split to MLflow with a run of its own, once; return its URI."""
    tags = {TAG + name: str(value) for name, value in asdict(assignment.origin).items()}
    return mlflow_artifacts.logged(
        NAME,
        assignment.origin.name,
        lambda place: shutil.copytree(folder, place, dirs_exist_ok=True),
        tags,
    )
