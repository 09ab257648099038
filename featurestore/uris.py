"""From a URI to a path on this machine."""

from urllib.parse import unquote, urlsplit

from featurestore import mlflow_artifacts, objects
from featurestore.atomic import HOME
from featurestore.errors import ArtifactError


def local_path(uri: str) -> str:
    """Return where an artifact lies on this machine, downloading it once if need be.

    Parameters
    ----------
    uri
        A path or glob, ``file://``, ``s3://bucket/key``, ``runs:/RUN/path``,
        ``mlflow-artifacts:/...`` or ``models:/NAME/VERSION``.

    Raises
    ------
    ArtifactError
        The scheme is not known, or MLflow has no such artifact.
    TrackingError
        The server stopped answering.
    """
    scheme = urlsplit(uri).scheme
    if len(scheme) < 2:  # none, or a Windows drive letter
        return uri
    if scheme == "file":
        return unquote(urlsplit(uri).path)
    if scheme == "s3":
        return str(objects.fetched(uri, HOME / "downloads"))
    if scheme not in ("runs", "mlflow-artifacts", "models"):
        raise ArtifactError(
            f"The URI {uri} has a scheme that is not known here",
            found=f"{scheme}:",
            fix="use a path, a glob, file://, s3://, runs:/RUN/path or mlflow-artifacts:/...",
        )
    place = mlflow_artifacts.direct(uri)
    return local_path(place) if place else str(mlflow_artifacts.fetched(uri))
