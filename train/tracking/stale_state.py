"""State of an earlier run, in the environment or in this process, that would lead MLflow astray."""

import os
import warnings

from featurestore.errors import FeatureStoreWarning

VARIABLES = ("MLFLOW_RUN_ID", "MLFLOW_ACTIVE_MODEL_ID", "MLFLOW_EXPERIMENT_NAME")
"""Variables by which MLflow would record a run in another run, model or experiment."""


def clear_stale_state(experiment: str) -> None:
    """Remove such state, with a warning: a run is to be one of its own, in its own experiment."""
    import mlflow

    left = {name: os.environ.pop(name) for name in VARIABLES if os.environ.get(name)}
    if left.get("MLFLOW_EXPERIMENT_NAME") == experiment:
        del left["MLFLOW_EXPERIMENT_NAME"]
    if active := mlflow.active_run():
        left["the active run"] = active.info.run_id
    if model := mlflow.get_active_model_id():
        left.setdefault("MLFLOW_ACTIVE_MODEL_ID", model)  # or set in this process
        mlflow.clear_active_model()
    for name, value in left.items():
        warnings.warn(
            FeatureStoreWarning(
                f"{name} ({value}) is ignored: this is a run of its own, in {experiment}"
            ),
            stacklevel=2,
        )
