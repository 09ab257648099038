"""Train, validate, test or apply a linear probe on tile embeddings.

    accelerate launch train/probe.py fold=4
    accelerate launch train/probe.py experiment=stratified_group_kfold fold=4
    accelerate launch train/probe.py data=virchow2 data.runs.folds=... fold=4 thresholds.Fat=0.5
    accelerate launch train/probe.py mode=test checkpoint=models:/tissue-probe/1

Many GPUs: `accelerate launch --multi_gpu train/probe.py fold=4`. Two CPU processes:
`ACCELERATE_USE_CPU=1 torchrun --nproc_per_node 2 train/probe.py fold=4`. The batch size of the
configuration is that of all processes together, so their number changes no result.

It reads top to bottom: configuration -> store -> data -> head -> loop -> metrics -> register.
`--help` lists the keys.
"""

import sys

from train.config.help import check_or_exit
from train.config.load import load
from train.config.rules import asked_folds, is_single_head, is_sweep, lone_fold, registers
from train.config.schema import Config
from train.config.text import run_name

# Help and refused arguments must not wait for torch, MLflow and scikit-learn to be imported.
if __name__ == "__main__":
    check_or_exit(sys.argv[1:])

import contextlib
import os
import tempfile
import warnings
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from featurestore.console.cli import shown_warnings
from featurestore.errors import FeatureStoreWarning, UnknownClassError
from featurestore.io import mlflow_artifacts, names
from featurestore.io.cache import Taken
from featurestore.io.progress import Rows
from featurestore.printing import Console
from featurestore.snapshots.build import materialise
from featurestore.snapshots.leakage import raise_leaks
from featurestore.snapshots.snapshot import Snapshot
from featurestore.snapshots.tile_set import TileSet
from featurestore.store import FeatureStore
from featurestore.views.folds import check_fold
from train.config.ranks import speaks
from train.config.store import check_places, class_names, open_store, with_rules
from train.engine.shard import Split
from train.evaluation import groups
from train.fitting import (
    autograd,
    grid,  # fmt: skip
    pack,
    single,
)
from train.fitting.grid import HeadGrid, rule_variants
from train.fitting.load import TileTable, load_splits
from train.inference import cohort as inference_cohort
from train.inference import stream
from train.inference.cohort import PredictionSet
from train.models import checkpoint
from train.models.checkpoint import TrainedModel
from train.overlays import record
from train.reports import results
from train.reports.record_inputs import record_inputs
from train.reports.recorder import record_split
from train.runtime import agreement, fit_state, meeting, places
from train.runtime.ending import Ending, watched
from train.runtime.processes import assemble_rows, on_main, together
from train.runtime.run import Run
from train.tracking import provenance, registered_models
from train.tracking.mlflow_tracker import MlflowTracker
from train.tracking.names import check_spelled
from train.tracking.tracker import NullTracker, Tracker

Opened = tuple[Tracker, FeatureStore, list[Snapshot]]
"""What the first process alone has opened."""


@dataclass(frozen=True)
class Chosen:
    """What a run works on.

    Parameters
    ----------
    tiles
        TileTable of one fold, or held out; None for a pack that is not tested.
    trained
        The network to evaluate; None for a fit.
    pack
        Heads that are trained side by side.
    cohort
        TileTable to predict.
    """

    tiles: TileSet | None = None
    trained: TrainedModel | None = None
    pack: HeadGrid | None = None
    cohort: PredictionSet | None = None


def main(argv: list[str]) -> int:
    """Run the script; return the exit status, 2 after a refusal, 143 after SIGTERM."""
    provenance.follow_launcher(os.environ)
    with watched(speaks(os.environ)) as ending:
        try:
            run(load(argv), ending, provenance.command(argv, os.environ, sys.argv[0]))
        except BaseException as error:
            return ending.close(error)
    return 0


def run(config: Config, ending: Ending, command: str = "") -> None:
    """Do what ``config.mode`` says, on every process."""
    accelerator = meeting.create_accelerator(ending)
    console = Console(quiet=not accelerator.is_main_process)
    set_seed(config.seed)
    with contextlib.ExitStack() as stack:
        stack.enter_context(shown_warnings(console))
        stack.enter_context(names.resolved_once())
        stack.callback(accelerator.end_training)
        stack.enter_context(meeting.connected(accelerator, ending))
        agreement.check(accelerator, config)
        # Whatever can be refused is refused in this part, before anything is written.
        here: list[Opened] = []  # on the first process alone

        def choose() -> tuple[Config, Chosen, Path]:
            if config.output:
                stack.callback(places.output(Path(config.output)).close)
            opened, chosen = prepare(config, console)
            states, taken = find_state(config, opened, chosen, accelerator.num_processes)
            stack.callback(taken.close if taken else lambda: None)
            here.append(opened)
            return config, chosen, states

        settled, chosen, states = on_main(accelerator, choose)
        by_engine = (
            is_single_head(settled) and not chosen.pack
        )  # which reads and validates by itself
        tiles = None if by_engine else chosen.tiles
        splits = together(accelerator, lambda: read(tiles, settled, accelerator))

        temporary = stack.enter_context(tempfile.TemporaryDirectory())
        tracker = stack.enter_context(here[0][0] if here else NullTracker())
        output = Path(settled.output or temporary)
        session = Run(settled, accelerator, console, tracker, output, states, command)
        stack.push(ending.begin)  # before the tracker hears of it
        if settled.mode in ("fit", "predict"):
            ending.left = partial(fit_state.saved_epochs, session)
            ending.mark = partial(fit_state.abandon, session)
        if here and settled.mode in ("fit", "predict"):
            fit_state.start_state(states, settled.resume, tracker.run)
        if here:  # what is resumed has recorded them, and tells them once more
            told = replace(session, tracker=NullTracker()) if settled.resume else session
            record_inputs(told, *here[0][1:])
        fit_state.settle(session)
        trained = chosen.trained or fit(session, splits, chosen)
        if trained and chosen.cohort:
            stream.predict(session, chosen.cohort, trained)
        elif trained and not by_engine:
            evaluate(session, splits, chosen, trained)
        fitted = settled.mode == "fit"
        if session.is_first:
            uri = register(session, trained) if fitted else settled.checkpoint
            results.close(session, trained.spec if trained else None, uri)
        tracker.finish()
        fit_state.settle(session, fitted and trained is not None)
        if session.is_first and (fitted or settled.output is None):
            fit_state.remove_state(states)
        console.print(tracker.where(), soft_wrap=True)


# -- configuration -> store ---------------------------------------------------------------------


def prepare(config: Config, console: Console) -> tuple[Opened, Chosen]:
    """Open all that a run needs, and choose its tiles."""
    check_places(config)
    tracker, store = open_tracker(config), open_store(config)
    trained, rows = open_checkpoint(config), Rows(console)
    snapshots: list[Snapshot] = []
    groups.check_group_columns(store, config)
    if trained and config.mode == "predict":
        more = config.evidence.columns()
        cohort = inference_cohort.prediction_set(store, trained.digest, more)
        chosen = Chosen(trained=trained, cohort=replace(cohort, model=config.checkpoint))
    elif is_sweep(config):
        stores = [with_rules(store, rules) for rules in rule_variants(config)]
        snapshots, store = [materialise(own, rows) for own in stores], stores[0]
        chosen = choose_pack(snapshots, config)
    else:
        snapshots = [materialise(store, rows, lone_fold(config))]
        chosen = Chosen(choose_tiles(snapshots[0], config), trained)
    check_fits(chosen, config)
    if predicted := chosen.cohort or (chosen.pack.tiles if chosen.pack else chosen.tiles):
        record.ready(config, predicted.keys)
    return (tracker, store, snapshots), chosen


def open_tracker(config: Config) -> Tracker:
    """Return the tracker, its store known to take the run and its model."""
    track = config.tracking
    if track.enabled:
        check_spelled(config.class_indices)
        model = track.model if registers(config) else None
        return MlflowTracker(track.uri, track.experiment, run_name(config), model)
    uris = [*vars(config.data).values(), config.checkpoint]
    if any(str(uri).startswith(("runs:", "models:", "mlflow-artifacts:")) for uri in uris):
        mlflow_artifacts.use_tracking(track.uri)  # artifacts may live there all the same
    return NullTracker()


def open_checkpoint(config: Config) -> TrainedModel | None:
    """Return the network to evaluate, or None for a fit; its name is resolved for all that follows.

    What the run records is the version that it used, not an alias that moves.
    """
    if config.checkpoint is None:
        return None
    config.checkpoint = names.resolved(config.checkpoint)
    trained = registered_models.load(config.checkpoint)
    ours = class_names(config)
    if ours != trained.spec.classes:
        raise UnknownClassError(
            "The checkpoint was trained on other classes",
            found=f"{', '.join(trained.spec.classes)} in it; {', '.join(ours)} configured",
            fix="pick the classes=... that it was trained on, or another checkpoint",
        )
    return trained


def choose_pack(snapshots: list[Snapshot], config: Config) -> Chosen:
    """Return the tiles that any variant of the rules keeps, and the folds to validate on."""
    folds = asked_folds(config, snapshots[0].manifest["folds"])
    for snapshot in snapshots:
        for fold in folds:
            check_fold(fold, snapshot.manifest["folds"])
        warn_of_leaks(snapshot, config)
    tested = config.final and config.data.test_tiles is not None
    more = config.evidence.columns()
    tiles = snapshots[0].test_set(more) if tested else None
    whole = TileTable.union([snapshot.fold_set(more) for snapshot in snapshots])
    return Chosen(tiles, pack=grid.head_grid(whole, grid.settings(config), folds, config.seed))


def warn_of_leaks(snapshot: Snapshot, config: Config) -> None:
    """Refuse what the folds promise not to do, or warn of it."""
    for leak in raise_leaks(snapshot.findings, config.leakage):
        warnings.warn(f"leak: {leak}", FeatureStoreWarning, stacklevel=2)


def choose_tiles(snapshot: Snapshot, config: Config) -> TileSet:
    """Return the tiles that the mode asks for, after the guard has looked at the folds."""
    if config.mode == "test":
        return snapshot.test_set(config.evidence.columns())
    [fold] = asked_folds(config, [])
    tiles = snapshot.fit_set(fold, config.evidence.columns())
    warn_of_leaks(snapshot, config)
    if config.mode == "validate":
        held_out = np.asarray(tiles.keys["split"]) == "validation"
        tiles = replace(tiles, keys=tiles.keys.filter(held_out))
    return tiles


def check_fits(chosen: Chosen, config: Config) -> None:
    """Refuse groups without end, and a checkpoint for embeddings of another length."""
    for own in (chosen.tiles, chosen.pack and chosen.pack.tiles, chosen.cohort):
        if own:
            groups.check_group_values(own.keys, config.evidence.groups)
    there = chosen.cohort or (chosen.tiles.matrix if chosen.tiles else None)
    if chosen.trained and there:
        checkpoint.check_dimension(chosen.trained.spec, there.dim)


def find_state(
    config: Config, opened: Opened, chosen: Chosen, number: int
) -> tuple[Path, Taken | None]:
    """Return where the state is kept, and its lock; what is resumed goes on in its own run.

    Parameters
    ----------
    number
        Of processes.
    """
    tracker, _, snapshots = opened
    if chosen.cohort:
        return stream.place(config, chosen.cohort, tracker)
    own = fit_state.state_folder(config, [snapshot.digest for snapshot in snapshots], number)
    states, taken, goes_on = places.find(own, config.resume, fit_state.has_state)
    if config.resume and (goes_on or config.resume is True):
        tracker.run = fit_state.check(states)
    config.resume = goes_on
    return states, taken


# -- store -> data ------------------------------------------------------------------------------


def read(tiles: TileSet | None, config: Config, accelerator: Accelerator) -> dict[str, Split]:
    """Copy the rows that this process owns out of the snapshot, to its device."""
    if tiles is None:
        return {}
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    threads = config.threads or max(1, (os.cpu_count() or 1) // local)
    splits = load_splits(
        tiles, config.seed, accelerator.process_index, accelerator.num_processes, threads
    )
    return {name: split.on(accelerator.device) for name, split in splits.items()}


# -- head -> loop -------------------------------------------------------------------------------


def fit(session: Run, splits: dict[str, Split], chosen: Chosen) -> TrainedModel | None:
    """Train what was chosen: heads side by side, one linear head, or another head by autograd.

    Returns None where there are no weights to keep: votes of neighbours.
    """
    classes = class_names(session.config)
    if chosen.pack:
        return pack.fit(session, chosen.pack, classes)
    assert chosen.tiles is not None
    if is_single_head(session.config):
        return single.fit(session, chosen.tiles, classes)
    return autograd.fit(session, splits, chosen.tiles.matrix.dim, classes)


# -- metrics -> register ------------------------------------------------------------------------


def evaluate(
    session: Run,
    splits: dict[str, Split],
    chosen: Chosen,
    trained: TrainedModel,
) -> None:
    """Evaluate a trained network on the split of the mode, and record it."""
    if chosen.tiles is None:
        return
    fitted = session.config.mode == "fit" and not chosen.pack
    mode = "test" if chosen.pack else session.config.mode
    name = "validation" if fitted else mode.replace("validate", "validation")
    split, network = splits[name], trained.network.to(session.accelerator.device)
    # A fit has replaced the embeddings by the features of its backbone.
    logits = network.get_submodule("head") if fitted else network[:2]  # type: ignore[index]
    weights = torch.tensor(trained.spec.weights, device=session.accelerator.device)
    loss, _, own = autograd.apply(session, logits, split, weights)
    probabilities = assemble_rows(session.accelerator, split, own)
    if session.is_first:
        record_split(
            session, name, chosen.tiles, split.order, probabilities, trained.spec.classes, loss
        )


def register(session: Run, trained: TrainedModel | None) -> str | None:
    """Log the best checkpoint and the model, register it; return its URI."""
    if trained is None:
        session.console.print("votes of neighbours are a baseline: no model is registered")
        return None
    track, file = session.config.tracking, session.folder / checkpoint.FILE
    session.tracker.checkpoint(file)
    uri = session.tracker.model(trained, file, track.model if track.register else None)
    if uri:
        session.console.print(f"model: {uri}")
    return uri


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
