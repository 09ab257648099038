"""Train, validate, test or apply a linear probe on tile embeddings.

    accelerate launch train/probe.py fold=4
    accelerate launch train/probe.py fold=all "sweep.learning_rate=[0.002,0.02]" final=true
    accelerate launch train/probe.py data=virchow2 data.runs.folds=... fold=4 thresholds.Fat=0.5
    accelerate launch train/probe.py 'data.embeddings={virchow2: URI, gigapath: URI}' fold=4 ...
    accelerate launch train/probe.py mode=test checkpoint=models:/tissue-probe/1

Many GPUs: `accelerate launch --multi_gpu train/probe.py fold=4`. Two CPU processes:
`ACCELERATE_USE_CPU=1 torchrun --nproc_per_node 2 train/probe.py fold=4`. The batch size of the
configuration is that of all processes together, so their number changes no result.

It reads top to bottom: configuration -> store -> data -> heads -> loop -> metrics -> register.
`--help` lists the keys.
"""

import sys

from train.config import installed

# What the extra `train` brings is looked for before it is imported: without it one refusal is told.
if __name__ == "__main__":
    installed.check_or_exit()

from train.config.help import check_or_exit

# Help and refused arguments must not wait for torch, MLflow and scikit-learn to be imported.
if __name__ == "__main__":
    check_or_exit(sys.argv[1:])

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow.dataset as ds

from train.config.encoders import encoders
from train.config.load import load
from train.config.schema import Config
from train.engine.trainer import FitResult, Trainer
from train.evaluation.evaluate import evaluate
from train.fitting.divergence import check_finite
from train.fitting.encoders import prepare_encoders
from train.fitting.held_out import HeldOut
from train.fitting.load import Shards, embedding_transform, load_shards
from train.fitting.network import build_network
from train.fitting.prepare import Job, prepare_fit
from train.fitting.selection import Choice, select_setting
from train.fitting.settings import SettingResults
from train.fitting.trainers import build_final_trainer, build_trainer, build_voters
from train.fitting.training import describe_training
from train.inference.prepare import PredictionJob, prepare_prediction
from train.inference.stream import predict_cohort
from train.inference.tiles import predict_split, read_cohort, read_doubtful, vote_split
from train.overlays.checks import check_maps
from train.predictions import files
from train.predictions.table import Predictions
from train.reports.history import GridHistory, HeadHistory, History
from train.reports.logger import RunLogger
from train.runtime.fit_state import FileCheckpointer, end_if_lost
from train.runtime.inputs import Inputs
from train.runtime.lifecycle import exit_status, start_child, start_run
from train.runtime.progress import EpochBar
from train.runtime.run import Run
from train.runtime.shutdown import Shutdown

Work = Callable[[Run, RunLogger, Any], None]

# -- configuration -> store -----------------------------------------------------------------------


def main(argv: list[str]) -> int:
    """Run the script; return the exit status, 2 after a refusal, 143 after SIGTERM."""
    return exit_status(lambda shutdown, command: run_mode(load(argv), shutdown, command), argv)


def run_mode(config: Config, shutdown: Shutdown, command: str = "") -> None:
    """Do what ``config.mode`` says; the same code on every process."""
    prepare, work = MODES["encoders" if encoders(config) else config.mode]
    # Accelerate's processes meet; the main one alone opens MLflow, store and snapshots, and refuses
    # whatever can be refused: nothing is written yet, and no embedding is read.
    with start_run(config, prepare, check_maps, shutdown, command) as (run, job, inputs):
        record(run, job, inputs, work)


def record(run: Run, job: Any, inputs: Inputs | None, work: Work) -> RunLogger:
    """Do the work of a run; console, MLflow and report.html are told the same."""
    log = RunLogger(run)
    if inputs:
        log.inputs(inputs)  # versions, digests, funnel, leakage
    end_if_lost(run)  # a tracking server that was lost ends all processes, here as below
    work(run, log, job)
    log.close(job.model)  # report.html
    return log


def fit_encoders(run: Run, log: RunLogger, job: Job) -> None:
    """Fit on the embeddings of one encoder after another, the tiles the same; compare them."""
    logs = []
    for each in job.encoders:  # each in a run below this one, with a model of its own
        tracker = each.inputs.tracker if each.inputs else None
        with start_child(run, each, tracker) as child:
            logs.append(record(child, each, each.inputs, fit))
    log.encoders(logs)  # a leaderboard, and what each pair differs by


# -- data -> heads -> loop ------------------------------------------------------------------------


def fit(run: Run, log: RunLogger, job: Job) -> None:
    """Train a head for every setting and fold in one pass over the embeddings; keep the best."""
    config, processes, grid = run.config, run.processes, job.grid
    assert grid
    assert job.table is not None  # of no tile, but on the main rank
    # This rank's rows, in memory or read as they are used. Of `fold=4` the validation tiles are
    # a shard of their own; else all folds are one shard, and masks tell the heads apart.
    shards = load_shards(job.table, grid, config, processes)
    trainer = build_trainer(config, grid, shards, processes)
    history = HeadHistory(run) if grid.is_single else GridHistory(grid)
    result = train(run, log, trainer, history)
    log.solver(result, grid.names)  # L-BFGS says how far it is from the optimum

    # -- metrics ----------------------------------------------------------------------------------

    choice = select_setting(grid, result, config)  # highest mean macro F1; a lower loss breaks ties
    heads, places = grid.of_setting(choice.setting), shards.share.place
    held_out = HeldOut(grid, choice, job.table)
    if config.calibrate:  # a temperature, fitted on the logits of tiles that their heads never saw
        logits = processes.assemble(result.out_of_fold_logits(heads), places, len(job.table))
        calibration, choice = processes.on_main(lambda: held_out.calibrate(logits, result, config))
        result = result.with_temperature(calibration.temperature)
    # Each tile from the head that has not seen it, on the main rank, which records them.
    probabilities = processes.assemble(result.out_of_fold(heads), places, len(job.table))
    predictions = held_out.predictions(probabilities, config)
    if isinstance(history, HeadHistory):
        log.class_weights(result.problem.losses.class_weights[0].tolist())
        publish(run, log, predictions, "validation", choice.loss)
    else:
        publish(run, log, predictions, "oof")
        scores, losses = choice.scores, history.losses
        log.settings(SettingResults(
            grid, scores, choice.setting, losses, result.diagnostics, choice.curve
        ))  # fmt: skip
    if config.calibrate:
        log.calibration(calibration, predictions)

    # -- register ---------------------------------------------------------------------------------

    # What was trained, and selected by which figure: parameters, page and card say it alike.
    is_tested = bool(job.held_out) and not job.doubt  # of tiles that were trained on no figure is
    training = replace(describe_training(config, grid, choice, is_tested), doubt=job.doubt)
    log.training(training)
    if config.probe == "knn":  # votes of neighbours have no weights: no model is registered
        evaluate_votes(run, log, job, shards, choice)
        return
    head = choice.head  # of the best setting's heads the one with the lowest validation loss
    if config.final:  # or one more, on all folds, for as many epochs as they took at the median
        trainer = build_final_trainer(config, grid, shards, processes, choice)
        final = train(run, log, trainer, GridHistory(None))
        log.solver(final, ["the final head"], "final/solver")
        result, head = final.with_temperature(result.temperature), 0
    elif not grid.is_single:
        log.registered_head(choice)
    # Standardisation and temperature go into the weights: what is served takes raw embeddings.
    network = build_network(result, head, config)
    model = replace(network, training=training, encoder=config.data.encoder)
    model = replace(model, snapshot=job.digests[grid.settings[choice.setting].variant])
    log.checkpoint(model)
    if job.held_out:  # under the same rules, and looked at once, after every choice was made
        tiles = job.held_out[grid.settings[choice.setting].variant]
        evaluate_model(run, log, replace(job, model=model, tiles=tiles))
    log.model(model)


def train(run: Run, log: RunLogger, trainer: Trainer, history: History) -> FitResult:
    """Train all heads; every epoch is recorded and saved, so that a killed fit can go on."""
    config, alone = run.config, len(trainer.problem.heads) == 1
    state = FileCheckpointer(run, trainer, history)
    if isinstance(history, HeadHistory):  # what is left of a fit whose tracking server was lost
        state.save_best = lambda: log.checkpoint(build_network(trainer.result(), 0, config))
    state.restore()  # resume=true: bit for bit where it was
    with EpochBar(run.console, config.max_epochs, rows=len(trainer.problem.train)) as bar:
        for epoch in trainer:  # AdamW: epochs; L-BFGS: iterations; ridge, lda, neighbours: none
            bar.update(epoch)
            if alone:  # of several heads, one that diverges leaves, and the others go on
                check_finite(epoch, config)
            history.epoch(epoch)  # losses; of one head alone its confusion matrix as well
            state.save()
    result = trainer.result()  # every head as it was at its best epoch
    history.close(result)
    return result


# -- the other modes ------------------------------------------------------------------------------


def evaluate_model(run: Run, log: RunLogger, job: Job) -> None:
    """Evaluate a network on validation tiles of a fold, or on held-out ones; all ranks share it."""
    assert job.model and job.tiles
    predictions, loss = predict_split(job.model, job.tiles, run.processes, run.config)
    split = "validation" if run.config.mode == "validate" else "test"
    publish(run, log, predictions, split, loss)


def evaluate_votes(run: Run, log: RunLogger, job: Job, shards: Shards, choice: Choice) -> None:
    """Let the tiles of all folds vote on held-out ones, under the rules of the best setting."""
    config, processes, grid = run.config, run.processes, job.grid
    assert grid
    if job.held_out:
        voters = build_voters(config, grid, shards, processes, choice)
        tiles = job.held_out[grid.settings[choice.setting].variant]
        transform = embedding_transform(config)
        predictions, loss = vote_split(voters, transform, tiles, processes, config)
        publish(run, log, predictions, "test", loss)


def predict(run: Run, log: RunLogger, job: PredictionJob) -> None:
    """Predict a whole cohort in a stream, a file a slide; labels are not needed."""
    config, cohort = run.config, job.cohort
    predict_cohort(run, cohort, job.model)
    if not run.is_main:
        return
    log.cohort(run.states, len(cohort), cohort.labelled)
    assert cohort.missing is not None
    log.without_embedding(cohort.missing, len(cohort))
    draw_maps(run, log, files.dataset(str(run.states), None))
    if config.abstain_below is not None:  # of all predictions those that are doubtful are read
        log.abstentions(read_doubtful(run.states, job.model.spec, config), tiles=len(cohort))
    if cohort.labelled:
        predictions, loss = read_cohort(run.states, job.model.spec, config)
        log.evaluation(evaluate(predictions, config.evidence, loss), "predict")


def publish(
    run: Run, log: RunLogger, predictions: Predictions, split: str, loss: float | None = None
) -> None:
    """Record predictions, their maps and, where there are labels, how good they are."""
    if not run.is_main:
        return
    prefix = "oof_" if split == "oof" else ""
    log.predictions(predictions, split, prefix)
    draw_maps(run, log, ds.dataset(predictions.table()), prefix)
    if predictions.labelled:  # computed by a pure function, then recorded
        evaluation = evaluate(predictions, run.config.evidence, loss)
        log.evaluation(evaluation, split, prefix)


def draw_maps(run: Run, log: RunLogger, predicted: ds.Dataset, prefix: str = "") -> None:
    """Draw predictions as maps that a pathologist opens, if there are to be any."""
    if run.config.maps.slides:
        from train.overlays.write import write_overlays  # wants the extra `maps`

        name = f"{prefix}maps"
        log.maps(write_overlays(predicted, run.config, run.folder, run.console, name))


MODES: dict[str, tuple[Callable[..., Any], Work]] = {
    "fit": (prepare_fit, fit),
    "encoders": (prepare_encoders, fit_encoders),
    "validate": (prepare_fit, evaluate_model),
    "test": (prepare_fit, evaluate_model),
    "predict": (prepare_prediction, predict),
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
