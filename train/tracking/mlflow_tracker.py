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
from train.tracking.lost_server import survives_lost_server
from train.tracking.provenance import git_commit
from train.tracking.runs import FIGURES, get_run
from train.tracking.stale_state import clear_stale_state
from train.tracking.tracker import Step, log_all
from train.tracking.version_files import DIGESTS_TAG

TABLES = "mlflow.loggedArtifacts"  # the tag by which MLflow shows artifacts as tables
SYSTEM = "system/"  # begins the names of MLflow's metrics of the machine
DESCRIPTION = "mlflow.note.content"  # the tag that MLflow shows as the description of a run


class MlflowTracker:
    """One MLflow run.

    A resumed run records nothing twice: logged steps of a metric stay, a table is replaced,
    nested runs and unregistered models are deleted, a version that was registered is returned.

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
        clear_stale_state(experiment)
        self.experiment, self.run_name, self.nested = experiment, run_name, nested
        self.system_metrics = system_metrics
        self.run: str | None = None
        self.outer_runs: set[str] = set()  # active in this process before this one
        self.failure: TrackingError | None = None
        self.is_resumed = False
        self.resumed_children: frozenset[str] = frozenset()
        self.logged_steps: dict[str, set[int]] = {}  # of a resumed run: steps by metric
        self.tables: list[str] = []
        self.datasets: dict[str, str] = {}  # the digests of the inputs by name
        self.run_tags: dict[str, str] = {}  # its model gets them as well
        self.evaluated_model: str | None = None  # id of the model whose metrics are recorded
        self.is_logged: Callable[[str], bool] = log_all
        self.run_metrics: dict[str, float] = {}  # all that are of the run and of no step
        self.model_metrics: list[Any] = []  # those of them that are logged, for its model
        self.experiment_id: str | None = None
        self.child_run: str | None = None  # id of the nested run that is recorded now

    @cached_property
    def client(self) -> Any:
        """MLflow's client; one, since each asks anew where its stores are."""
        import mlflow

        return mlflow.MlflowClient()

    @property
    def _current_run(self) -> str:
        """The id of the run that is recorded now."""
        assert self.run
        return self.child_run or self.run

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
            self.outer_runs = {other.info.run_id}
        self.is_resumed = self.run is not None
        if self.run:
            get_run(self.run)  # it may be recorded elsewhere, or deleted since
        name = None if self.run else self.run_name
        run = mlflow.start_run(
            run_id=self.run,
            run_name=name,
            nested=bool(self.outer_runs),
            log_system_metrics=self.system_metrics or None,  # or as MLflow's own variable says
        )
        self.run, self.experiment_id = run.info.run_id, run.info.experiment_id
        if self.outer_runs and not self.is_resumed and not self.nested:
            mlflow.delete_tag("mlflow.parentRunId")
        if self.is_resumed:
            self._load_recorded(run)
        if commit := git_commit():
            self.client.set_tag(self.run, "mlflow.source.git.commit", commit)

    def _load_recorded(self, run: Any) -> None:
        """Load what a resumed run has recorded; delete nested runs and models, which it makes anew.

        A model that is registered stays.
        """
        import mlflow

        client, experiment = self.client, run.info.experiment_id
        for key in run.data.metrics:
            history = client.get_metric_history(self.run, key)
            self.logged_steps[key] = {entry.step for entry in history}
            if {entry.step for entry in history} == {0} and not key.startswith(SYSTEM):
                self.model_metrics += [entry for entry in history if not entry.model_id]
        self.tables = [entry["path"] for entry in json.loads(run.data.tags.get(TABLES, "[]"))]
        inputs = (one.dataset for one in run.inputs.dataset_inputs)
        self.datasets = {dataset.name: dataset.digest for dataset in inputs}
        for nested in client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{self.run}'"):
            if nested.info.run_id not in self.resumed_children:
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
            if not all(map(self.is_logged, self.run_metrics)):
                values = map(float, self.run_metrics.values())
                self.table({"metric": [*self.run_metrics], "value": [*values]}, FIGURES)
            if self.tables:
                entries = [{"path": name, "type": "table"} for name in self.tables]
                self.client.set_tag(self.run, TABLES, json.dumps(entries))
            mlflow.end_run("FINISHED")

    def end_open_runs(self, status: str) -> None:
        """End the runs that are open, asking once: MLflow would at exit, with all its retries."""
        import mlflow

        with tracking_server.impatient():
            while (active := mlflow.active_run()) and active.info.run_id not in self.outer_runs:
                with suppress(Exception):
                    mlflow.end_run(status)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        killed = kind is not None and issubclass(kind, KeyboardInterrupt)
        self.end_open_runs("KILLED" if killed else "FAILED")
        if kind is None and self.failure:
            raise self.failure

    @contextmanager
    def child(self, name: str) -> Iterator[None]:
        """Record what is recorded meanwhile under a nested run."""
        self._start_child(name)
        yield
        self._end_child()

    @survives_lost_server
    def _start_child(self, name: str) -> None:
        import mlflow

        nested = mlflow.start_run(run_name=name, nested=True, experiment_id=self.experiment_id)
        self.child_run = nested.info.run_id

    @survives_lost_server
    def _end_child(self) -> None:
        import mlflow

        self.child_run = None
        mlflow.end_run()

    @survives_lost_server
    def params(self, values: Mapping[str, Any]) -> None:
        """Record parameters."""
        from mlflow.entities import Param

        texts = (Param(key, redacted(str(value))) for key, value in values.items())
        for batch in batched(texts, PARAMS):
            self.client.log_batch(self._current_run, params=batch)

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record numbers."""
        if step is None and self.child_run is None:
            self.run_metrics |= values
        self.steps([Step(step or 0, time.time(), values)])

    @survives_lost_server
    def steps(self, steps: Sequence[Step]) -> None:
        """Record the numbers of several steps together."""
        from mlflow.entities import Metric

        is_own = self.child_run is None
        logged = self.logged_steps if is_own else {}
        fresh = [
            Metric(key, float(value), int(1000 * step.time), step.number)
            for step in steps
            for key, value in step.values.items()
            if self.is_logged(key) and step.number not in logged.get(key, ())
        ]
        if self.evaluated_model:
            fresh = logged_model.metrics_of_model(
                fresh, self.evaluated_model, self._current_run, self.datasets
            )
        for batch in batched(fresh, METRICS):
            self.client.log_batch(self._current_run, metrics=batch)
        # A model is shown with the metrics of its best epoch, not with those of epoch 0.
        if is_own:
            self.model_metrics += [metric for metric in fresh if metric.key in self.run_metrics]

    @survives_lost_server
    def text(self, content: str, name: str) -> None:
        """Record a text as an artifact."""
        self.client.log_text(self._current_run, redacted(content), name)

    @survives_lost_server
    def table(self, columns: Mapping[str, list[Any]], name: str) -> None:
        """Record a table, shown as such in the UI; one that is there is replaced."""
        self.client.log_text(self._current_run, as_json(columns), name)
        if name not in self.tables:
            self.tables.append(name)

    @survives_lost_server
    def file(self, path: Path, folder: str | None = None) -> None:
        """Record a file as an artifact."""
        self.client.log_artifact(self._current_run, str(path), folder)

    @survives_lost_server
    def checkpoint(self, path: Path) -> None:
        """Record a file as an artifact, and its digest in a tag of the run."""
        self.client.set_tag(self._current_run, DIGESTS_TAG, version_files.line(path, path.name))
        self.client.log_artifact(self._current_run, str(path))

    @survives_lost_server
    def folder(self, path: Path, name: str) -> None:
        """Record all that is in a folder under a name."""
        self.client.log_artifacts(self._current_run, str(path), name)

    @survives_lost_server
    def dataset(self, name: str, uri: str, digests: Mapping[str, str], context: str) -> None:
        """Record an input with its digests (MLflow keeps 36 characters; all stand in tags)."""
        dataset = datasets.dataset(name, uri, next(iter(digests.values())))
        datasets.log(dataset, context, {"uri": redacted(uri), **digests})
        self.datasets[name] = dataset.digest

    @survives_lost_server
    def tags(self, values: Mapping[str, str]) -> None:
        """Record tags, by which a run is searched for; its model gets them as well."""
        self.run_tags = {key: redacted(value) for key, value in values.items()}
        for key, value in self.run_tags.items():
            self.client.set_tag(self._current_run, key, value)

    @survives_lost_server
    def describe(self, text: str) -> None:
        """Write the description of the run, which MLflow shows as Markdown."""
        self.client.set_tag(self._current_run, DESCRIPTION, redacted(text)[: registry.LONGEST])

    @survives_lost_server
    def evaluates(self, uri: str) -> None:
        """Let the figures that follow be those of a registered version as well."""
        if self.run:
            self.evaluated_model = logged_model.use(self.client, self.run, uri)

    @survives_lost_server
    def model(
        self, trained: TrainedModel, checkpoint: Path, name: str | None, card: str = ""
    ) -> str | None:
        """Record the model as an exported graph (no pickle), register it; return its URI.

        A registered version has the card as its description, and the tags of the run.
        """
        described = logged_model.ModelDescription(card, self.run_tags, self.datasets)
        for version in self._versions() if self.is_resumed else []:
            if name and version.name == name:
                if DIGESTS_TAG not in version.tags:  # it was cut off before
                    logged_model.complete_version(name, str(version.version), described)
                return f"models:/{name}/{version.version}"
        model = logged_model.log(
            self.client.get_run(self.run), trained, checkpoint, self.model_metrics, described
        )
        return logged_model.register(model, name, described) if name else model
