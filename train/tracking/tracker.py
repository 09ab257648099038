"""What scripts ask of a tracker; `train.tracking.mlflow_tracker` records."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol

from featurestore.errors import TrackingError
from train.models.checkpoint import TrainedModel


class Step(NamedTuple):
    """The numbers of a step, an epoch for example.

    Parameters
    ----------
    number
        Which step.
    time
        When it ended, in seconds of the epoch (of Unix).
    values
        By name.
    """

    number: int
    time: float
    values: Mapping[str, float]


def log_all(metric: str) -> bool:
    """Return True: every metric is logged."""
    return True


class Tracker(Protocol):
    """What the scripts ask of a tracker."""

    run: str | None
    """The run's id; set before it starts, that run is resumed."""
    resumed_children: frozenset[str]
    """Of a resumed run, the runs below it that are resumed too; the others are made anew."""
    failure: TrackingError | None
    """Why nothing is recorded any more: the server was lost."""
    is_logged: Callable[[str], bool]
    """Says of a metric's name whether it is logged; a table of the run holds all of them."""

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

    def steps(self, steps: Sequence[Step]) -> None:
        """Record the numbers of several steps together."""

    def text(self, content: str, name: str) -> None:
        """Record a text as an artifact."""

    def table(self, columns: Mapping[str, list[Any]], name: str) -> None:
        """Record a table, shown as such in the UI."""

    def file(self, path: Path, folder: str | None = None) -> None:
        """Record a file as an artifact."""

    def checkpoint(self, path: Path) -> None:
        """Record a file as an artifact, and its digest."""

    def folder(self, path: Path, name: str) -> None:
        """Record all that is in a folder under a name."""

    def dataset(self, name: str, uri: str, digests: Mapping[str, str], context: str) -> None:
        """Record an input with its digests by their kind, the one that names it first."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Record tags, by which a run and its model are searched for."""

    def describe(self, text: str) -> None:
        """Write the description of the run, as Markdown."""

    def evaluates(self, uri: str) -> None:
        """Let the figures that follow be those of a registered version as well."""

    def model(
        self, trained: TrainedModel, checkpoint: Path, name: str | None, card: str = ""
    ) -> str | None:
        """Record the model with its card, register it under a name; return its URI."""

    def child(self, name: str) -> AbstractContextManager[None]:
        """Record what is recorded meanwhile under a run below this one."""

    def finish(self) -> None:
        """Say that all is recorded."""

    def where(self) -> str:
        """Return where a person finds the run."""


class NullTracker:
    """Records nothing: for ``tracking.enabled=false`` and for every process but the first."""

    records = False
    run: str | None = None
    resumed_children: frozenset[str] = frozenset()
    failure: TrackingError | None = None
    is_logged: Callable[[str], bool] = staticmethod(log_all)

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

    params = metrics = steps = text = table = file = checkpoint = folder = dataset = _ignore
    tags = describe = evaluates = model = finish = _ignore
