"""What scripts ask of a tracker, and what a run has recorded; train/journal.py records."""

import importlib.metadata
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import quote, unquote

from torch import nn

from featurestore import server
from featurestore.errors import ArtifactError, TrackingError
from featurestore.uris import local_path
from train.checkpoint import Blueprint
from train.schema import ConfigError

PACKAGES = (
    "accelerate", "duckdb", "ibis-framework", "mlflow", "numpy", "pyarrow", "scikit-learn",
    "tissue-probe", "torch", "torchmetrics",
)  # fmt: skip
SPELLED = 200  # of the 250 characters of a metric's name, for the class in it


def spell(name: str) -> str:
    """Spell a class name with the characters that MLflow takes in a metric's name.

    Letters, digits, ``_`` and ``-`` stand for themselves, others become ``.XX`` per UTF-8 byte;
    `unspell` turns it back.
    """
    return quote(name, safe="").replace("~", "%7E").replace(".", "%2E").replace("%", ".")


def unspell(name: str) -> str:
    """Undo `spell`."""
    return unquote(name.replace(".", "%"))


def check_spelled(names: Iterable[str]) -> None:
    """Refuse class names that are too long for the metrics of their class, which come last.

    Raises
    ------
    ConfigError
        One is.
    """
    for name in names:
        if len(spell(name)) > SPELLED:
            raise ConfigError(
                "MLflow takes no metric of so long a class name",
                found=f"{name!r}, {len(spell(name))} characters as MLflow takes them",
                fix=f"shorten it to {SPELLED} of them (a letter beyond ASCII counts six or more), "
                "or set tracking.enabled=false",
            )


def versions() -> dict[str, str]:
    """Return the versions of the packages that a result depends on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


CONTENT = "content"  # a kind of digest: of a snapshot's rows


@dataclass(frozen=True)
class Facts:
    """What a run has recorded.

    Parameters
    ----------
    run, commit
        Its id, and the commit of the code.
    config
        The resolved configuration, as YAML; empty if there is none.
    metrics
        Figures by name.
    data
        Digests of its inputs by name; of several with one name, the later ones are numbered.
    params
        Parameters by name.
    contents
        Digests of the rows of its snapshots; none of a run that was recorded by earlier code.
    """

    run: str
    commit: str | None
    config: str
    metrics: dict[str, float]
    data: dict[str, str]
    params: dict[str, str]
    contents: frozenset[str] = frozenset()


def known(run: str) -> Any:
    """Return MLflow's entity of a run.

    Raises
    ------
    ArtifactError
        There is no such run.
    TrackingError
        The server stopped answering.
    """
    import mlflow

    uri = mlflow.get_tracking_uri()
    fix = f"check its id and the tracking URI ({uri})"
    with server.translated(uri, f"MLflow has no run {run}", ArtifactError, fix):
        return mlflow.MlflowClient().get_run(run)


def facts(run: str) -> Facts:
    """Return what a run has recorded; raises as `known`."""
    found = known(run)
    config = Path()
    with suppress(ArtifactError):
        config = Path(local_path(f"runs:/{run}/config.yaml"))
    inputs: dict[str, str] = {}
    contents: set[str] = set()
    for one in found.inputs.dataset_inputs:
        tags = {tag.key: tag.value for tag in one.tags}
        name, alike = one.dataset.name, sum(own.split(" ")[0] == one.dataset.name for own in inputs)
        key = f"{name} {alike + 1}" if alike else name
        inputs[key] = tags.get("sha256", one.dataset.digest)
        contents |= {tags[CONTENT]} if CONTENT in tags else set()
    return Facts(
        run=run,
        commit=found.data.tags.get("mlflow.source.git.commit"),
        config=config.read_text() if config.is_file() else "",
        metrics=dict(found.data.metrics),
        data=inputs,
        params=dict(found.data.params),
        contents=frozenset(contents),
    )


def mark(run: str, status: str) -> None:
    """Give a run that nobody works on any more a status, with those below it; ask once.

    Parameters
    ----------
    run
        Its id. What has ended keeps its status.
    status
        ``FAILED`` or ``KILLED``.
    """
    import mlflow

    client = mlflow.MlflowClient()
    with server.impatient(), suppress(Exception):  # to record it is all that there is to lose
        found = client.get_run(run)
        below = f"tags.`mlflow.parentRunId` = '{run}'"
        for one in (*client.search_runs([found.info.experiment_id], below), found):
            if one.info.status == "RUNNING":
                client.set_terminated(one.info.run_id, status)


class Tracker(Protocol):
    """What the scripts ask of a tracker."""

    run: str | None
    """The run's id; set beforehand, that run goes on."""
    failure: TrackingError | None
    """Why nothing is recorded any more: the server was lost. See `train.resume.settle`."""

    @property
    def records(self) -> bool:
        """Whether anything comes of it: pictures for nobody need not be drawn."""

    def __enter__(self) -> "Tracker": ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def params(self, values: Mapping[str, Any]) -> None:
        """Record parameters."""

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record numbers."""

    def text(self, content: str, name: str) -> None:
        """Record a text as an artifact."""

    def table(self, columns: Mapping[str, list[Any]], name: str) -> None:
        """Record a table, shown as such in the UI."""

    def file(self, path: Path, folder: str | None = None) -> None:
        """Record a file as an artifact."""

    def checkpoint(self, path: Path) -> None:
        """Record a file as an artifact, and its digest, see `train.models.checked`."""

    def folder(self, path: Path, name: str) -> None:
        """Record all that is in a folder under a name."""

    def dataset(self, name: str, uri: str, digests: Mapping[str, str], context: str) -> None:
        """Record an input with its digests by their kind, the one that names it first."""

    def model(
        self, network: nn.Module, blueprint: Blueprint, checkpoint: Path, name: str | None
    ) -> str | None:
        """Record the model, register it under a name; return its URI."""

    def child(self, name: str) -> AbstractContextManager[None]:
        """Record what is recorded meanwhile under a run below this one."""

    def finish(self) -> None:
        """Say that all is recorded."""

    def where(self) -> str:
        """Return where a person finds the run."""


class NullTracker:
    """Records nothing: for ``tracking.enabled=false`` and for every process but the first.

    What it was told of metrics is in ``heard``.
    """

    records = False
    run: str | None = None
    failure: TrackingError | None = None

    def __init__(self) -> None:
        self.heard: dict[str, float] = {}

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Remember numbers, the last of each."""
        self.heard |= values

    def child(self, name: str) -> AbstractContextManager[None]:
        """Record nothing below it."""
        return nullcontext()

    def where(self) -> str:
        """Return that it is nowhere in MLflow."""
        return "not tracked in MLflow"

    def __enter__(self) -> "NullTracker":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def _ignore(self, *_: object, **__: object) -> None:
        return None

    params = text = table = file = checkpoint = folder = dataset = model = finish = _ignore
