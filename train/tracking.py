"""What a run leaves in MLflow; train/registry.py alone names it too."""

import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, unquote

import numpy as np
import torch
from torch import nn

from featurestore.artifacts import local_path, use_tracking
from featurestore.errors import ArtifactError
from train.checkpoint import Blueprint
from train.registry import seal
from train.source import git_commit

T = TypeVar("T")

PACKAGES = (
    "accelerate", "duckdb", "ibis-framework", "mlflow", "numpy", "pyarrow", "scikit-learn",
    "tissue-probe", "torch", "torchmetrics",
)  # fmt: skip

AT_ONCE = 100  # as many as a tracking server takes in one request


def batched(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """Yield tuples of at most ``size`` items (itertools has it from Python 3.12 on)."""
    rest = iter(items)
    while some := tuple(islice(rest, size)):
        yield some


def spell(name: str) -> str:
    """Spell a class name with the characters that MLflow takes in a metric's name.

    Letters, digits, ``_`` and ``-`` stand for themselves, others become ``.XX`` per UTF-8 byte;
    `unspell` turns it back.
    """
    return quote(name, safe="").replace("~", "%7E").replace(".", "%2E").replace("%", ".")


def unspell(name: str) -> str:
    """Undo `spell`."""
    return unquote(name.replace(".", "%"))


def versions() -> dict[str, str]:
    """Return the versions of the packages that a result depends on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


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
        Digests of its inputs by name.
    """

    run: str
    commit: str | None
    config: str
    metrics: dict[str, float]
    data: dict[str, str]


def facts(run: str) -> Facts:
    """Return what a run has recorded.

    Raises
    ------
    ArtifactError
        There is no such run.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        found = mlflow.MlflowClient().get_run(run)
    except MlflowException as error:
        raise ArtifactError(
            f"MLflow has no run {run}",
            found=str(error).splitlines()[0],
            fix=f"check its id and the tracking URI ({mlflow.get_tracking_uri()})",
        ) from error
    config = Path(local_path(f"runs:/{run}/config.yaml"))
    inputs = {}
    for one in found.inputs.dataset_inputs:
        tags = {tag.key: tag.value for tag in one.tags}
        inputs[one.dataset.name] = tags.get("sha256", one.dataset.digest)
    return Facts(
        run=run,
        commit=found.data.tags.get("mlflow.source.git.commit"),
        config=config.read_text() if config.is_file() else "",
        metrics=dict(found.data.metrics),
        data=inputs,
    )


class Tracker(Protocol):
    """What the scripts ask of a tracker."""

    records: bool
    """Whether anything comes of it: pictures for nobody need not be drawn."""
    run: str | None
    """The run's id; set beforehand, that run goes on."""

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

    def dataset(self, name: str, uri: str, digest: str, context: str) -> None:
        """Record an input with its digest."""

    def model(
        self, network: nn.Module, blueprint: Blueprint, checkpoint: Path, name: str | None
    ) -> str | None:
        """Record the model, register it under a name; return its URI."""

    def child(self, name: str) -> AbstractContextManager[None]:
        """Record what is recorded meanwhile under a run below this one."""

    def where(self) -> str:
        """Return where a person finds the run."""


class NullTracker:
    """Records nothing: for ``tracking.enabled=false`` and for every process but the first."""

    records = False
    run: str | None = None

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

    params = metrics = text = table = file = dataset = model = _ignore


class MlflowTracker:
    """One MLflow run.

    Parameters
    ----------
    uri
        Tracking URI, see `featurestore.artifacts.use_tracking`.
    experiment, run_name
        As in MLflow.
    """

    records = True

    def __init__(self, uri: str | None, experiment: str, run_name: str | None) -> None:
        self.uri = use_tracking(uri)
        self.experiment, self.run_name = experiment, run_name
        self.run: str | None = None

    def __enter__(self) -> "MlflowTracker":
        import mlflow

        mlflow.set_experiment(self.experiment)
        name = None if self.run else self.run_name
        self.run = mlflow.start_run(run_id=self.run, run_name=name).info.run_id
        if commit := git_commit():
            mlflow.set_tag("mlflow.source.git.commit", commit)
        return self

    def where(self) -> str:
        """Return the run's id and how to see it."""
        look = f"mlflow ui --backend-store-uri {self.uri}" if "://" in self.uri else "mlflow ui"
        return f"run: {self.run} ({self.uri if self.uri.startswith('http') else look})"

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        import mlflow

        killed = kind is not None and issubclass(kind, KeyboardInterrupt)
        mlflow.end_run("FINISHED" if kind is None else "KILLED" if killed else "FAILED")

    @contextmanager
    def child(self, name: str) -> Iterator[None]:
        """Record what is recorded meanwhile under a nested run."""
        import mlflow

        experiment = mlflow.get_run(self.run).info.experiment_id
        with mlflow.start_run(run_name=name, nested=True, experiment_id=experiment):
            yield

    def params(self, values: Mapping[str, Any]) -> None:
        """Record parameters."""
        import mlflow

        for some in batched(values.items(), AT_ONCE):
            mlflow.log_params(dict(some))

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record numbers."""
        import mlflow

        for some in batched(values.items(), AT_ONCE):
            mlflow.log_metrics({key: float(value) for key, value in some}, step=step)

    def text(self, content: str, name: str) -> None:
        """Record a text as an artifact."""
        import mlflow

        mlflow.log_text(content, name)

    def table(self, columns: Mapping[str, list[Any]], name: str) -> None:
        """Record a table, shown as such in the UI."""
        import mlflow

        mlflow.log_table(dict(columns), name)

    def file(self, path: Path, folder: str | None = None) -> None:
        """Record a file as an artifact."""
        import mlflow

        mlflow.log_artifact(str(path), folder)

    def dataset(self, name: str, uri: str, digest: str, context: str) -> None:
        """Record an input with its digest (MLflow keeps 36 characters; all stand in a tag)."""
        import mlflow
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset

        source = CodeDatasetSource(tags={"uri": uri, "sha256": digest})
        mlflow.log_input(
            MetaDataset(source, name=name, digest=digest[:32]),
            context=context,
            tags={"uri": uri, "sha256": digest},
        )

    def model(
        self, network: nn.Module, blueprint: Blueprint, checkpoint: Path, name: str | None
    ) -> str | None:
        """Record the model as an exported graph (no pickle), register it; return its URI.

        A registered version is tagged with the digests of its files.
        """
        import mlflow
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec

        example = np.zeros((2, blueprint.dim), dtype=np.float32)
        named = f"probabilities of {', '.join(blueprint.classes)}"
        kind, classes = np.dtype(np.float32), len(blueprint.classes)
        signature = ModelSignature(
            inputs=Schema([TensorSpec(kind, (-1, blueprint.dim))]),
            outputs=Schema([TensorSpec(kind, (-1, classes), named)]),
        )
        network = network.cpu().eval()
        with torch.no_grad():
            info = mlflow.pytorch.log_model(
                network,
                name="model",
                signature=signature,
                input_example=example,
                serialization_format="pt2",
                extra_files=[str(checkpoint)],
                metadata={"classes": blueprint.classes, "dim": blueprint.dim},
                # Given, or MLflow starts a process to find them out.
                pip_requirements=[f"torch=={importlib.metadata.version('torch')}", "numpy"],
                registered_model_name=name,
            )
        if not name:
            return str(info.model_uri)
        seal(name, str(info.registered_model_version))
        return f"models:/{name}/{info.registered_model_version}"
