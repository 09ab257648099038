"""What a run has recorded."""

import importlib.metadata
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurestore.errors import ArtifactError
from featurestore.io import preflight, tracking_server
from featurestore.io.uris import local_path
from featurestore.spec.trees import changed
from train.config.load import excerpt
from train.config.schema import Config
from train.config.sweep import chosen_config

PACKAGES = (
    "accelerate", "duckdb", "ibis-framework", "mlflow", "numpy", "pyarrow", "scikit-learn",
    "tissue-probe", "torch", "torchmetrics",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Return the versions of the packages that a result depends on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


FOLDS = "folds_artifact"  # begins the parameters that name the assignments of a run's folds
INTERVALS = "intervals"  # the parameter that names the method of a run's intervals
FIGURES = "metrics.json"  # the table of all metrics of a run, of which not all are logged
CONTENT = "content"  # a kind of digest: of a snapshot's rows


@dataclass(frozen=True)
class RunRecord:
    """What a run has recorded.

    Parameters
    ----------
    run, commit
        Its id, and the commit of the code.
    config
        The resolved configuration, as YAML; empty if there is none.
    metrics
        Figures by name.
    data
        Digests of its inputs by name; of several with one name, the later ones are numbered.
    params
        Parameters by name.
    contents
        Digests of the rows of its snapshots; none of a run that was recorded by earlier code.
    name
        What MLflow calls it.
    """

    run: str
    commit: str | None
    config: str
    metrics: dict[str, float]
    data: dict[str, str]
    params: dict[str, str]
    contents: frozenset[str] = frozenset()
    name: str = ""


def get_run(run: str) -> Any:
    """Return MLflow's entity of a run.

    Raises
    ------
    ArtifactError
        There is no such run.
    TrackingError
        The server stopped answering.
    """
    import mlflow

    uri = mlflow.get_tracking_uri()
    fix = f"check its id and the tracking URI ({preflight.absolute(uri)})"
    wrong = f"MLflow has no run {run}"
    with tracking_server.translated(uri, wrong, ArtifactError, fix):
        preflight.check_there([uri], wrong, ArtifactError)
        return mlflow.MlflowClient().get_run(run)


def load_run(run: str) -> RunRecord:
    """Return what a run has recorded; raises as `get_run`."""
    entity = get_run(run)
    config = Path()
    with suppress(ArtifactError):
        config = Path(local_path(f"runs:/{run}/config.yaml"))
    inputs: dict[str, str] = {}
    contents: set[str] = set()
    for one in entity.inputs.dataset_inputs:
        tags = {tag.key: tag.value for tag in one.tags}
        name = one.dataset.name
        same_name = sum(other.split(" ")[0] == name for other in inputs)
        key = f"{name} {same_name + 1}" if same_name else name
        inputs[key] = tags.get("sha256", one.dataset.digest)
        contents |= {tags[CONTENT]} if CONTENT in tags else set()
    return RunRecord(
        run=run,
        commit=entity.data.tags.get("mlflow.source.git.commit"),
        config=config.read_text() if config.is_file() else "",
        metrics=table_metrics(run) | entity.data.metrics,
        data=inputs,
        params=dict(entity.data.params),
        contents=frozenset(contents),
        name=entity.info.run_name or "",
    )


def table_metrics(run: str) -> dict[str, float]:
    """Return the metrics in the table of a run; none of a run that has logged all its metrics."""
    try:
        table = json.loads(Path(local_path(f"runs:/{run}/{FIGURES}")).read_text())
    except (ArtifactError, OSError):
        return {}
    return dict(table["data"])


def trained_values(record: RunRecord, names: Sequence[str]) -> dict[str, Any]:
    """Return some keys of the configuration as far as a run has recorded them.

    Of a sweep they have the values of its best setting: those that its model was trained by.

    Parameters
    ----------
    names
        Keys of the configuration's root.
    """
    if not record.config:
        return {}
    values = excerpt(record.config, [*names, "sweep"])
    config = chosen_config(changed(Config(), values), record.params.get("best_setting"))
    return {name: getattr(config, name) for name in names if name in values}


def set_status(run: str, status: str) -> None:
    """Give a run that nobody works on any more a status, with those below it; ask once.

    Parameters
    ----------
    run
        Its id. What has ended keeps its status.
    status
        ``FAILED`` or ``KILLED``.
    """
    import mlflow

    client = mlflow.MlflowClient()
    # Whatever is raised: no more than the status would be lost.
    with tracking_server.impatient(), suppress(Exception):
        parent = client.get_run(run)
        below = f"tags.`mlflow.parentRunId` = '{run}'"
        for one in (*client.search_runs([parent.info.experiment_id], below), parent):
            if one.info.status == "RUNNING":
                client.set_terminated(one.info.run_id, status)
