"""A trained model among those that MLflow has logged, and its version in the registry."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featurestore.io import names
from featurestore.io.mlflow_artifacts import silenced
from train.models.checkpoint import TrainedModel
from train.tracking import model_folder, registry, version_files
from train.tracking.batches import METRICS, batched
from train.tracking.datasets import dataset_of_metric

NAME = "model"
LOGGED = "models:/"  # begins the source of a version that is a logged model, before its id


@dataclass(frozen=True)
class ModelDescription:
    """What a model is registered with beside its files.

    Parameters
    ----------
    card
        For people, as Markdown; the description of its version.
    tags
        By which it is searched for.
    datasets
        Digests of what its figures are of, by name.
    """

    card: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    datasets: Mapping[str, str] = field(default_factory=dict)


def metrics_of_model(
    metrics: Sequence[Any], model: str, run: str, datasets: Mapping[str, str]
) -> list[Any]:
    """Return metrics of a run as metrics of a model, each on the dataset that it is of.

    Parameters
    ----------
    metrics
        As MLflow records them.
    model, run
        Their ids.
    datasets
        Digests by name.
    """
    from mlflow.entities import Metric

    return [
        Metric(
            each.key, each.value, each.timestamp, each.step, model,
            *dataset_of_metric(each.key, datasets), run,
        )
        for each in metrics
    ]  # fmt: skip


def use(client: Any, run: str, uri: str) -> str | None:
    """Record a registered version as an input of a run; return its model's id, if it has one.

    Parameters
    ----------
    uri
        ``models:/NAME/VERSION``.
    """
    from mlflow.entities import LoggedModelInput

    model, number = names.numbered(uri)
    source = str(client.get_model_version(model, number).source)
    if not source.startswith(LOGGED):
        return None
    client.log_inputs(run, models=[LoggedModelInput(source.removeprefix(LOGGED))])
    return source.removeprefix(LOGGED)


def log(
    run: Any,
    trained: TrainedModel,
    checkpoint: Path,
    metrics: Sequence[Any],
    described: ModelDescription,
) -> str:
    """Log a model as an exported graph (no pickle); return its URI.

    Parameters
    ----------
    run
        MLflow's record of the run that trained it.
    checkpoint
        Its file, kept beside the graph.
    metrics
        Of the run, which the model is shown with; as MLflow recorded them.
    """
    import mlflow
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus
    from mlflow.models import Model

    client, run_id = mlflow.MlflowClient(), run.info.run_id
    model = mlflow.initialize_logged_model(
        name=NAME, source_run_id=run_id, params=dict(run.data.params), tags=dict(described.tags)
    )
    status = LoggedModelStatus.FAILED
    try:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        of_model = metrics_of_model(metrics, model.model_id, run_id, described.datasets)
        for batch in batched(of_model, METRICS):
            client.log_batch(run_id, metrics=batch)
        with tempfile.TemporaryDirectory() as scratch:
            recorded = Model(
                artifact_path=model.artifact_location, model_uuid=model.model_id, run_id=run_id,
                model_id=model.model_id,
            )  # fmt: skip
            folder = Path(scratch) / NAME
            model_folder.write(folder, recorded, trained, checkpoint)
            client.log_model_artifacts(model.model_id, str(folder))
        status = LoggedModelStatus.READY
    finally:
        client.finalize_logged_model(model.model_id, status)
    return str(model.model_uri)


def register(uri: str, name: str, described: ModelDescription) -> str:
    """Make a logged model a version of a registered one; return its URI."""
    import mlflow

    with silenced():
        number = str(mlflow.register_model(uri, name).version)
    complete_version(name, number, described)
    return f"models:/{name}/{number}"


def complete_version(model: str, number: str, described: ModelDescription) -> None:
    """Describe and tag a version that was registered; it ends with the digests of its files."""
    registry.describe(model, number, described.card, described.tags)
    version_files.record_digests(model, number)
