"""Artifacts in MLflow: runs' and models' files brought here, and builds logged once.

The one file of the library that talks to MLflow (imported late: it costs more than a second).
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from featurestore import objects, server
from featurestore.atomic import HOME
from featurestore.errors import ArtifactError

DEFAULT_TRACKING = "sqlite:///mlflow.db"

EXPERIMENT = "feature-store"

DIGEST_TAG = "featurestore.digest"


def use_tracking(uri: str | None = None) -> str:
    """Point MLflow at a tracking store, after making sure that it answers.

    Parameters
    ----------
    uri
        A tracking URI; by default ``MLFLOW_TRACKING_URI``, else a sqlite file in the working
        folder.

    Raises
    ------
    TrackingError
        An HTTP server does not answer within five seconds.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKING
    if server.over_http(uri):
        server.check(uri)
    server.be_patient()
    import mlflow

    # Its INFO lines on tables made and versions created would drown what the user asked for.
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    mlflow.set_tracking_uri(uri)
    return uri


def run_of(name: str) -> str:
    """Return the id of a run, given it, ``models:/NAME/VERSION`` or ``models:/NAME@ALIAS``.

    Raises
    ------
    ArtifactError
        The registry has no such model.
    TrackingError
        The server stopped answering.
    """
    if not name.startswith("models:/"):
        return name.removeprefix("runs:/")
    import mlflow
    from mlflow.exceptions import MlflowException

    model, _, version = name.removeprefix("models:/").partition("/")
    try:
        client = mlflow.MlflowClient()
        with server.answering(mlflow.get_tracking_uri()):
            if "@" in model:
                found = client.get_model_version_by_alias(*model.split("@", 1))
            else:
                found = client.get_model_version(model, version)
    except MlflowException as error:
        raise ArtifactError(
            f"The registry has no {name}",
            found=str(error).splitlines()[0],
            fix=f"check name, version and the tracking URI ({mlflow.get_tracking_uri()})",
        ) from error
    return str(found.run_id)


def direct(uri: str) -> str | None:
    """Return where a run's artifact lies, if it can be read without MLflow: a path, or ``s3://``.

    Raises
    ------
    ArtifactError
        MLflow has no such run.
    TrackingError
        The server stopped answering.
    """
    import mlflow

    if not uri.startswith("runs:/"):
        return None
    run, _, inside = uri.removeprefix("runs:/").partition("/")
    with _translated(uri):
        root = mlflow.MlflowClient().get_run(run).info.artifact_uri
    scheme = urlsplit(root).scheme
    return f"{root}/{inside}" if scheme in ("", "file", "s3") else None


def fetched(uri: str) -> Path:
    """Return where an artifact of MLflow lies on this machine, downloading it once if need be.

    Raises
    ------
    ArtifactError
        MLflow has no such artifact.
    TrackingError
        The server stopped answering.
    """
    with _translated(uri):
        kept = _downloaded(uri)
    inside = kept / Path(urlsplit(uri).path).name
    return inside if inside.exists() else kept


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        with server.answering(mlflow.get_tracking_uri()):
            yield
    except (MlflowException, OSError) as error:
        raise ArtifactError(
            f"MLflow has no artifact {uri}",
            found=str(error).splitlines()[0],
            fix=f"check the run id, the path and the tracking URI ({mlflow.get_tracking_uri()})",
        ) from error


def _downloaded(uri: str) -> Path:
    # A registered model's version never changes, a run's artifact hardly ever does.
    kept = HOME / "downloads" / hashlib.sha256(uri.encode()).hexdigest()[:16]
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with objects.alone(kept):
            if not kept.exists():
                _mirror(uri, objects.part(kept))
                objects.part(kept).rename(kept)
    return kept


def _mirror(uri: str, folder: Path) -> None:
    """Download what is not here whole, file by file: a cut costs the last one alone."""
    import mlflow

    folder.mkdir(exist_ok=True)
    entries = mlflow.artifacts.list_artifacts(artifact_uri=uri)
    if not entries:  # a file
        mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder))
    for entry in entries:
        name = Path(entry.path).name
        here = folder / name
        if entry.is_dir:
            _mirror(f"{uri}/{name}", here)
        elif not here.exists() or here.stat().st_size != entry.file_size:
            mlflow.artifacts.download_artifacts(artifact_uri=f"{uri}/{name}", dst_path=str(folder))


def found(name: str, content: str) -> str | None:
    """Return ``runs:/RUN`` of an earlier `logged` build, or None."""
    import mlflow

    database = mlflow.get_tracking_uri().removeprefix("sqlite:///")
    if database != mlflow.get_tracking_uri() and not Path(database).exists():
        return None  # asking would make the database: a question must not write
    client = mlflow.MlflowClient()
    with server.answering(mlflow.get_tracking_uri()):
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            return None
        runs = client.search_runs(
            [experiment.experiment_id],
            f"tags.`{DIGEST_TAG}` = '{name}-{content}' and attributes.status = 'FINISHED'",
            order_by=["attributes.start_time ASC"],
            max_results=1,
        )
    return f"runs:/{runs[0].info.run_id}" if runs else None


def logged(name: str, content: str, build: Callable[[Path], object]) -> str:
    """Return ``runs:/RUN`` of a build logged to MLflow, building and logging it the first time.

    The parameters are those of `featurestore.shelf.built`; the run is found again by a tag with the
    digest.
    """
    import mlflow

    earlier = found(name, content)
    if earlier:
        return earlier
    client = mlflow.MlflowClient()
    with (
        server.answering(mlflow.get_tracking_uri()),
        tempfile.TemporaryDirectory() as folder,
    ):
        experiment = mlflow.set_experiment(EXPERIMENT).experiment_id
        build(Path(folder))
        tags = {DIGEST_TAG: f"{name}-{content}"}
        run = client.create_run(experiment, run_name=name, tags=tags).info.run_id
        client.log_artifacts(run, folder)
        client.set_terminated(run)  # only now can `found` find it
    return f"runs:/{run}"
