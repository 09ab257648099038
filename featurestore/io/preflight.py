"""Whether a run can be recorded in MLflow and its model registered: asked first, nothing written.

What MLflow would make by itself (a sqlite file, tables, an experiment, a folder) is not made here:
the run may still be refused for other reasons.
"""

import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from featurestore.errors import ArtifactError, FeatureStoreError, TrackingError
from featurestore.io import tracking_server
from featurestore.io.refusals import AGAIN

DATABASES = {"mssql": 1433, "mysql": 3306, "postgresql": 5432, "sqlite": None}
"""The databases that MLflow keeps runs in, and the ports that they listen at."""
CLOUD = ("databricks", "databricks-uc", "uc")  # whole URIs, without a scheme
MARK = "alembic_version"  # the table that says which version of MLflow made the others
ARTIFACTS = Path("mlruns")  # where MLflow puts artifacts of a database that names no other place


def check_folder(folder: Path, instead: str) -> None:
    """Refuse a folder in which nothing can be written, or be made where it is not there yet.

    Parameters
    ----------
    folder
        Of results or of what is kept between runs.
    instead
        What to do.

    Raises
    ------
    ArtifactError
        The system says so.
    """
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ArtifactError(
            f"{folder} cannot be written",
            found=f"{existing} is {'read-only' if existing.is_dir() else 'a file'}",
            fix=instead,
        )


def check(uri: str, experiment: str, model: str | None) -> None:
    """Make sure that a run can be recorded.

    Parameters
    ----------
    uri
        The tracking URI.
    experiment
        Name of the experiment, which need not be there yet.
    model
        Name under which a model will be registered; None if none will be.

    Raises
    ------
    TrackingError
        The store bars whoever asks, its database cannot be written, the experiment is deleted, or
        the registry refuses.
    ArtifactError
        Artifacts would go to a folder that cannot be written.
    """
    import mlflow

    registry, made = mlflow.get_registry_uri(), is_made(uri)
    if made:
        with tracking_server.translated(uri, f"MLflow at {uri} cannot be used", fix=advice(uri)):
            experiment_record = mlflow.MlflowClient().get_experiment_by_name(experiment)
        check_experiment(experiment_record, experiment)
        if experiment_record:
            location = experiment_record.artifact_location
            fix = f"set tracking.experiment to one whose artifacts go elsewhere{AGAIN}"
            check_artifacts(location, fix)
    if model and (made or registry != uri):
        wrong = f"The registry cannot be asked for {model}"
        with tracking_server.translated(registry, wrong, fix=advice(registry)):
            registered(mlflow.MlflowClient(), model)


def check_artifacts(location: str, instead: str) -> None:
    """Refuse a folder of artifacts that cannot be written, or for which MLflow takes another.

    Parameters
    ----------
    location
        A path, or a URI; that of a store is not looked at.
    instead
        What to do.

    Raises
    ------
    ArtifactError
        MLflow decodes a path as if it were a URI: what is of ``a%20b`` it would write to ``a b``.
    """
    if location.startswith("/"):
        if unquote(location) != location:
            raise ArtifactError(
                f"MLflow would not write artifacts to {location}",
                found=f"a percent sign, which it decodes: {unquote(location)}",
                fix=instead,
            )
        check_folder(Path(location), instead)
    elif is_folder(location):
        check_folder(Path(unquote(urlsplit(location).path)), instead)


def is_folder(uri: str) -> bool:
    """Return whether a URI is that of a folder of this machine."""
    return urlsplit(uri).scheme in ("", "file") and uri not in CLOUD


def _keeps_files(uri: str) -> bool:
    allowed = os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1")
    return is_folder(uri) and allowed


def is_made(uri: str) -> bool:
    """Return whether there is something to ask; MLflow would make a database, or a folder.

    Raises
    ------
    TrackingError
        As `check_database`.
    ArtifactError
        What MLflow would make cannot be made.
    """
    instead = "work in another folder, or set tracking.enabled=false"
    if urlsplit(uri).scheme.partition("+")[0] in DATABASES:
        made = check_database(uri)
        if not made:
            check_artifacts(str(ARTIFACTS.absolute()), instead)
        return made
    if _keeps_files(uri):
        folder = Path(unquote(urlsplit(uri).path))
        check_folder(folder, instead)
        return folder.exists()
    return True


def is_there(uri: str) -> bool:
    """Return whether there is something to read, be it read-only; MLflow would make it otherwise.

    Raises
    ------
    TrackingError
        As `check_database`, but for what cannot be written.
    """
    kind = urlsplit(uri).scheme.partition("+")[0]
    if kind == "sqlite":
        engine = _engine(uri)
        name = engine.url.database
        return bool(name) and Path(name).exists() and _has_tables(engine, uri)
    if kind in DATABASES:
        return check_database(uri)
    return not _keeps_files(uri) or Path(unquote(urlsplit(uri).path)).exists()


def absolute(uri: str) -> str:
    """Return a tracking URI as it reads from any folder: a path of this machine is absolute."""
    scheme, separator, path = uri.partition(":///")
    if scheme.partition("+")[0] == "sqlite" and separator and path not in ("", ":memory:"):
        return f"{scheme}:///{Path(path).absolute()}"
    return str(Path(uri).absolute()) if is_folder(uri) and "://" not in uri else uri


def check_there(asked: Iterable[str], wrong: str, kind: type[FeatureStoreError]) -> None:
    """Refuse to ask stores of which none is there: MLflow would make one, to find it empty.

    Parameters
    ----------
    asked
        Tracking URI, registry URI.
    wrong, kind
        What is wrong then, and the error.

    Raises
    ------
    FeatureStoreError
        Of that kind; or as `is_there`.
    """
    stores = list(dict.fromkeys(asked))
    if any(is_there(uri) for uri in stores):
        return
    raise kind(
        wrong,
        found=f"there is no database at {' or '.join(map(absolute, stores))}: no run, no model",
        fix="name the tracking store by MLFLOW_TRACKING_URI or tracking.uri, or work in the "
        "folder of its mlflow.db",
    )


def check_experiment(experiment: Any, name: str) -> None:
    """Refuse an experiment that is deleted.

    Parameters
    ----------
    experiment
        MLflow's entity, or None.

    Raises
    ------
    TrackingError
        It is.
    """
    if experiment and experiment.lifecycle_stage != "active":
        raise TrackingError(
            f"The MLflow experiment {name!r} is deleted",
            found=f"experiment {experiment.experiment_id}, {experiment.lifecycle_stage}",
            fix="restore it: mlflow experiments restore --experiment-id "
            f"{experiment.experiment_id}; or set tracking.experiment to another name",
        )


def registered(client: Any, model: str) -> Any:
    """Return MLflow's entity of a registered model, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def advice(uri: str) -> str:
    """Return what to do about a store that refuses."""
    if is_folder(uri):
        return (
            "set tracking.uri=sqlite:///mlflow.db; `mlflow migrate-filestore` brings old runs "
            "over; MLFLOW_ALLOW_FILE_STORE=true keeps to files"
        )
    if uri.startswith("databricks"):
        return f"set DATABRICKS_HOST and DATABRICKS_TOKEN, or name a profile{AGAIN}"
    return f"correct MLFLOW_TRACKING_URI or tracking.uri{AGAIN}"


def check_database(uri: str) -> bool:
    """Return whether a database holds MLflow's tables.

    It is asked once: MLflow itself would go on trying for a minute and a half.

    Raises
    ------
    TrackingError
        Its driver is not installed, it does not answer, is none, or cannot be written.
    """
    engine = _engine(uri)
    name = engine.url.database
    if engine.dialect.name == "sqlite":
        if not name or name == ":memory:":
            return False
        if not Path(name).exists():
            check_folder(Path(name).parent, "work in another folder, or set tracking.uri")
            return False
        if not all(os.access(place, os.W_OK) for place in (name, Path(name).absolute().parent)):
            raise TrackingError(
                f"MLflow's database at {uri} cannot be written",
                found=f"{name}, or its folder, is read-only",
                fix=f"make both writable, or set tracking.uri to another one{AGAIN}",
            )
    elif engine.url.host:
        check_reachable(uri, engine.url.host, engine.url.port or DATABASES[engine.dialect.name])
    return _has_tables(engine, uri)


def _engine(uri: str) -> Any:
    import sqlalchemy

    with tracking_server.translated(uri, "The tracking URI is not understood"):
        return sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)


def _has_tables(engine: Any, uri: str) -> bool:
    import sqlalchemy

    with tracking_server.translated(uri, f"MLflow's database at {uri} refuses"):
        return bool(sqlalchemy.inspect(engine).has_table(MARK))


def check_reachable(uri: str, host: str, port: int | None) -> None:
    """Refuse a database server that nobody listens for.

    Raises
    ------
    TrackingError
        It does not answer within five seconds.
    """
    try:
        socket.create_connection((host, port or 0), timeout=tracking_server.SECONDS).close()
    except OSError as error:
        raise TrackingError(
            f"MLflow's database at {uri} does not answer",
            found=f"{host}:{port}: {error.strerror or error}",
            fix=f"start it, or correct MLFLOW_TRACKING_URI or tracking.uri{AGAIN}",
        ) from error
