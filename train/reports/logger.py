"""The logger of a run: MLflow, the console and the report get the same."""

import warnings
from collections.abc import Callable, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Concatenate, ParamSpec

import ibis.expr.types as ir

from featurestore.errors import FeatureStoreWarning
from featurestore.io import digests
from featurestore.io.names import is_registered
from featurestore.snapshots.snapshot import Snapshot
from train.engine.trainer import FitResult
from train.evaluation.calibration import Calibration
from train.evaluation.evaluate import Evaluation, encode_metrics
from train.evaluation.short_list import is_short
from train.fitting.selection import Choice
from train.fitting.settings import SettingResults
from train.models import checkpoint, onnx_graph
from train.models.checkpoint import TrainedModel
from train.models.training import Training
from train.predictions import partitions
from train.predictions.files import write_parquet
from train.predictions.table import Predictions
from train.reports import calibration as temperature
from train.reports import (
    card,
    encoders,
    evaluated,
    inputs,
    reproduce,
    results,
    review,
    settings,
    solver,
)
from train.reports import missing as missing_tiles
from train.reports import training as training_report
from train.reports.html import FILE, Page, write_page
from train.runtime.inputs import Inputs
from train.runtime.run import Run
from train.runtime.train_test_overlap import TrainTestOverlap
from train.tracking.names import encode_name

P = ParamSpec("P")
Method = Callable[Concatenate["RunLogger", P], None]


def on_main(method: Method[P]) -> Method[P]:
    """Make a method of a logger do nothing on any process but the first."""

    @wraps(method)
    def on_main_only(self: "RunLogger", *args: P.args, **kwargs: P.kwargs) -> None:
        if self.run.is_main:
            method(self, *args, **kwargs)

    return on_main_only


class RunLogger:
    """Records what a run reads, does and finds; on the first process alone.

    Every process may call it; what costs time to compute is given by the first.

    Parameters
    ----------
    run
        Says where to: its tracker, its console, its folder.

    Attributes
    ----------
    page
        The report of the run; written by `close`.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.config = run, run.config
        self.tracker, self.console, self.folder = run.tracker, run.console, run.folder
        self.classes = run.config.class_names
        if self.config.metrics == "short":
            self.tracker.is_logged = partial(is_short, classes=len(self.classes))
        self.page = Page()
        self.trained: Training | None = None
        self.registered: TrainedModel | None = None
        self.model_uri: str | None = None
        self.snapshots: Sequence[Snapshot] = ()
        self.overlap: TrainTestOverlap | None = None
        self.evaluated: dict[str, encoders.Evaluated] = {}
        self.tags: dict[str, str] = {}

    # -- what goes in -----------------------------------------------------------------------------

    @on_main
    def inputs(self, opened: Inputs) -> None:
        """Record what goes into a run: settings, versions, funnel, leaks, artifacts.

        Of several variants of the rules, the funnel and the folds of the first. What is resumed has
        recorded them, and tells them once more.
        """
        self.snapshots, self.overlap = opened.snapshots, opened.overlap
        self.tags = card.tags(self.config, opened.snapshots)
        self.tracker.tags(self.tags)
        if self.config.mode != "fit" and is_registered(self.config.checkpoint or ""):
            self.tracker.evaluates(str(self.config.checkpoint))
        inputs.record(self.run, self.page, opened)

    # -- a fit ------------------------------------------------------------------------------------

    @on_main
    def class_weights(self, weights: Sequence[float]) -> None:
        """Record the weight of each class in the loss of a single head."""
        named = zip(self.classes, weights, strict=True)
        self.tracker.metrics({f"class_weight/{encode_name(name)}": value for name, value in named})

    @on_main
    def solver(self, result: FitResult, names: Sequence[str], prefix: str = "solver") -> None:
        """Record how far heads are from their optimum, and mark those that ended before it.

        Parameters
        ----------
        names
            Of the heads; several have a run each, where `settings` records what is proven of them.
        prefix
            Begins the names of a single head's metrics.
        """
        if len(names) == 1:
            solver.record(self.tracker, result, prefix)
        solver.mark_unconverged(self.page, result, names)

    @on_main
    def calibration(self, calibration: Calibration, predictions: Predictions) -> None:
        """Record a temperature, and the calibration errors without and with it.

        Parameters
        ----------
        predictions
            Of the tiles that it was fitted on.
        """
        values = calibration.metrics
        self.tracker.metrics({f"calibration/{name}": value for name, value in values.items()})
        temperature.print_summary(self.console, calibration, predictions)
        temperature.add_to_page(self.page, calibration, predictions, self.config)
        if calibration.doubt:
            warnings.warn(calibration.doubt, FeatureStoreWarning, stacklevel=2)

    @on_main
    def settings(self, trained: SettingResults) -> None:
        """Record settings side by side, and each as a run of its own below this one."""
        settings.record(self.run, self.page, trained)

    @on_main
    def training(self, trained: Training) -> None:
        """Record how the registered head was trained, and what was selected by which figure."""
        self.trained = trained
        self.tracker.params(training_report.chosen(self.config, trained))
        training_report.print_summary(self.console, trained, self.config.mode)

    @on_main
    def registered_head(self, choice: Choice) -> None:
        """Record which fold's head is registered, and how good heads of its setting are.

        It is the head whose own fold was the easiest: the mean over folds tells more of it.
        """
        score = choice.score
        metrics = score.folds[choice.fold_index] | {"loss": choice.loss}
        means = {name: score.mean(name) for name in ("f1_macro", "accuracy", "balanced_accuracy")}
        self.tracker.params({"registered_fold": choice.fold})
        self.tracker.metrics(encode_metrics(means, "registered/validation"))
        self.tracker.metrics(encode_metrics(metrics, "registered_fold/validation"))

    @on_main
    def checkpoint(self, model: TrainedModel) -> None:
        """Write the checkpoint of the best epoch, whatever comes before it is registered."""
        checkpoint.save(self.folder / checkpoint.FILE, model)

    @on_main
    def model(self, model: TrainedModel) -> None:
        """Record the checkpoint and the model, and register it if it is to be."""
        tracking, file = self.config.tracking, self.folder / checkpoint.FILE
        self.registered = model
        self.tracker.checkpoint(file)
        if tracking.onnx:  # a file: a second model would be found where the best is looked for
            graph = self.folder / onnx_graph.FILE
            onnx_graph.write_onnx(model, graph)
            self.tracker.params({"onnx_sha256": digests.sha256(graph)})
            self.tracker.file(graph)
        name = tracking.model if tracking.register else None
        described = card.card(model, self.page.headlines, self.tags, self.run.command)
        self.model_uri = self.tracker.model(model, file, name, described)
        if self.model_uri:
            self.run.answers.print(f"model: {self.model_uri}", soft_wrap=True)

    # -- what comes out ---------------------------------------------------------------------------

    @on_main
    def predictions(self, predictions: Predictions, split: str, prefix: str = "") -> None:
        """Write and record predictions, and those that a person is to review.

        Parameters
        ----------
        split
            ``validation``, ``test`` or ``oof``.
        prefix
            Begins the names of files.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{prefix}predictions.parquet"
        self.tracker.file(write_parquet(file, predictions.table()))
        self.abstentions(predictions, prefix)
        if not predictions.labelled:
            tiles = f"{len(predictions):,} tiles predicted"
            self.console.print(f"{split}: {tiles}, not all have labels")

    @on_main
    def cohort(self, folder: Path, tiles: int, labelled: bool) -> None:
        """Record the predictions of a cohort, a file a slide.

        Parameters
        ----------
        tiles
            How many there are.
        labelled
            Whether all have labels.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tracker.folder(folder, partitions.FOLDER)
        if not labelled:
            self.console.print(f"predict: {tiles:,} tiles, not all have labels")

    @on_main
    def without_embedding(self, missing: ir.Table, predicted: int) -> None:
        """Say how many tiles that were asked for have no embedding, and list them in a file.

        Parameters
        ----------
        missing
            ``slide_id, x, y`` of them, a table of DuckDB.
        predicted
            How many have one.
        """
        number = missing_tiles.write(missing, self.folder)
        self.tracker.metrics({"predict/tiles_without_embedding": number})
        if number:
            file = self.folder / missing_tiles.FILE
            self.tracker.file(file)
            message = (
                f"{number:,} of {number + predicted:,} tiles have no embedding, listed in {file}"
            )
            self.console.print(message, soft_wrap=True)

    @on_main
    def abstentions(
        self, predictions: Predictions, prefix: str = "", tiles: int | None = None
    ) -> None:
        """Write the tiles whose prediction is less sure than ``abstain_below``, the least first."""
        review.record(self.run, predictions, prefix, tiles or len(predictions))

    @on_main
    def maps(self, folder: Path) -> None:
        """Record the maps of a folder under its name."""
        for file in sorted(folder.iterdir()):
            self.tracker.file(file, folder.name)

    @on_main
    def evaluation(self, evaluation: Evaluation, split: str, prefix: str = "") -> None:
        """Record how good predictions are: metrics with intervals, tables, pictures.

        Parameters
        ----------
        split
            Of what: metrics are named ``best/<split>/...``.
        prefix
            Begins the names of files.
        """
        if self.run.is_child:  # one of several, that are compared when all have been evaluated
            self.evaluated[split] = evaluation.predictions, evaluation.metrics
        evaluated.record(self.run, self.page, evaluation, split, prefix)

    @on_main
    def encoders(self, logs: Sequence["RunLogger"]) -> None:
        """Record encoders side by side, of which the runs below have been recorded.

        Parameters
        ----------
        logs
            Of these runs.
        """
        by_encoder = {str(log.config.data.encoder): log for log in logs}
        evaluated = {name: log.evaluated for name, log in by_encoder.items()}
        facts = {
            name: encoders.facts(log.run, log.snapshots[0], log.model_uri)
            for name, log in by_encoder.items()
        }
        best = by_encoder[encoders.record(self.run, self.page, evaluated, facts)]
        self.registered, self.model_uri = best.registered, best.model_uri
        if best.trained:
            self.trained = encoders.training_of_best(best.trained, encoders.TEST in best.evaluated)

    # -- all of it --------------------------------------------------------------------------------

    @on_main
    def close(self, evaluated: TrainedModel | None = None) -> None:
        """Finish the page; write it, and record it, if anybody can see it.

        Parameters
        ----------
        evaluated
            The network of a mode that trains none; a fit's own is known.
        """
        model, trained, mode = self.registered, self.trained, self.config.mode
        if evaluated:
            doubt = self.overlap.doubt if self.overlap else ""
            model, trained = evaluated, training_report.of_evaluated(evaluated, mode, doubt)
            if mode == "test":
                self.tracker.params({"untouched": trained.verdict})
            training_report.print_summary(self.console, trained, mode)
        if not self.run.visible:
            return
        self.tracker.describe(card.description(self.page.headlines, self.run.command))
        uri = self.model_uri if mode == "fit" else self.config.checkpoint
        reproduce.add_heading(self.page, self.run)
        results.add_model(self.page, self.config, model, trained, uri)
        reproduce.add_instructions(self.page, self.run, uri)
        file = self.folder / FILE
        write_page(file, self.page)
        self.tracker.file(file)
