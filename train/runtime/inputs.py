"""What the main process alone opens before a run begins: tracker, store, snapshots, locks."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from featurestore.errors import ConfigError, UnknownClassError
from featurestore.io import mlflow_artifacts, names
from featurestore.snapshots.snapshot import Snapshot
from featurestore.spec.trees import leaves
from featurestore.store import FeatureStore
from train.config.encoders import encoders
from train.config.rules import registers
from train.config.run_name import run_name
from train.config.schema import Config
from train.config.store import check_places
from train.config.text import plain
from train.models.checkpoint import TrainedModel
from train.runtime import run_locks
from train.runtime.train_test_overlap import TrainTestOverlap
from train.tracking import registered_models
from train.tracking.mlflow_tracker import MlflowTracker
from train.tracking.names import check_spelled
from train.tracking.tracker import NullTracker, Tracker


@dataclass(frozen=True)
class Inputs:
    """What goes into a run.

    Parameters
    ----------
    tracker
        Its store is known to take the run and its model.
    store
        On the artifacts, under the first variant of the rules.
    snapshots
        One for each variant.
    overlap
        Where test tiles are evaluated: those that the model was trained on.
    locks
        Of the output and of the state, until the run ends.
    """

    tracker: Tracker
    store: FeatureStore
    snapshots: list[Snapshot] = field(default_factory=list)
    overlap: TrainTestOverlap | None = None
    locks: ExitStack = field(default_factory=ExitStack)


def open_model(config: Config, locks: ExitStack) -> tuple[Tracker, TrainedModel | None]:
    """Return the tracker and, where one is evaluated, the network of a run.

    The encoder of the network is picked in the configuration: a store is opened after that.

    Parameters
    ----------
    locks
        Gets that of the output.
    """
    tracker = open_tracker(config, locks)
    return tracker, open_checkpoint(config) if config.checkpoint else None


def open_tracker(config: Config, locks: ExitStack) -> Tracker:
    """Return the tracker, after all places are known to take what the run writes.

    Parameters
    ----------
    locks
        As of `open_model`.
    """
    if config.output:
        locks.callback(run_locks.lock_output(Path(config.output)).close)
    check_places(config)
    return new_tracker(config)


def new_tracker(config: Config, nested: bool = False) -> Tracker:
    """Return the tracker, its store known to take the run and its model.

    Parameters
    ----------
    nested
        Whether it is that of a run below another one.
    """
    tracking = config.tracking
    if tracking.enabled:
        check_spelled(config.class_indices)
        model = tracking.model if registers(config) and not encoders(config) else None
        return MlflowTracker(
            tracking.uri, tracking.experiment, run_name(config), model,
            nested=nested, system_metrics=tracking.system_metrics and not nested,
        )  # fmt: skip
    uris = [config.checkpoint, *(uri for _, uri in leaves(plain(config)["data"]))]
    each = [uri for uri in uris for uri in (uri if isinstance(uri, list) else [uri])]
    if any(str(uri).startswith(("runs:", "models:", "mlflow-artifacts:")) for uri in each):
        mlflow_artifacts.use_tracking(tracking.uri)  # artifacts may live there all the same
    return NullTracker()


def open_checkpoint(config: Config) -> TrainedModel:
    """Return the network to evaluate; its name is resolved for all that follows.

    What the run records is the version that it used, not an alias that moves.

    Raises
    ------
    UnknownClassError
        It was trained on other classes.
    ConfigError
        It was trained on another encoder's embeddings, or whose is not known.
    """
    assert config.checkpoint
    config.checkpoint = names.resolved(config.checkpoint)
    model = registered_models.load(config.checkpoint)
    if config.class_names != model.spec.classes:
        raise UnknownClassError(
            "The checkpoint was trained on other classes",
            found=f"{', '.join(model.spec.classes)} in it; "
            f"{', '.join(config.class_names)} configured",
            fix="pick the classes=... that it was trained on, or another checkpoint",
        )
    pick_encoder(config, model)
    return model


def pick_encoder(config: Config, model: TrainedModel) -> None:
    """Pick the encoder of a network among several, unless it is; raises as `open_checkpoint`."""
    embeddings, picked = config.data.embeddings, config.data.encoder
    if not isinstance(embeddings, dict):
        return
    if picked and model.encoder not in (None, picked):
        raise ConfigError(
            f"The checkpoint was trained on the embeddings of {model.encoder}",
            found=f"data.encoder={picked} checkpoint={config.checkpoint}",
            fix="leave data.encoder out, or name a checkpoint of that encoder",
        )
    if not picked and model.encoder not in embeddings:
        raise ConfigError(
            "Which encoder the checkpoint takes embeddings of is not known",
            found=f"{model.encoder or 'none'} in {config.checkpoint}; "
            f"data.embeddings: {', '.join(embeddings)}",
            fix="set data.encoder to one of them",
        )
    config.data.encoder = picked or model.encoder
