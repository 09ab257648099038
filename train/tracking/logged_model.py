"""A trained model among those that MLflow has logged, and its version in the registry."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from train.models.checkpoint import TrainedModel
from train.tracking import model_folder, registry

NAME = "model"
AT_ONCE = 1000  # metrics of a request


def log(run: Any, trained: TrainedModel, checkpoint: Path, metrics: Sequence[Any]) -> str:
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
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric
    from mlflow.models import Model

    client, run_id = mlflow.MlflowClient(), run.info.run_id
    model = mlflow.initialize_logged_model(
        name=NAME, source_run_id=run_id, params=dict(run.data.params)
    )
    status = LoggedModelStatus.FAILED
    try:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        of_model = [
            Metric(m.key, m.value, m.timestamp, m.step, model_id=model.model_id, run_id=run_id)
            for m in metrics
        ]
        for first in range(0, len(of_model), AT_ONCE):
            client.log_batch(run_id, metrics=of_model[first : first + AT_ONCE])
        with tempfile.TemporaryDirectory() as scratch:
            described = Model(
                artifact_path=model.artifact_location, model_uuid=model.model_id, run_id=run_id,
                model_id=model.model_id,
            )  # fmt: skip
            folder = Path(scratch) / NAME
            model_folder.write(folder, described, trained, checkpoint)
            client.log_model_artifacts(model.model_id, str(folder))
        status = LoggedModelStatus.READY
    finally:
        client.finalize_logged_model(model.model_id, status)
    return str(model.model_uri)


def register(uri: str, name: str, trained: TrainedModel) -> str:
    """Make a logged model a version of a registered one; return its URI."""
    import mlflow

    number = str(mlflow.register_model(uri, name).version)
    complete_version(name, number, trained)
    return f"models:/{name}/{number}"


def complete_version(model: str, number: str, trained: TrainedModel) -> None:
    """Describe a version that was registered; then tag it with its digests, which it ends with."""
    if trained.training:
        registry.describe(model, number, trained.training.text)
    registry.record_digests(model, number)
