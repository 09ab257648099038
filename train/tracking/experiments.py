"""The experiment that runs are recorded in, of the kind that MLflow's interface shows runs for."""

from typing import Any

KIND_TAG, TRAINING = "mlflow.experimentKind", "custom_model_development"
"""Without them MLflow guesses from what is in an experiment, and asks whoever opens it."""


def open_experiment(client: Any, name: str) -> None:
    """Let the runs that follow be of an experiment, made if there is none; say that it trains.

    One that says what kind it is of stays so.

    Parameters
    ----------
    client
        MLflow's.
    """
    import mlflow

    experiment = mlflow.set_experiment(name)
    if KIND_TAG not in experiment.tags:
        client.set_experiment_tag(experiment.experiment_id, KIND_TAG, TRAINING)
