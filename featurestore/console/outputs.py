"""Where answers may be written: never over what they were asked of."""

from pathlib import Path
from urllib.parse import urlsplit

from featurestore.errors import ArtifactError
from featurestore.io.tables import find
from featurestore.io.uris import local_path
from featurestore.io.walk import SUFFIXES
from featurestore.store import FeatureStore


def check(store: FeatureStore, path: Path, fix: str = "name another file") -> None:
    """Refuse a path at which an output would replace a file of an artifact, or become one.

    Parameters
    ----------
    path
        Where a file is to be written.
    fix
        What to do instead.

    Raises
    ------
    ArtifactError
        It is such a path, or an artifact is not there.
    """
    for name, uris in store.spec.uris().items():
        for uri in [uris] if isinstance(uris, str) else uris:
            is_local = urlsplit(uri).scheme in ("", "file")
            if is_local and (reason := _reason(store, path, name, uri)):
                raise ArtifactError(
                    f"{path} is a place of the artifacts that are asked", found=reason, fix=fix
                )


def _reason(store: FeatureStore, path: Path, name: str, uri: str) -> str | None:
    """Return why a path is one of an artifact, in words, if it is."""
    folder = Path(local_path(find.asked(uri)[0]))
    # What is not there yet is no file of an artifact.
    files = store.sources.dataset(name).named.values() if path.exists() else ()
    if any(file.name == path.name and _place(file) == _place(path) for file in files):
        return f"a file of data.{name}={uri}"
    if (
        folder.is_dir()
        and path.suffix.lower() in SUFFIXES
        and _place(path).is_relative_to(folder.resolve())
    ):
        return f"a Parquet file below data.{name}={uri}, which would be part"
    return None


def _place(path: Path) -> Path:
    return path.parent.resolve() / path.name  # a link is replaced itself
