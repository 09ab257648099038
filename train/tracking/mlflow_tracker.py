"""A run recorded in MLflow, whose server may be lost in its midst."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from featurestore.errors import ArtifactError, TrackingError
from featurestore.io import preflight, tracking_server
from featurestore.io.mlflow_artifacts import make_tables, use_tracking
from featurestore.redaction import redacted
from train.models.checkpoint import TrainedModel
from train.predictions.files import as_json
from train.tracking import datasets, logged_model, registry, version_files
from train.tracking.batches import METRICS, PARAMS, batched
from train.tracking.experiments import open_experiment
from train.tracking.left_over import forget_left_over
from train.tracking.lost_server import survives_lost_server
from train.tracking.provenance import git_commit
from train.tracking.runs import FIGURES, get_run
from train.tracking.tracker import Step, every
from train.tracking.version_files import DIGESTS_TAG

TABLES = "mlflow.loggedArtifacts"  # the tag by which MLflow shows artifacts as tables
SYSTEM = "system/"  # begins the names of MLflow's metrics of the machine
DESCRIPTION = "mlflow.note.content"  # the tag that MLflow shows as the description of a run


class MlflowTracker:
    """One MLflow run.

    A run that goes on records nothing twice: what it holds of a metric stays, a table is replaced,
    a nested run or a model that was cut off goes, a version that was registered is returned.

    Parameters
    ----------
    uri
        Tracking URI, see `featurestore.io.mlflow_artifacts.use_tracking`.
    experiment, run_name
        As in MLflow.
    model
        Name in the registry of the model that the run will make; None if it registers none.
    nested
        Whether it is a run below the one that is active when it starts.
    system_metrics
        Whether MLflow is to record, beside it, how busy the machine is.

    Raises
    ------
    ArtifactError
        There is no psutil, which reads that.
    TrackingError
        The run could not be recorded, see `featurestore.io.preflight.check`.
    """

    def __init__(
        self,
        uri: str | None,
        experiment: str,
        run_name: str | None,
        model: str | None = None,
        *,
        nested: bool = False,
        system_metrics: bool = False,
    ) -> None:
        if system_metrics and find_spec("psutil") is None:
            raise ArtifactError(
                "tracking.system_metrics=true needs psutil, which reads them",
                found="no package psutil",
                fix="pip install 'tissue-probe[train]', or leave it out",
            )
        self.uri = use_tracking(uri)
        if preflight.is_made(self.uri):
            make_tables()  # another run's first process may be in the midst of it
        preflight.check(self.uri, experiment, model)
        forget_left_over(experiment)
        self.experiment, self.run_name, self.nested = experiment, run_name, nested
        self.system_metrics = system_metrics
        self.run: str | None = None
        self.beside: set[str] = set()  # runs of others, left active in this process
        self.failure: TrackingError | None = None
        self.goes_on = False
        self.going_on: frozenset[str] = frozenset()
        self.logged_steps: dict[str, set[int]] = {}  # of a run that goes on: steps by metric
        self.first: list[Any] = []  # those of them that are logged
        self.tables: list[str] = []
        self.datasets: dict[str, str] = {}  # the digests of the inputs by name
        self.named: dict[str, str] = {}  # the tags by which the run and its model are found
        self.evaluated: str | None = None  # the id of the model whose figures are recorded
        self.shown: Callable[[str], bool] = every
        self.figures: dict[str, float] = {}  # metrics of the run that are of no step: all
        self.experiment_id: str | None = None
        self.below: str | None = None  # the nested run that is recorded now

    @cached_property
    def client(self) -> Any:
        """MLflow's client; one, since each asks anew where its stores are."""
        import mlflow

        return mlflow.MlflowClient()

    @property
    def _now(self) -> str:
        """The id of the run that is recorded now."""
        assert self.run
        return self.below or self.run

    @property
    def records(self) -> bool:
        """Whether the server is there to record anything."""
        return self.failure is None

    def __enter__(self) -> "MlflowTracker":
        self._start()
        return self

    @survives_lost_server
    def _start(self) -> None:
        import mlflow

        make_tables()
        open_experiment(self.client, self.experiment)
        if other := mlflow.active_run():
            self.beside = {other.info.run_id}
        self.goes_on = self.run is not None
        if self.run:
            get_run(self.run)  # it may be recorded elsewhere, or deleted since
        name = None if self.run else self.run_name
        run = mlflow.start_run(
            run_id=self.run,
            run_name=name,
            nested=bool(self.beside),
            log_system_metrics=self.system_metrics or None,  # or as MLflow's own variable says
        )
        self.run, self.experiment_id = run.info.run_id, run.info.experiment_id
        if self.beside and not self.goes_on and not self.nested:
            mlflow.delete_tag("mlflow.parentRunId")
        if self.goes_on:
            self._look_back(run)
        if commit := git_commit():
            self.client.set_tag(self.run, "mlflow.source.git.commit", commit)

    def _look_back(self, run: Any) -> None:
        """See what a run that goes on holds; delete its nested runs and models: it makes them anew.

        A model that is registered stays.
        """
        import mlflow

        client, experiment = self.client, run.info.experiment_id
        for key in run.data.metrics:
            history = client.get_metric_history(self.run, key)
            self.logged_steps[key] = {entry.step for entry in history}
            if {entry.step for entry in history} == {0} and not key.startswith(SYSTEM):
                self.first += [entry for entry in history if not entry.model_id]
        self.tables = [entry["path"] for entry in json.loads(run.data.tags.get(TABLES, "[]"))]
        inputs = (one.dataset for one in run.inputs.dataset_inputs)
        self.datasets = {dataset.name: dataset.digest for dataset in inputs}
        for nested in client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{self.run}'"):
            if nested.info.run_id not in self.going_on:
                client.delete_run(nested.info.run_id)
        registered = {version.source for version in self._versions()}
        for model in mlflow.search_logged_models(
            [experiment], f"source_run_id = '{self.run}'", output_format="list"
        ):
            if model.model_uri not in registered:
                client.delete_logged_model(model.model_id)

    def _versions(self) -> list[Any]:
        return list(self.client.search_model_versions(f"run_id = '{self.run}'"))

    def where(self) -> str:
        """Return the run's id and how to see it."""
        look = f"mlflow ui --backend-store-uri {self.uri}" if "://" in self.uri else "mlflow ui"
        return redacted(
            f"run: {self.run} ({self.uri if tracking_server.over_http(self.uri) else look})"
        )

    @survives_lost_server
    def finish(self) -> None:
        """End the run, if it has not ended; no other one."""
        import mlflow

        active = mlflow.active_run()
        if active and active.info.run_id == self.run:
            if not all(map(self.shown, self.figures)):
                names, values = [*self.figures], [float(each) for each in self.figures.values()]
                self.table({"metric": names, "value": values}, FIGURES)
            if self.tables:
                entries = [{"path": name, "type": "table"} for name in self.tables]
                self.client.set_tag(self.run, TABLES, json.dumps(entries))
            mlflow.end_run("FINISHED")

    def leave(self, status: str) -> None:
        """End what is left open, asking once: MLflow would at exit, with all its patience."""
        import mlflow

        with tracking_server.impatient():
            while (active := mlflow.active_run()) and active.info.run_id not in self.beside:
                with suppress(Exception):
                    mlflow.end_run(status)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        killed = kind is not None and issubclass(kind, KeyboardInterrupt)
        self.leave("KILLED" if killed else "FAILED")
        if kind is None and self.failure:
            raise self.failure

    @contextmanager
    def child(self, name: str) -> Iterator[None]:
        """Record what is recorded meanwhile under a nested run."""
        self._begin(name)
        yield
        self._end()

    @survives_lost_server
    def _begin(self, name: str) -> None:
        import mlflow

        nested = mlflow.start_run(run_name=name, nested=True, experiment_id=self.experiment_id)
        self.below = nested.info.run_id

    @survives_lost_server
    def _end(self) -> None:
        import mlflow

        self.below = None
        mlflow.end_run()

    @survives_lost_server
    def params(self, values: Mapping[str, Any]) -> None:
        """Record parameters."""
        from mlflow.entities import Param

        texts = (Param(key, redacted(str(value))) for key, value in values.items())
        for batch in batched(texts, PARAMS):
            self.client.log_batch(self._now, params=batch)

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record numbers."""
        if step is None and self.below is None:
            self.figures |= values
        self.steps([Step(step or 0, time.time(), values)])

    @survives_lost_server
    def steps(self, steps: Sequence[Step]) -> None:
        """Record the numbers of several steps together."""
        from mlflow.entities import Metric

        is_own = self.below is None
        logged = self.logged_steps if is_own else {}
        fresh = [
            Metric(key, float(value), int(1000 * step.time), step.number)
            for step in steps
            for key, value in step.values.items()
            if self.shown(key) and step.number not in logged.get(key, ())
        ]
        if self.evaluated:
            fresh = logged_model.figures(fresh, self.evaluated, self._now, self.datasets)
        for batch in batched(fresh, METRICS):
            self.client.log_batch(self._now, metrics=batch)
        # Of a model that of the best epoch is told, and not what the first one was.
        self.first += [metric for metric in fresh if is_own and metric.key in self.figures]

    @survives_lost_server
    def text(self, content: str, name: str) -> None:
        """Record a text as an artifact."""
        self.client.log_text(self._now, redacted(content), name)

    @survives_lost_server
    def table(self, columns: Mapping[str, list[Any]], name: str) -> None:
        """Record a table, shown as such in the UI; one that is there is replaced."""
        self.client.log_text(self._now, as_json(columns), name)
        if name not in self.tables:
            self.tables.append(name)

    @survives_lost_server
    def file(self, path: Path, folder: str | None = None) -> None:
        """Record a file as an artifact."""
        self.client.log_artifact(self._now, str(path), folder)

    @survives_lost_server
    def checkpoint(self, path: Path) -> None:
        """Record a file as an artifact, and its digest in a tag of the run."""
        self.client.set_tag(self._now, DIGESTS_TAG, version_files.line(path, path.name))
        self.client.log_artifact(self._now, str(path))

    @survives_lost_server
    def folder(self, path: Path, name: str) -> None:
        """Record all that is in a folder under a name."""
        self.client.log_artifacts(self._now, str(path), name)

    @survives_lost_server
    def dataset(self, name: str, uri: str, digests: Mapping[str, str], context: str) -> None:
        """Record an input with its digests (MLflow keeps 36 characters; all stand in tags)."""
        dataset = datasets.dataset(name, uri, next(iter(digests.values())))
        datasets.log(dataset, context, {"uri": redacted(uri), **digests})
        self.datasets[name] = dataset.digest

    @survives_lost_server
    def tags(self, values: Mapping[str, str]) -> None:
        """Record tags, by which a run is searched for; its model gets them as well."""
        self.named = {key: redacted(value) for key, value in values.items()}
        for key, value in self.named.items():
            self.client.set_tag(self._now, key, value)

    @survives_lost_server
    def describe(self, text: str) -> None:
        """Write the description of the run, which MLflow shows as Markdown."""
        self.client.set_tag(self._now, DESCRIPTION, redacted(text)[: registry.LONGEST])

    @survives_lost_server
    def evaluates(self, uri: str) -> None:
        """Let the figures that follow be those of a registered version as well."""
        if self.run:
            self.evaluated = logged_model.use(self.client, self.run, uri)

    @survives_lost_server
    def model(
        self, trained: TrainedModel, checkpoint: Path, name: str | None, card: str = ""
    ) -> str | None:
        """Record the model as an exported graph (no pickle), register it; return its URI.

        A registered version has the card as its description, and the tags of the run.
        """
        described = logged_model.Described(card, self.named, self.datasets)
        for version in self._versions() if self.goes_on else []:
            if name and version.name == name:
                if DIGESTS_TAG not in version.tags:  # it was cut off before
                    logged_model.complete_version(name, str(version.version), described)
                return f"models:/{name}/{version.version}"
        model = logged_model.log(
            self.client.get_run(self.run), trained, checkpoint, self.first, described
        )
        return logged_model.register(model, name, described) if name else model
