"""The files of a registered version: as they were registered, and as they are given out now.

The digests of a version's files are a text of its run, as ``sha256sum`` writes them. The digest of
that text stands in the version's tag `sha256sums`: in the server's database, where nobody gets who
can write artifacts alone. Earlier versions have the text itself there.
"""

import hashlib
import tempfile
from pathlib import Path

from featurestore.errors import ArtifactError
from featurestore.io import digests, tracking_server
from train.tracking import registry
from train.tracking.registry import Version

DIGESTS_TAG = "sha256sums"
SUMS = "sha256sums"  # the folder of a run with the digests of the versions that it has made
ADDED = "registered_model_meta"  # MLflow writes it into what it downloads
BYTECODE = "__pycache__"  # where Python writes it, in versions that have no file of this name


def sha256_lines(folder: Path) -> str:
    """Return the SHA-256 of each file of a registered model, as ``sha256sum`` writes them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ADDED)
    return "".join(line(file, file.relative_to(folder).as_posix()) for file in files)


def line(file: Path, name: str) -> str:
    """Return the SHA-256 of a file as ``sha256sum`` writes it."""
    return f"{digests.sha256(file)}  {name}\n"


def by_name(lines: str) -> dict[str, str]:
    """Return the digests that `sha256_lines` or `line` wrote, by the names of the files."""
    return {line[66:]: line[:64] for line in lines.splitlines()}


def record_digests(model: str, number: str) -> None:
    """Record the digests of a version's files as the registry gives them out, and tag it."""
    with tempfile.TemporaryDirectory() as scratch:
        sums = sha256_lines(fetch(model, number, Path(scratch)))
    version = registry.version(model, int(number))
    if version.run:
        registry.write(version, sums, sums_file(version))
        sums = hashlib.sha256(sums.encode()).hexdigest()
    with registry.translated(f"Version {number} of {model} could not be tagged"):
        registry.client().set_model_version_tag(model, number, DIGESTS_TAG, sums)


def sums_file(version: Version) -> str:
    """Return which text of a version's run holds the digests of its files."""
    return f"{SUMS}/{version.model}-{version.number}.txt"


def fetch(model: str, number: str, folder: Path) -> Path:
    """Copy the files of a version, as the registry gives them out now, into a folder.

    Raises
    ------
    ArtifactError
        They are not there.
    """
    import mlflow

    uri = f"models:/{model}/{number}"
    fix = "restore the artifact store, or register the model again"
    wrong = f"The files of {uri} are not there"
    with tracking_server.translated(mlflow.get_registry_uri(), wrong, ArtifactError, fix):
        return Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder)))


def verify_files(version: Version, folder: Path) -> list[str] | None:
    """Return what is not as registered: files changed, gone or new; None without digests."""
    recorded, sums = version.tags.get(DIGESTS_TAG), sha256_lines(folder)
    if recorded is None:
        return None
    if recorded == hashlib.sha256(sums.encode()).hexdigest():
        return []
    if len(recorded.split()) == 1:  # something has changed, and the text tells what
        text = _recorded_text(version)
        if hashlib.sha256(text.encode()).hexdigest() != recorded:
            return [f"{sums_file(version)} {'changed' if text else 'gone'}, or files"]
        recorded = text
    before, now = by_name(recorded), by_name(sums)
    changes = {name: "gone" if name not in now else "changed" for name in before}
    return [
        f"{name} {changes.get(name, 'new')}" + ": remove it" * name.startswith(f"{BYTECODE}/")
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def _recorded_text(version: Version) -> str:
    """Return the text with the digests of a version's files; empty if it is not there."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return str(mlflow.artifacts.load_text(f"runs:/{version.run}/{sums_file(version)}"))
    except (MlflowException, OSError):
        return ""
