"""From a URI to a path on this machine."""

from urllib.parse import unquote, urlsplit

from featurestore.errors import ArtifactError
from featurestore.io import names, proxied
from featurestore.io.objects import fetching
from featurestore.io.objects.listing import SCHEMES

IN_MLFLOW = ("runs", "mlflow-artifacts", "models")
"""Schemes of what MLflow is asked for."""


def in_mlflow(uri: str) -> bool:
    """Return whether a URI names what MLflow keeps."""
    return urlsplit(uri).scheme in IN_MLFLOW


def local_path(uri: str, outlined: bool = False) -> str:
    """Return where an artifact lies on this machine, downloading what is not here.

    What the URI names now is what comes: names are resolved, and what the storage says of the
    content tells a download from another.

    Parameters
    ----------
    uri
        A path or glob, ``file://``, ``s3://bucket/key``, ``gs://bucket/key``,
        ``az://container/key``, ``abfs://container@account.dfs.core.windows.net/key``,
        ``runs:/RUN/path``, ``mlflow-artifacts:/...``, ``models:/NAME/VERSION`` or
        ``models:/NAME@ALIAS``.
    outlined
        As of `featurestore.io.objects.fetching.artifact`.

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
        parts = urlsplit(uri)
        if parts.query or parts.fragment:
            raise ArtifactError(
                f"{uri} is cut by a ? or # in its path",
                found=f"{parts.path}, and {parts.query or parts.fragment}",
                fix="write %3F for ? and %23 for #, or name the path without file://",
            )
        return unquote(parts.path)
    if scheme in SCHEMES:
        how = "outlined" if outlined else ""
        return names.remembered((how, uri), lambda: str(fetching.artifact(uri, outlined)))
    if scheme not in IN_MLFLOW:
        raise ArtifactError(
            f"The URI {uri} has a scheme that is not known here",
            found=f"{scheme}:",
            fix="use a path, a glob, file://, runs:/RUN/path, mlflow-artifacts:/..., s3:// "
            "(pip install 'tissue-probe[s3]'), gs:// (tissue-probe[gs]), az:// or abfs:// "
            "(tissue-probe[az])",
        )
    how = f"{names.tracking()} outlined" if outlined else names.tracking()
    return names.remembered((how, uri), lambda: _from_mlflow(uri, outlined))


def _from_mlflow(uri: str, outlined: bool) -> str:
    uri = names.resolved(uri)
    place = uri if uri.startswith("mlflow-artifacts:") else names.stored(uri)
    scheme = urlsplit(place).scheme
    if scheme in ("file", *SCHEMES) or len(scheme) < 2:
        return local_path(place, outlined)
    return str(proxied.fetched(place, uri))
