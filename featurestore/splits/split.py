"""A split from its rules to its files: found, extended or made, written and checked."""

import warnings
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from featurestore.errors import FeatureStoreWarning, os_errors_refused
from featurestore.folds.assignment import Assignment
from featurestore.folds.extend import Codes
from featurestore.folds.origin import Origin
from featurestore.folds.units import group_codes
from featurestore.io import atomic, digests
from featurestore.io.progress import Rows
from featurestore.redaction import redacted
from featurestore.spec.rules import LabelRules, field_names, values_of
from featurestore.spec.split_rules import SplitRules
from featurestore.splits import cohort as cohorts
from featurestore.splits import folder as files
from featurestore.splits import growth, kept
from featurestore.splits.balance import balance, dropped, shortcomings, unembedded
from featurestore.splits.cohort import Cohort
from featurestore.splits.folder import Sides
from featurestore.splits.kept import Wanted
from featurestore.splits.table import FILE, check_name, to_table
from featurestore.store import FeatureStore


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Parameters
    ----------
    to
        The folder of the files.
    new
        Whether to assign every group anew.
    log
        Whether to log the files to MLflow, with a run of their own.
    """

    to: Path
    new: bool = False
    log: bool = True


@dataclass(frozen=True)
class Split:
    """A split that was written.

    Parameters
    ----------
    balance
        See `featurestore.splits.balance.balance`.
    origin
        Where it comes from.
    uri
        ``runs:/RUN`` of its files in MLflow, if they were logged.
    is_kept
        Whether it was there already.
    unembedded
        Kept tiles of either side without an embedding; None where no embeddings are configured.
    """

    balance: list[dict[str, Any]]
    origin: Origin
    uri: str | None = None
    is_kept: bool = False
    unembedded: dict[str, int] | None = None


@dataclass(frozen=True)
class _Assigned:
    """A cohort, and on which side its groups are."""

    rules: SplitRules
    cohort: Cohort
    assignment: Assignment

    @cached_property
    def sides(self) -> Codes:
        return growth.sides_of(self.cohort, self.assignment, self.rules)

    @cached_property
    def balance(self) -> list[dict[str, Any]]:
        return balance(self.cohort, self.sides, self.rules)

    def by_column(self, is_of_tiles: bool) -> Sides:
        """Return which tiles are on which side, by the group or, if it is the slides', by slide."""
        if is_of_tiles:
            return Sides(self.rules.group, self.cohort.names, self.sides)
        members = self.cohort.slides
        codes, _ = group_codes(members["group"])
        return Sides("slide_id", members["slide_id"].combine_chunks(), self.sides[codes])


def split(store: FeatureStore, rules: SplitRules, request: Request, bar: Rows) -> Split:
    """Divide the tiles of a store into those to train on and those to test, and write both.

    The split of these tiles under these rules is the one that there is; else one of another cohort
    is extended, that in the folder before all others; else it is a first one. Strata that are on
    one side alone are warned of, and a share far from what is asked for.

    Parameters
    ----------
    bar
        Shows the tiles as they are written.

    Raises
    ------
    ConfigError, SchemaError, EmptyViewError
        Rules, columns or tiles are not those of a split.
    ArtifactError
        The folder holds something else, or cannot be written.
    SplitError
        A group would have to change sides, or a side would have no tile.
    """
    rules.check()
    check_name(rules)
    files.check_output(request.to)
    wanted = _wanted(store, rules)
    earlier = growth.earlier(wanted, request.to, request.new)
    cohort = cohorts.count(store, rules)
    assignment = growth.assignment(wanted, cohort, earlier, request.new)
    made = _Assigned(rules, cohort, assignment)
    store.sources.confirm()
    if files.is_whole(request.to, asdict(assignment.origin)):
        uri = _recorded(made, request.to, request.log)
    else:
        uri = _write(store, made, request, bar)
    for text in shortcomings(made.balance, rules):
        warnings.warn(text, FeatureStoreWarning, stacklevel=2)
    missing = unembedded(cohort, made.sides)
    return Split(made.balance, assignment.origin, uri, assignment.is_kept, missing)


def _wanted(store: FeatureStore, rules: SplitRules) -> Wanted:
    read = ["tiles", *(["slides"] if cohorts.slides_needed(store, rules) else [])]
    sums = {name: digests.digest(store.sources.dataset(name).named) for name in read}
    return Wanted(store.spec, rules, sums)


def _write(store: FeatureStore, made: _Assigned, request: Request, bar: Rows) -> str | None:
    """Write the files of a split and check them; return where they are in MLflow."""
    local = store
    if store.spec.backend != "duckdb":  # Spark would bring all tiles to this machine at once
        spec = replace(store.spec, backend="duckdb")
        local = FeatureStore(spec, store.threads, store.memory_limit)
    tiles, group = local.table("tiles"), made.rules.group
    fragments = store.sources.dataset("tiles").filled
    written = {n: name for one in fragments for n, name in one.written.items()}
    sides = made.by_column(group in tiles.columns)
    fix = "make room, or name a folder elsewhere: --to"
    with (
        os_errors_refused(f"{request.to} could not be written", fix),
        atomic.fresh_folder(request.to, replace=True) as folder,
    ):
        files.write_tiles(tiles, sides, written, folder, bar)
        number = int(made.cohort.kept.sum() + made.cohort.dropped.sum())
        files.check_sides(local.connection, folder, sides, written, number)
        pq.write_table(to_table(made.assignment, group), folder / FILE)
        files.write_manifest(folder, _manifest(store, made))
        local.sources.confirm()
        store.sources.confirm()
        return _recorded(made, folder, request.log)


def _manifest(store: FeatureStore, made: _Assigned) -> dict[str, Any]:
    artifacts = {
        name: {"uri": redacted(uri), "sha256": digest}
        for name, (uri, digest) in store.sources.digests().items()
    }
    return {
        **asdict(made.rules),
        "label_rules": values_of(store.spec, field_names(LabelRules)),
        "artifacts": artifacts,
        "lineage": asdict(made.assignment.origin),
        "balance": made.balance,
        "dropped": dropped(made.cohort, made.sides),
    }


def _recorded(made: _Assigned, folder: Path, log: bool) -> str | None:
    """Keep a split on this machine, and log its files; return where they are in MLflow."""
    uri = kept.log(made.assignment, folder) if log else None
    kept.keep(made.assignment, made.rules)
    return uri
