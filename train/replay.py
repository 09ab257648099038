"""Replay a run: build its views again, evaluate its model, and say whether figures are the same.

    python train/replay.py models:/tissue-probe/7
    python train/replay.py RUN data.tiles=/new/place/kfold_tiles.parquet
    python train/replay.py RUN data.snapshot=RUN

Takes a registered model, or the id of a run; further arguments change the recorded configuration,
for artifacts that have moved or changed since, and say where MLflow is (tracking.uri=...). Compares
the digests of the data and every figure that the run has recorded of its model; the verdict comes
first. Exit status 0: all are the same; 3: a figure or the data differ; 2: it cannot be replayed.
"""

import sys

from train.config import installed

# What the extra `train` brings is looked for before it is imported: without it one refusal is told.
if __name__ == "__main__":
    installed.check_or_exit()

from featurestore.spec.arguments import given
from train.config.help import help_or_refuse, run_command
from train.config.schema import Config, ConfigError

EXAMPLE = "models:/tissue-probe/7 data.tiles=/new/place/kfold_tiles.parquet"


def usage() -> str:
    """Return the help; the keys are those of train/probe.py."""
    return (__doc__ or "").strip()


def check(argv: list[str]) -> None:
    """Refuse arguments that name no run first, or change what is no key.

    Raises
    ------
    ConfigError
        They do.
    """
    if not argv or "=" in argv[0]:
        raise ConfigError(
            "There is no run to replay", found=" ".join(argv) or "no argument",
            fix=f"name a model or a run first, for example {EXAMPLE}",
        )  # fmt: skip
    given(Config, argv[1:], EXAMPLE)


# Help and refused arguments must not wait for torch and MLflow to be imported.
if __name__ == "__main__":
    help_or_refuse(sys.argv[1:], usage, check)

import warnings
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from featurestore.errors import ArtifactError, FeatureStoreWarning, shown_warnings
from featurestore.io import mlflow_artifacts, names, uris
from featurestore.io.progress import Rows
from featurestore.printing import Console
from featurestore.snapshots.snapshot import Snapshot
from featurestore.snapshots.tile_set import TileSet
from train.config.encoders import encoders
from train.config.load import recorded
from train.config.rules import is_sweep, lone_fold
from train.config.store import open_store
from train.config.sweep import chosen_config, rule_variants
from train.evaluation.confusion import fold_confusions
from train.evaluation.evaluate import evaluate, evaluation_metrics
from train.evaluation.jackknife import METHOD
from train.evaluation.metrics import is_interval_end
from train.evaluation.predict import predict_tile_set
from train.evaluation.reproduction import COUNTED, MEASURED, ROUNDED, compared, judged, same_data
from train.fitting import selection
from train.fitting.settings import summary
from train.models import checkpoint
from train.models.checkpoint import TrainedModel
from train.predictions.table import KEYS, Predictions
from train.reports.replayed import show_data, show_figures, show_run
from train.runtime.snapshots import inputs_of, make_snapshots, still_here
from train.tracking import registered_models
from train.tracking.runs import FOLDS, INTERVALS, RunRecord, load_run

DIFFERS = 3  # the exit status


def main(argv: list[str]) -> int:
    """Replay a run; return the exit status."""
    return run_command(argv, usage, work)


def work(argv: list[str]) -> int:
    """Replay what the arguments name."""
    check(argv)
    with shown_warnings(Console(stderr=True)), names.resolved_once():
        same = replay(argv[0], argv[1:], Console())
    return 0 if same else DIFFERS


def replay(name: str, overrides: list[str], console: Console) -> bool:
    """Print whether a run, done again, is the same, then what was compared; return the verdict."""
    changes = dict(argument.split("=", 1) for argument in overrides)
    mlflow_artifacts.use_tracking(changes.get("tracking.uri"))
    name = names.resolved(name)
    record = load_run(names.run_of(name))
    config = replayed_config(record, overrides)
    chosen = chosen_config(config, record.params.get("best_setting"))
    store = open_store(chosen, folds_of(record))
    fold = int(record.params["registered_fold"]) if "registered_fold" in record.params else None
    needed = fold if lone_fold(config) is None else lone_fold(config)
    folds = [] if needed is None else [needed]
    (snapshot,) = make_snapshots(chosen, [store], Rows(console), folds)
    read = {key: digest for key, (_, digest) in inputs_of(chosen, store, [snapshot]).items()}
    before = {} if chosen.data.snapshot else store.sources.earlier_digests(read)
    same = same_data(record, read, before, snapshot)
    figures = evaluated(name, record, config, snapshot, fold)
    if same["snapshot"] is None and rule_variants(config) == [{}]:
        figures |= funnel(config, snapshot)
    if earlier := record.params.get(INTERVALS) != METHOD:
        figures = {name: each for name, each in figures.items() if not is_interval_end(name)}
    rounded = config.precision == "bf16" and config.mode == "fit"
    near = (ROUNDED, ROUNDED) if rounded else (COUNTED, MEASURED)
    rows = compared(record.metrics, figures, *near)
    if not rows:
        raise ArtifactError(
            "The run has recorded no figure that could be compared",
            found=f"mode={config.mode} fold={config.fold} final={config.final}",
            fix="replay a run that was validated or tested",
        )
    verdict, is_same = judged(rows, same)
    console.print(verdict, soft_wrap=True)
    show_run(record, changes, console)
    show_data(record, same, read | {"snapshot": snapshot.digest}, console)
    if same["snapshot"] is False and (snapshot_name := still_here(record)):
        console.print(
            f"what it was trained on is here still: replay it with data.snapshot={snapshot_name}"
        )
    show_figures(rows, console)
    if earlier:
        console.print("its intervals were made in another way: they are not compared")
    console.print(f"same: within {near[0]:g}; within {near[1]:g} where probabilities make them")
    return is_same


def folds_of(record: RunRecord) -> list[str]:
    """Return the URIs of the folds that a run has logged, those of each variant of its rules."""
    return [value for name, value in record.params.items() if name.startswith(FOLDS)]


def replayed_config(record: RunRecord, overrides: list[str]) -> Config:
    """Return the configuration that a run has recorded, for one that records nothing."""
    if not record.config:
        raise ArtifactError(
            f"Run {record.run} has recorded no configuration", found="no config.yaml",
            fix="name a run of train/probe.py",
        )  # fmt: skip
    config = recorded(record.config, overrides)
    if several := encoders(config):
        raise ArtifactError(
            f"Run {record.run} compares encoders, whose figures are those of the runs below it",
            found=f"a run of each of {', '.join(several)}",
            fix="replay one of these, which leaderboard.json names, or a model that it registered",
        )
    if config.mode == "predict":
        raise ArtifactError(
            "A prediction has no figures to compare", found="mode=predict",
            fix="replay the run that trained the model",
        )  # fmt: skip
    return replace(config, output=None, resume=False)


def evaluated(
    name: str, record: RunRecord, config: Config, snapshot: Snapshot, fold: int | None
) -> dict[str, float]:
    """Return every figure that can be found again, by the name that it is recorded under.

    Parameters
    ----------
    fold
        On which the registered head of several was validated; None for a final one.
    """
    several = is_sweep(config)
    figures = out_of_fold(record, config, snapshot) if several else {}
    if config.probe == "knn":
        return figures
    trained = opened(name, record, config)
    if config.mode == "test" or (several and config.final and "test_" in snapshot.matrices):
        tiles = snapshot.test_set(config.evidence.columns())
        return figures | split_metrics(config, "test", tiles, trained)
    validated = fold if several else lone_fold(config)
    if validated is None:  # trained on all folds, and never tested
        return figures
    tiles = snapshot.fit_set(validated, config.evidence.columns())
    tiles = replace(tiles, keys=tiles.keys.filter(pc.equal(tiles.keys["split"], "validation")))
    metrics = split_metrics(config, "validation", tiles, trained)
    if several:  # beside the best setting's, which are out of fold
        prefix = "registered_fold" if record.params.get(INTERVALS) else "registered"
        metrics = {f"{prefix}/{name.removeprefix('best/')}": metrics[name] for name in metrics}
    return figures | metrics


def funnel(config: Config, snapshot: Snapshot) -> dict[str, float]:
    """Return how many tiles each reason has dropped."""
    cohort = snapshot.manifest["cohorts"]["test_tiles" if config.mode == "test" else "tiles"]
    return {f"funnel/{row['reason']}": row["tiles"] for row in cohort["funnel"]}


def opened(name: str, record: RunRecord, config: Config) -> TrainedModel:
    """Return the network that the figures are of."""
    trained = name if names.is_registered(name) else f"runs:/{record.run}/{checkpoint.FILE}"
    uri = names.resolved(config.checkpoint or trained)
    if config.checkpoint not in (None, uri):
        warnings.warn(
            f"The run has recorded {config.checkpoint}, which is {uri} now: it may have used "
            "another version", FeatureStoreWarning, stacklevel=2,
        )  # fmt: skip
    model = registered_models.load(uri)
    if model.spec.classes != config.class_names:
        raise ArtifactError(
            "The model knows other classes than the configuration",
            found=f"{', '.join(model.spec.classes)}; {', '.join(config.class_names)}",
            fix="leave class_indices as it was recorded",
        )
    return model


def split_metrics(
    config: Config, split: str, tiles: TileSet, trained: TrainedModel
) -> dict[str, float]:
    """Return the figures of a network on some tiles; none where some have no label."""
    predictions, loss = predict_tile_set(trained, tiles, config)
    if not predictions.labelled:
        return {}
    return evaluation_metrics(evaluate(predictions, config.evidence, loss), split)


def out_of_fold(record: RunRecord, config: Config, snapshot: Snapshot) -> dict[str, float]:
    """Return the figures of the best setting's folds: its recorded predictions, on labels anew."""
    table = pq.read_table(uris.local_path(f"runs:/{record.run}/oof_predictions.parquet"))
    table = table.append_column("place", pa.array(np.arange(len(table))))
    fresh = snapshot.fold_set().keys.select([*KEYS, "target", "fold"])
    both = table.join(fresh, list(KEYS), join_type="inner", right_suffix="_now").sort_by("place")
    both = both.filter(pc.equal(both["fold"], both["fold_now"]))
    relabelled = both.set_column(both.column_names.index("target"), "target", both["target_now"])
    classes = config.class_names
    predictions = Predictions.from_table(relabelled, classes, config.evidence.resample)
    evaluation = evaluate(predictions, config.evidence)
    cells, folds = fold_confusions(predictions)
    score = selection.score([0.0] * folds, cells, classes)
    by_fold = {f"best/{name}": value for name, value in summary(score).items()}
    by_fold = {name: value for name, value in by_fold.items() if "loss" not in name}
    return by_fold | evaluation_metrics(evaluation, "oof")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
