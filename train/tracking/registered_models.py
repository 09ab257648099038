"""Trained models by name: resolved, compared with what was recorded of their files, and read."""

import warnings
from pathlib import Path

from featurestore.errors import ArtifactError, FeatureStoreWarning
from featurestore.io import digests, downloads, names, uris
from train.models import checkpoint
from train.models.checkpoint import TrainedModel
from train.tracking import registry, runs, version_files
from train.tracking.version_files import DIGESTS_TAG


def load(uri: str) -> TrainedModel:
    """Read a model, after `checked`.

    Raises
    ------
    ArtifactError
        It is not there, not as recorded, or no checkpoint of this project.
    """
    return checkpoint.load(checked(uri))


def checked(uri: str) -> Path:
    """Return where a model lies on this machine, its files the very ones that were recorded.

    Of a registered version, all files are compared with the digests in its tag; of a run, the
    checkpoint. A copy on this machine that is not as recorded is fetched once more.

    Parameters
    ----------
    uri
        ``models:/NAME/VERSION`` or ``models:/NAME@ALIAS``, ``runs:/RUN/path``, a file or folder.

    Returns
    -------
    Path
        A file or a folder.

    Raises
    ------
    ArtifactError
        There is no such model, or its files are not those that were recorded.
    """
    uri = names.resolved(uri)
    path = Path(uris.local_path(uri))
    wrong = file_differences(uri)
    if wrong and downloads.discard(path):
        path, wrong = Path(uris.local_path(uri)), file_differences(uri)
    if wrong:
        raise ArtifactError(
            f"The files of {uri} are not those that were recorded of it",
            found=", ".join(wrong),
            fix="restore the artifact store from a backup, or name another version: "
            "what this one would predict nobody has evaluated",
        )
    return path


def file_differences(uri: str) -> list[str]:
    """Return which files of a resolved model are not as recorded; warn if no digest is recorded."""
    if names.is_registered(uri):
        return _of_version(uri)
    if uri.startswith("runs:/"):
        return _of_run(uri)
    return []


def _of_version(uri: str) -> list[str]:
    model, number = names.numbered(uri)
    version = registry.version(model, int(number))
    wrong = version_files.verify_files(version, Path(uris.local_path(names.split(uri)[0])))
    if wrong is None:
        warnings.warn(
            f"Nobody has recorded the digests of {uri} (its tag {DIGESTS_TAG}): that its "
            "files are those that were registered is not known; versions of train/probe.py "
            "have them",
            FeatureStoreWarning,
            stacklevel=2,
        )
    return wrong or []


def _of_run(uri: str) -> list[str]:
    run, _, inside = uri.removeprefix("runs:/").partition("/")
    recorded = version_files.by_name(runs.get_run(run).data.tags.get(DIGESTS_TAG, ""))
    file = Path(uris.local_path(uri))
    if inside not in recorded or not file.is_file():
        return []
    return [] if digests.sha256(file) == recorded[inside] else [f"{inside} changed"]
