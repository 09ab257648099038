"""From a configuration to what a run works on: refused here is whatever can be refused."""

import tempfile
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa

from featurestore import examples
from featurestore.errors import FeatureStoreWarning
from featurestore.io.progress import Rows
from featurestore.printing import Console
from featurestore.snapshots.leakage import Finding, raise_leaks
from featurestore.snapshots.snapshot import Snapshot
from featurestore.snapshots.tile_set import TileSet
from featurestore.spec.store_spec import not_configured
from featurestore.store import FeatureStore
from featurestore.undo import always_undone, undone_if_refused
from featurestore.views.folds import check_fold
from train.config.rules import asked_folds, is_sweep
from train.config.schema import Config
from train.config.store import logs_digits, open_store, with_artifacts, with_rules
from train.config.sweep import rule_variants, settings
from train.engine.shard import DROPPED
from train.evaluation.groups import check_group_columns, check_group_values
from train.fitting.few_shot import with_draws
from train.fitting.grid import HeadGrid, head_grid, single_head
from train.fitting.small_classes import warn_of_small_classes
from train.fitting.tile_table import TileTable
from train.models import checkpoint, onnx_graph
from train.models.checkpoint import TrainedModel
from train.predictions.table import count_by_slide, count_values
from train.runtime import fit_state, run_locks
from train.runtime.inputs import Inputs, open_model
from train.runtime.snapshots import make_snapshots
from train.runtime.train_test_overlap import TrainTestOverlap, overlap_of_checkpoint, overlap_of_fit
from train.tracking.tracker import Tracker


@dataclass(frozen=True)
class Job:
    """What all processes of a run work on; the tiles are with the main one alone.

    Parameters
    ----------
    config
        The configuration, resolved.
    states
        Where the state of the fit is kept.
    grid
        Heads to train; None where a checkpoint is evaluated.
    table
        The tiles that any of them needs.
    tiles
        Tiles of a checkpoint's mode.
    model
        The network to evaluate.
    held_out
        For a final head: the test tiles under each variant of the rules.
    digests
        Of the snapshots, one for each variant of the rules.
    doubt
        Why the figures of the test tiles are no untouched number; empty where nothing is known.
    encoders
        Of several encoders: the job of each.
    inputs
        Of one of them, on the main process: what has been opened for it.
    """

    config: Config
    states: Path
    grid: HeadGrid | None = None
    table: TileTable | None = None
    tiles: TileSet | None = None
    model: TrainedModel | None = None
    held_out: tuple[TileSet, ...] = ()
    digests: tuple[str, ...] = ()
    doubt: str = ""
    encoders: tuple["Job", ...] = ()
    inputs: Inputs | None = None

    @property
    def slides(self) -> pa.Table:
        """``slide_id, tiles, labelled`` of the slides that predictions are recorded of first."""
        if self.encoders:  # which have the same tiles
            return self.encoders[0].slides
        tiles = self.table if self.grid else self.tiles
        assert tiles is not None
        return count_by_slide(tiles.keys)

    def without_tiles(self) -> Self:
        """Return what the other processes are given."""
        return replace(
            self,
            table=self.table and self.table.without_tiles(),
            tiles=self.tiles and _without_tiles(self.tiles),
            held_out=tuple(map(_without_tiles, self.held_out)),
            encoders=tuple(job.without_tiles() for job in self.encoders),
            inputs=None,
        )


def _without_tiles(tiles: TileSet) -> TileSet:
    return replace(tiles, keys=tiles.keys.schema.empty_table())


def prepare_fit(config: Config, console: Console, processes: int) -> tuple[Inputs, Job]:
    """Open all that a fit needs, or the evaluation of a checkpoint, and choose its tiles.

    Parameters
    ----------
    processes
        How many share the work: a state is theirs.
    """
    data = config.data
    if config.mode == "fit" and config.tracking.onnx:
        onnx_graph.check_installed()
    if config.mode == "test" and not (data.test_tiles or data.snapshot or data.builder != "none"):
        raise not_configured("test_tiles", "mode=test evaluates held-out tiles, and none are named")
    with ExitStack() as locks:
        tracker, model = open_model(config, locks)
        dry_run(config, tracker, model, console, processes)
        job = open_tiles(config, tracker, open_store(config), model, console)
        assert job.inputs
        digests = [snapshot.digest for snapshot in job.inputs.snapshots]
        states = find_state(config, tracker, digests, processes, locks)
        inputs = replace(job.inputs, locks=locks.pop_all())
    return inputs, replace(job, states=states, inputs=None)


def dry_run(
    config: Config, tracker: Tracker, model: TrainedModel | None, console: Console, processes: int
) -> None:
    """Refuse what can be refused of digits before their first use logs them to MLflow.

    It works on a copy of them, of which nothing is left.

    Parameters
    ----------
    processes
        As of `prepare_fit`.

    Raises
    ------
    FeatureStoreError
        As `open_tiles`, or there is nothing to resume.
    """
    if not logs_digits(config):
        return
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), always_undone():
        warnings.simplefilter("ignore", FeatureStoreWarning)  # they are given later
        examples.write_digits(Path(folder))
        copied = with_artifacts(config, examples.uris(folder))
        job = open_tiles(copied, tracker, open_store(copied), model, console)
    if config.resume is True:  # a fit that was not tracked may have been killed
        state = fit_state.state_folder(copied, job.digests, processes)
        if not any(map(fit_state.has_state, run_locks.existing_folders(state))):
            fit_state.check(state)


def open_tiles(
    config: Config,
    tracker: Tracker,
    store: FeatureStore,
    model: TrainedModel | None,
    console: Console,
) -> Job:
    """Return the job of a fit, or of an evaluation, whose state is yet to be found.

    Parameters
    ----------
    model
        The network to evaluate; None for a fit.
    """
    if not config.data.snapshot:  # whose columns are looked at as its tiles are chosen
        check_group_columns(store, config)
    variants = rule_variants(config) if is_sweep(config) else [{}]
    stores = [with_rules(store, rules) for rules in variants]
    rows, folds = Rows(console), asked_folds(config, [])
    with undone_if_refused():  # one of several variants may be
        snapshots = make_snapshots(config, stores, rows, folds)
        job = replace(_choose(snapshots, config), model=model)
        check_fits(job)
        overlap = _find_overlap(job, snapshots)
    if job.grid:
        warn_of_small_classes(job.grid, config)
    return replace(
        job,
        digests=tuple(snapshot.digest for snapshot in snapshots),
        doubt=overlap.doubt if overlap else "",
        inputs=Inputs(tracker, stores[0], snapshots, overlap),
    )


def _find_overlap(job: Job, snapshots: list[Snapshot]) -> TrainTestOverlap | None:
    """Return the test tiles that were trained on, None without test tiles; warn of them."""
    config = job.config
    if config.mode == "test":
        assert job.model
        overlap = overlap_of_checkpoint(job.model, config, snapshots[0])
        # Where nothing is known of the checkpoint, there are still today's training tiles.
        today = [one for one in snapshots[0].findings if one.concerns_test]
        warn_of_leaks(overlap.findings or today, config)
        if overlap.unknown:
            message = f"whether test tiles were trained on is not known: {overlap.unknown}"
            warnings.warn(message, FeatureStoreWarning, stacklevel=2)
        return overlap
    return overlap_of_fit(snapshots) if job.held_out else None


def _choose(snapshots: list[Snapshot], config: Config) -> Job:
    """Return the heads to train, or the tiles to evaluate on."""
    if is_sweep(config):
        return choose_grid(snapshots, config)
    tiles = choose_tiles(snapshots[0], config)
    if config.mode == "fit":
        table = TileTable.of_split(tiles)
        return Job(config, Path(), single_head(table, config), table)
    return Job(config, Path(), tiles=tiles)


def choose_grid(snapshots: list[Snapshot], config: Config) -> Job:
    """Return the heads of all settings and folds, on the tiles that any variant keeps."""
    folds = asked_folds(config, snapshots[0].manifest["folds"])
    for snapshot in snapshots:
        for fold in folds:
            check_fold(fold, snapshot.manifest["folds"])
        warn_of_leaks(snapshot.findings, config)
    tested = config.final and all("test_" in snapshot.matrices for snapshot in snapshots)
    further = config.evidence.columns()
    held_out = tuple(snapshot.test_set(further) for snapshot in snapshots) if tested else ()
    table = TileTable.union([snapshot.fold_set(further) for snapshot in snapshots])
    every = settings(config)
    table, variants = with_draws(table, every, folds, config.seed)
    grid = head_grid(table, every, folds, config.seed, variants)
    if config.final:
        final = head_grid(table, grid.settings, [DROPPED], config.seed)
        grid = replace(grid, final=final.heads)
    return Job(config, Path(), grid, table, held_out=held_out)


def choose_tiles(snapshot: Snapshot, config: Config) -> TileSet:
    """Return the tiles that the mode asks for, after the guard has looked at the folds."""
    if config.mode == "test":  # which no fold has a part in
        return snapshot.test_set(config.evidence.columns())
    warn_of_leaks(snapshot.findings, config)
    [fold] = asked_folds(config, [])
    tiles = snapshot.fit_set(fold, config.evidence.columns())
    if config.mode == "validate":
        held_out = np.asarray(tiles.keys["split"]) == "validation"
        tiles = replace(tiles, keys=tiles.keys.filter(held_out))
    return tiles


def warn_of_leaks(findings: Sequence[Finding], config: Config) -> None:
    """Warn of what the folds do not promise against, or of what is allowed."""
    for leak in raise_leaks(list(findings), config.leakage):
        warnings.warn(f"leak: {leak}", FeatureStoreWarning, stacklevel=2)


def check_fits(job: Job) -> None:
    """Refuse groups without end, and a checkpoint for embeddings of another length."""
    for tiles in (job.tiles, *job.held_out, job.table):
        if tiles:
            keys = tiles.keys
            values = {name: count_values(keys[name]) for name in job.config.evidence.groups}
            check_group_values(values, len(keys))
    if job.model and job.tiles:
        checkpoint.check_dimension(job.model.spec, job.tiles.matrix.dim)


def find_state(
    config: Config, tracker: Tracker, digests: list[str], processes: int, locks: ExitStack
) -> Path:
    """Return where the state is kept, which is locked; what is resumed goes on in its own run.

    Parameters
    ----------
    digests
        Of the snapshots.
    processes
        How many share the work.
    locks
        Gets that of the state.
    """
    folder = fit_state.state_folder(config, digests, processes)
    states, lock, is_resumed = run_locks.lock_state(folder, config.resume, fit_state.has_state)
    locks.callback(lock.close)
    if config.resume and (is_resumed or config.resume is True):
        tracker.run = fit_state.check(states)
    config.resume = is_resumed
    return states
