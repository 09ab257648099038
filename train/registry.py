"""The model registry: versions, the alias that a model is served by, and who may move it now.

Digests of a version's files stand in its tag `sha256sums`, as ``sha256sum`` writes them.
"""

import getpass
import hashlib
import os
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from featurestore import preflight, server
from featurestore.errors import ArtifactError, FeatureStoreError
from featurestore.redaction import redacted

SUMS = "sha256sums"
ADDED = "registered_model_meta"  # MLflow writes it into what it downloads
LOCK = ".promotion"  # after the name of a model whose alias is being moved
LONGEST = 5000  # characters of a tag that every backend store takes
PATIENCE = 30.0  # seconds to wait for another promotion; each holds the lock for less than one
PAUSE = 0.1


class RegistryError(FeatureStoreError):
    """The registry has no such thing, or refuses."""


class BusyError(FeatureStoreError):
    """Another process moves an alias of the model at this moment."""


class OvertakenError(FeatureStoreError):
    """The alias moved while the candidate was looked at."""


@dataclass(frozen=True)
class Version:
    """A registered version.

    Parameters
    ----------
    model, number
        Its name in the registry and its number.
    run
        The run that made it.
    tags
        As they are now.
    """

    model: str
    number: str
    run: str
    tags: Mapping[str, str]

    def __str__(self) -> str:
        return f"version {self.number}"


def client() -> Any:
    """Return MLflow's client."""
    import mlflow

    return mlflow.MlflowClient()


@contextmanager
def translated(wrong: str) -> Iterator[None]:
    """Turn MLflow's exceptions into an error that says what could not be done."""
    import mlflow

    uri = mlflow.get_registry_uri()
    fix = f"check names and the tracking URI ({uri})"
    with server.translated(uri, wrong, RegistryError, fix):
        yield


def version(model: str, number: int) -> Version:
    """Return a version of a model.

    Raises
    ------
    RegistryError
        There is none.
    """
    with translated(f"The registry has no version {number} of {model}"):
        return _version(client().get_model_version(model, str(number)))


def holder(model: str, alias: str) -> Version | None:
    """Return the version that an alias points at, or None.

    Raises
    ------
    RegistryError
        There is no such model, or it cannot be an alias.
    """
    with translated(f"The registry has no alias {alias!r} of {model}"):
        if alias not in client().get_registered_model(model).aliases:
            return None
        return _version(client().get_model_version_by_alias(model, alias))


def _version(found: Any) -> Version:
    return Version(found.name, str(found.version), found.run_id or "", dict(found.tags))


# -- files and their digests ----------------------------------------------------------------------


def sums(folder: Path) -> str:
    """Return the SHA-256 of each file of a registered model, as ``sha256sum`` writes them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ADDED)
    return "".join(line(file, file.relative_to(folder).as_posix()) for file in files)


def line(file: Path, name: str) -> str:
    """Return the SHA-256 of a file as ``sha256sum`` writes it."""
    return f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {name}\n"


def by_name(lines: str) -> dict[str, str]:
    """Return the digests that `sums` or `line` wrote, by the names of the files."""
    return {line[66:]: line[:64] for line in lines.splitlines()}


def seal(model: str, number: str) -> None:
    """Tag a version with the digests of its files as the registry gives them out."""
    with tempfile.TemporaryDirectory() as scratch:
        found = sums(fetch(model, number, Path(scratch)))
    with translated(f"Version {number} of {model} could not be tagged"):
        client().set_model_version_tag(model, number, SUMS, found)


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
    with server.translated(mlflow.get_registry_uri(), wrong, ArtifactError, fix):
        return Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder)))


def changed(found: Version, folder: Path) -> list[str] | None:
    """Return what is not as registered: files changed, gone or new; None without digests."""
    if SUMS not in found.tags:
        return None
    before, now = by_name(found.tags[SUMS]), by_name(sums(folder))
    said = {name: "gone" if name not in now else "changed" for name in before}
    return [
        f"{name} {said.get(name, 'new')}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


# -- aliases --------------------------------------------------------------------------------------


def previous(alias: str) -> str:
    """Return the alias of the version that an alias pointed at before."""
    return f"previous_{alias}"


def move(candidate: Version, alias: str, champion: Version | None) -> None:
    """Let an alias point at a version, if it still points where it did; keep the one before.

    Parameters
    ----------
    champion
        The version that the candidate was compared with.

    Raises
    ------
    OvertakenError
        The alias points elsewhere by now.
    BusyError
        See `locked`.
    """
    before = champion.number if champion else "none"
    with locked(candidate.model, f"{alias}: {before} -> {candidate.number}"):
        now = holder(candidate.model, alias)
        if (now.number if now else "none") != before:
            raise OvertakenError(
                f"{alias} of {candidate.model} moved while {candidate} was looked at",
                found=f"{now or 'no version'}{_mover(now)} instead of {champion or 'none'}",
                fix="run the same command again: it compares with the new one",
            )
        with translated(f"{alias} of {candidate.model} could not be moved"):
            # In this order the champion has an alias at every moment, whatever fails.
            if champion:
                _point(candidate.model, previous(alias), champion.number)
            _point(candidate.model, alias, candidate.number)
        tag(candidate, {"decision": "promoted"})


def swap(model: str, alias: str, record: Callable[[Version, Version], None]) -> None:
    """Let an alias and that of the version before change places; done twice, it is undone.

    Parameters
    ----------
    record
        Writes the evidence, given the version that goes and the one that comes back.

    Raises
    ------
    ArtifactError
        There is no version before.
    """
    with locked(model, f"{alias}: rollback"):
        now, before = holder(model, alias), holder(model, previous(alias))
        if now is None or before is None or now.number == before.number:
            raise ArtifactError(
                f"There is nothing to roll {alias} of {model} back to",
                found=f"{alias}: {now or 'none'}, {previous(alias)}: {before or 'none'}",
                fix="promote the version that you want",
            )
        record(now, before)
        with translated(f"{alias} of {model} could not be moved"):
            _point(model, alias, before.number)
            _point(model, previous(alias), now.number)


def _point(model: str, alias: str, number: str) -> None:
    client().set_registered_model_alias(model, alias, number)


def _mover(now: Version | None) -> str:
    tags = now.tags if now else {}
    known = [tags.get(f"promotion.{key}") for key in ("author", "time")]
    return f" (by {known[0]}, {known[1]})" if all(known) else ""


# -- the lock -------------------------------------------------------------------------------------


@contextmanager
def locked(model: str, doing: str, patience: float = PATIENCE) -> Iterator[None]:
    """Hold the right to move aliases of a model: one process at a time, on any machine.

    MLflow has no compare-and-swap, but registers a name once: whoever registers
    ``MODEL.promotion`` holds the lock, whose description says who, where and for what.

    Raises
    ------
    BusyError
        Somebody else holds it all the time.
    """
    name = model + LOCK
    where = f"{user()} on {socket.gethostname()}, process {os.getpid()}"
    when = datetime.now(UTC).isoformat(" ", "seconds")
    mine = f"{doing}, by {where}, since {when} UTC, {uuid.uuid4()}"
    with translated(f"The lock {name} could not be taken"):
        _take(name, mine, time.monotonic() + patience)
    try:
        yield
    finally:
        with translated(f"The lock {name} could not be removed"):
            if _keeper(name) == mine:
                client().delete_registered_model(name)


def _take(name: str, mine: str, until: float) -> None:
    from mlflow.exceptions import MlflowException

    while True:
        try:
            client().create_registered_model(name, description=mine)
            return
        except MlflowException as error:
            # Not to exist is what the store says of a lock that goes while it looks at it.
            passing = (
                "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST", "TEMPORARILY_UNAVAILABLE"
            )  # fmt: skip
            if error.error_code not in passing:
                raise
        keeper = _keeper(name)
        if keeper == mine:  # the answer to an earlier try was lost
            return
        if time.monotonic() > until:
            model = name.removesuffix(LOCK)
            raise BusyError(
                f"An alias of {model} is being moved by another process",
                found=keeper or "it changes hands too often",
                fix="wait for it; if that process is dead: "
                f"python train/promote.py unlock model={model}",
            )
        time.sleep(PAUSE)


def _keeper(name: str) -> str | None:
    found = preflight.registered(client(), name)
    return str(found.description) if found else None


def unlock(model: str) -> str | None:
    """Remove the lock that a killed process has left; return what it was for, or None."""
    with translated(f"The lock of {model} could not be removed"):
        keeper = _keeper(model + LOCK)
        if keeper is not None:
            client().delete_registered_model(model + LOCK)
    return keeper


def user() -> str:
    """Return the login name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user without a name
        return f"uid {os.getuid()}"


# -- what is written ------------------------------------------------------------------------------


def tag(found: Version, tags: Mapping[str, str]) -> None:
    """Tag a version with a decision; lines of an earlier gate do not outlive it."""
    named = {f"promotion.{key}": redacted(value)[:LONGEST] for key, value in tags.items()}
    stale = [key for key in found.tags if key.startswith("promotion.gate.") and key not in named]
    with translated(f"{found} of {found.model} could not be tagged"):
        for key in stale if any(key.startswith("gate.") for key in tags) else []:
            client().delete_model_version_tag(found.model, found.number, key)
        for key, value in named.items():
            client().set_model_version_tag(found.model, found.number, key, value)


def write(found: Version, content: str, name: str) -> str:
    """Write a text as an artifact of a version's run; return its URI."""
    with translated(f"Run {found.run} took no artifact"):
        client().log_text(found.run, content, name)
    return f"runs:/{found.run}/{name}"
