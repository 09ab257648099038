"""Artifacts that MLflow alone can bring: behind its server, or in a storage that it knows.

A server says of each file what tells its content from another (an ETag, which MLflow itself does
not ask for); where nobody says it, files are downloaded at each run and compared.
"""

import hashlib
import posixpath
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from featurestore.errors import ArtifactError, FeatureStoreWarning
from featurestore.io import downloads, names, preflight
from featurestore.io.atomic import publish

AT_ONCE = 8  # files
FIRST = {"Range": "bytes=0-0"}  # its headers are wanted, not the file


def fetched(place: str, uri: str) -> Path:
    """Return where an artifact lies on this machine, downloading what is not here.

    Parameters
    ----------
    place
        Where the storage keeps it, see `featurestore.io.names.stored`.
    uri
        What the user calls it.

    Returns
    -------
    Path
        A file or a folder, as it was logged.

    Raises
    ------
    ArtifactError
        There is no such artifact, or it was replaced while it was downloaded.
    TrackingError
        The server stopped answering.
    """
    with names.translated(f"MLflow has no artifact {uri}"):
        repository, name = _opened(place)
        files = _listed(repository, name)
        if not files:
            raise ArtifactError(
                f"MLflow has no artifact {uri}",
                found="no file by that path",
                fix="check the run id, the path and the tracking URI "
                f"({preflight.absolute(names.tracking())})",
            )
        content = _content(repository, files)

    def fill(folder: Path) -> None:
        with names.translated(f"MLflow gave no artifact {uri}"):
            _download(repository, files, folder)
            if content != _content(repository, _listed(repository, name)):
                raise ArtifactError(
                    f"{uri} was replaced while it was downloaded",
                    found="other files than before the download",
                    fix="run again, once nobody logs to that run",
                )

    if content is not None:
        return downloads.get_or_download(content, fill) / name
    warnings.warn(
        f"{uri}: its storage does not say whether it has changed, so it is downloaded at each run",
        FeatureStoreWarning,
        stacklevel=2,
    )
    return downloads.download_and_compare(fill) / name


def _opened(place: str) -> tuple[Any, str]:
    """Return the repository of the folder that an artifact is in, and its name there."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    root, _, name = place.rstrip("/").rpartition("/")
    return get_artifact_repository(root), name


def _listed(repository: Any, name: str) -> list[Any]:
    """Return the files of an artifact, each with its path and size."""
    entries = repository.list_artifacts(name)
    if not entries:  # a file, or nothing
        entries = [e for e in repository.list_artifacts() if e.path == name and not e.is_dir]
        return list(entries)
    return [
        file
        for entry in entries
        for file in (_listed(repository, entry.path) if entry.is_dir else [entry])
    ]


def _content(repository: Any, files: Sequence[Any]) -> str | None:
    """Return what tells the content of files from another; None if nobody says it."""
    from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository

    if not isinstance(repository, HttpArtifactRepository):
        return None
    with ThreadPoolExecutor(AT_ONCE) as pool:
        tags = list(pool.map(lambda file: _tag(repository, file), files))
    if None in tags:
        return None
    place = urlsplit(repository.artifact_uri)
    where = f"{place.hostname}:{place.port}{place.path}"  # without a user and password
    lines = [f"{file.path} {tag}" for file, tag in zip(files, tags, strict=True)]
    return "\n".join([where, *sorted(lines)])


def _tag(repository: Any, file: Any) -> str | None:
    """Return size and ETag of a file, or None without an ETag."""
    import requests
    from mlflow.utils.rest_utils import augmented_raise_for_status, http_request

    if file.file_size == 0:
        return "0"
    # Where clients read from the object storage, the server has no ETag but names the object.
    if getattr(repository, "_is_multipart_download_enabled", bool)():
        signed = repository._get_presigned_download_url(file.path)
        answer = requests.get(
            signed.url, headers={**signed.headers, **FIRST}, stream=True, timeout=60
        )
    else:
        credentials = getattr(repository, "_host_creds", None)
        if credentials is None:  # private to MLflow: without it the artifact has no known content
            return None
        answer = http_request(
            credentials, posixpath.join("/", file.path), "GET",
            stream=True, extra_headers=FIRST,
        )  # fmt: skip
    with answer:
        augmented_raise_for_status(answer)
        tag = answer.headers.get("ETag")
    return f"{file.file_size} {tag}" if tag else None


def _download(repository: Any, files: Sequence[Any], folder: Path) -> None:
    """Download what is not here whole, file by file: a cut costs the last one alone."""
    for file in files:
        path = folder / file.path
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ArtifactError(
                "An artifact's path leads out of its folder",
                found=file.path,
                fix="log the artifact again under another name",
            )
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        # Beside the artifact: its last part may be allotted in full before it is written.
        arriving = folder / f".{hashlib.sha256(file.path.encode()).hexdigest()[:16]}"
        repository._download_file(file.path, str(arriving))
        if file.file_size not in (None, arriving.stat().st_size):
            raise ArtifactError(
                f"{file.path} was not downloaded whole",
                found=f"{arriving.stat().st_size:,} of {file.file_size:,} bytes",
                fix="run again: what is here is kept",
            )
        publish(arriving, path)
