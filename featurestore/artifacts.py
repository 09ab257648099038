"""Artifacts: from a URI to Parquet files, and from a build to a URI.

The one file of the library that talks to MLflow (imported late: it costs more than a second).
"""

import glob
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore import objects, server
from featurestore.errors import ArtifactError

HOME = Path(".featurestore")
"""What is kept between runs in the working folder: downloads, synthetic cohorts, digests."""

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
    return _from_mlflow(uri, scheme)


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


def _from_mlflow(uri: str, scheme: str) -> str:
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        with server.answering(mlflow.get_tracking_uri()):
            if scheme == "runs":
                run_id, _, inside = uri.removeprefix("runs:/").partition("/")
                root = mlflow.MlflowClient().get_run(run_id).info.artifact_uri
                if urlsplit(root).scheme in ("", "file"):
                    return str(Path(local_path(root)) / inside)
                if urlsplit(root).scheme == "s3":
                    return local_path(f"{root}/{inside}")
            kept = _downloaded(uri)
    except (MlflowException, OSError) as error:
        raise ArtifactError(
            f"MLflow has no artifact {uri}",
            found=str(error).splitlines()[0],
            fix=f"check the run id, the path and the tracking URI ({mlflow.get_tracking_uri()})",
        ) from error
    inside = Path(urlsplit(uri).path).name
    return str(kept / inside if (kept / inside).exists() else kept)


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


def parquet_files(uri: str) -> list[Path]:
    """Return the Parquet files behind a URI, sorted, each with a readable footer.

    Raises
    ------
    ArtifactError
        There is none, or one is not whole.
    """
    path = local_path(uri)
    if Path(path).is_dir():
        files = sorted(Path(path).rglob("*.parquet"))
    elif Path(path).exists():
        files = [Path(path)]
    else:
        # Path.glob takes no absolute pattern.
        files = sorted(Path(m) for m in glob.glob(path, recursive=True))  # noqa: PTH207
    if not files:
        raise ArtifactError(
            f"There is no Parquet file at {uri}",
            found=_neighbours(Path(path)),
            fix="correct the URI: a file, a folder of *.parquet or a glob",
        )
    for file in files:
        columns(file)
    return files


def columns(file: Path) -> list[str]:
    """Return the column names of a Parquet file, read from its footer.

    Raises
    ------
    ArtifactError
        The file is not Parquet, or is cut off.
    """
    try:
        return list(pq.read_schema(file).names)
    except (pa.ArrowException, OSError) as error:
        raise ArtifactError(
            f"{file} is not a whole Parquet file",
            found=f"{file.stat().st_size} bytes; {str(error).splitlines()[0]}",
            fix="write or copy the file again",
        ) from error


def _neighbours(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        return f"no folder {folder}"
    names = sorted(entry.name for entry in folder.iterdir())
    return f"in {folder}: {', '.join(names[:8]) or 'nothing'}"


_HASHED: dict[str, str] = {}  # what this process knows: path, size, time of change -> SHA-256


def digest(files: Iterable[Path], remember: bool = True) -> str:
    """Return one SHA-256 over the names and contents of some files.

    A file's own digest is remembered under `HOME` by path, size and time of change: a cohort of
    20 GB is hashed once, not at each run. ``remember=False`` writes nothing.
    """
    memory = HOME / "digests.json"
    known: dict[str, str] = json.loads(memory.read_text()) if memory.exists() else {}
    labels = {file: _label(file) for file in files}
    _HASHED.update({label: known[label] for label in labels.values() if label in known})
    fresh = [file for file, label in labels.items() if label not in _HASHED]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for file, found in zip(fresh, pool.map(_hash, fresh), strict=True):
            _HASHED[labels[file]] = found
    if remember and not known.keys() >= set(labels.values()):
        known |= {label: _HASHED[label] for label in labels.values()}
        write_bytes(memory, json.dumps(known, indent=0).encode())
    lines = (f"{file.name}:{_HASHED[label]}\n" for file, label in labels.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def stamp(files: Iterable[Path]) -> str:
    """Return a digest of the names, sizes and times of change of some files.

    It tells artifacts apart without reading them: hashing embeddings takes as long as using them.
    """
    lines = "".join(f"{f.name}|{f.stat().st_size}|{f.stat().st_mtime_ns}\n" for f in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _label(file: Path) -> str:
    stat = file.stat()
    return f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file by temporary name and rename: a reader sees all of it or none.

    Raises
    ------
    ArtifactError
        It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".building-", dir=path.parent) as folder:
            building = Path(folder) / path.name
            building.write_bytes(content)
            building.replace(path)
    except OSError as error:
        raise ArtifactError(
            f"{path} could not be written",
            found=error.strerror or str(error),
            fix="make room, or name a file in a folder that can be written",
        ) from error


@contextmanager
def fresh_folder(final: Path) -> Iterator[Path]:
    """Yield a temporary folder that takes its final name only if the block ends well."""
    final.parent.mkdir(parents=True, exist_ok=True)
    outer = Path(tempfile.mkdtemp(prefix=".building-", dir=final.parent))  # for this user alone
    folder = outer / final.name
    folder.mkdir()
    try:
        yield folder
        try:
            folder.rename(final)
        except OSError:
            # Another process built the same content first; either copy will do.
            if not final.exists():
                raise
    finally:
        shutil.rmtree(outer, ignore_errors=True)


def new_folder(final: Path, build: Callable[[Path], object]) -> Path:
    """Build a folder where a user wants it.

    Raises
    ------
    ArtifactError
        It is there already, or cannot be written.
    """
    if final.exists():
        raise ArtifactError(
            f"{final} is there already",
            found="a folder" if final.is_dir() else "a file",
            fix="name a folder that is not there yet, or remove it",
        )
    try:
        with fresh_folder(final) as folder:
            build(folder)
    except OSError as error:
        raise ArtifactError(
            f"{final} could not be written",
            found=error.strerror or str(error),
            fix="make room, or name a folder elsewhere",
        ) from error
    return final


def built(name: str, content: str, build: Callable[[Path], object]) -> Path:
    """Return the folder of a build under `HOME`, building it the first time.

    Parameters
    ----------
    name
        What it is, for people.
    content
        A digest of all that determines the result.
    build
        Writes the result into the folder that it is given.
    """
    folder = HOME / f"{name}-{content[:16]}"
    if not folder.exists():
        with fresh_folder(folder) as fresh:
            build(fresh)
    return folder


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

    The parameters are those of `built`; the run is found again by a tag with the digest.
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
