"""MLflow's names: what one that can move means now, and where what it names is stored.

See docs/decisions/021-resolved-names.md.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from urllib.parse import unquote, urlsplit

from featurestore.errors import ArtifactError
from featurestore.io import preflight, tracking_server

_MEANT: ContextVar[dict[tuple[str, ...], str] | None] = ContextVar("meant", default=None)
"""What names have meant in the block of `resolved_once`."""


@contextmanager
def resolved_once() -> Iterator[None]:
    """Let a name or URI mean the same until the block ends, whatever moves or is logged meanwhile.

    A command is such a block. Blocks within it are part of it.
    """
    if _MEANT.get() is not None:
        yield
        return
    token = _MEANT.set({})
    try:
        yield
    finally:
        _MEANT.reset(token)


def remembered(key: tuple[str, ...], resolve: Callable[[], str]) -> str:
    """Return what a name has meant before in the block, or what it is resolved to now."""
    meant = _MEANT.get()
    if meant is None:
        return resolve()
    if key not in meant:
        meant[key] = resolve()
    return meant[key]


def tracking() -> str:
    """Return the tracking URI, see `featurestore.io.mlflow_artifacts.use_tracking`."""
    import mlflow

    return str(mlflow.get_tracking_uri())


@contextmanager
def translated(wrong: str) -> Iterator[None]:
    """Turn MLflow's exceptions into a refusal, and the question to nobody that it would not refuse.

    Parameters
    ----------
    wrong
        What is wrong if MLflow raises.

    Raises
    ------
    ArtifactError
        It does, or would make the database that is asked.
    TrackingError
        The server stopped answering, or nothing at all can be asked of it.
    """
    import mlflow

    uri = tracking()
    fix = f"check names, paths and the tracking URI ({preflight.absolute(uri)})"
    with tracking_server.translated(uri, wrong, ArtifactError, fix):
        preflight.check_there((uri, str(mlflow.get_registry_uri())), wrong, ArtifactError)
        yield


def is_registered(uri: str) -> bool:
    """Return whether a URI names a version of a registered model, by number, alias or stage."""
    model = uri.removeprefix("models:/")
    return model != uri and not model.startswith("/") and ("/" in model or "@" in model)


def split(uri: str) -> tuple[str, str]:
    """Return the URI of a model, and the path inside it."""
    from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository

    model, inside = ModelsArtifactRepository.split_models_uri(uri)
    return str(model), str(inside)


def resolved(uri: str) -> str:
    """Return ``models:/NAME/NUMBER`` for an alias, ``latest`` or a stage; other URIs as they are.

    Raises
    ------
    ArtifactError
        The registry has no such model.
    TrackingError
        The server stopped answering.
    """
    if not is_registered(uri):
        return uri
    return remembered((tracking(), "name", uri), lambda: _numbered(uri))


def _numbered(uri: str) -> str:
    import mlflow
    from mlflow.store.artifact.utils.models import get_model_name_and_version

    with translated(f"The registry has no {uri}"):
        client = mlflow.MlflowClient()
        base, inside = split(uri)
        model, alias = base.removeprefix("models:/").rpartition("@")[::2]
        if model and "/" not in alias:
            number = client.get_model_version_by_alias(model, alias).version
        else:
            model, number = get_model_name_and_version(client, base)
            client.get_model_version(model, str(number))  # or there is none
    return f"models:/{model}/{number}" + (f"/{inside}" if inside else "")


def numbered(uri: str) -> tuple[str, str]:
    """Return name and number of a `resolved` model's version."""
    model, _, number = split(uri)[0].removeprefix("models:/").rpartition("/")
    return model, number


def run_of(name: str) -> str:
    """Return the id of a run, given it, ``runs:/RUN/path``, or a URI of a registered model.

    Raises
    ------
    ArtifactError
        The registry has no such model, or it was registered without a run.
    TrackingError
        The server stopped answering.
    """
    if not is_registered(name):
        return name.removeprefix("runs:/").partition("/")[0]
    import mlflow

    uri = resolved(name)
    with translated(f"The registry has no {name}"):
        run = mlflow.MlflowClient().get_model_version(*numbered(uri)).run_id
    if not run:
        raise ArtifactError(
            f"It is not known which run made {uri}",
            found="a version that was registered without a run",
            fix="name a run, or register the model again with train/probe.py",
        )
    return str(run)


def check_run(run: str) -> None:
    """Refuse the id of a run that MLflow does not have; raises as `stored`."""
    import mlflow

    with translated(f"MLflow has no run {run}"):
        mlflow.MlflowClient().get_run(run)


def stored(uri: str) -> str:
    """Return where the storage keeps what a ``runs:/`` or ``models:/`` URI names.

    Returns
    -------
    str
        A path on this machine, or a URI of the storage: ``s3:``, ``mlflow-artifacts:``, ...

    Raises
    ------
    ArtifactError
        MLflow has no such run or model.
    TrackingError
        The server stopped answering.
    """
    import mlflow

    with translated(f"MLflow has no artifact {uri}"):
        client = mlflow.MlflowClient()
        if uri.startswith("models:/"):
            return _model(client, *split(uri))
        number, _, inside = uri.removeprefix("runs:/").partition("/")
        run = client.get_run(number)
        logged, _, below = inside.partition("/")
        for output in run.outputs.model_outputs if run.outputs and logged else []:
            if model := _logged_model(client, output.model_id, logged):
                return joined(model.artifact_location, below)
        return joined(run.info.artifact_uri, inside)


def _model(client: Any, uri: str, inside: str) -> str:
    from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository

    root = ModelsArtifactRepository.get_underlying_uri(uri)
    if root.startswith("models:/"):
        return _model(client, root, inside)
    return stored(f"{root}/{inside}") if root.startswith("runs:/") else joined(root, inside)


def _logged_model(client: Any, number: str, name: str) -> Any | None:
    """Return a model that a run has logged, if it has that name and was not deleted."""
    from mlflow.exceptions import MlflowException

    try:
        model = client.get_logged_model(number)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return model if model.name == name else None


def joined(root: str, inside: str) -> str:
    """Return the place of a path inside a root of artifacts."""
    if urlsplit(root).scheme == "file":  # whose names are percent-encoded; those inside are not
        root = unquote(urlsplit(root).path)
    return f"{root.rstrip('/')}/{inside}" if inside else root
