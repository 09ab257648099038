"""What the main process alone opens before a run begins: tracker, store, snapshots, locks."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from featurestore.errors import UnknownClassError
from featurestore.io import mlflow_artifacts, names
from featurestore.snapshots.snapshot import Snapshot
from featurestore.store import FeatureStore
from train.config.rules import registers
from train.config.schema import Config
from train.config.store import check_places, open_store
from train.config.text import run_name
from train.models.checkpoint import TrainedModel
from train.runtime import places
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
    locks
        Of the output and of the state, until the run ends.
    """

    tracker: Tracker
    store: FeatureStore
    snapshots: list[Snapshot] = field(default_factory=list)
    locks: ExitStack = field(default_factory=ExitStack)


def open_artifacts(config: Config, locks: ExitStack) -> tuple[Tracker, FeatureStore]:
    """Return tracker and store of a run.

    Parameters
    ----------
    locks
        Gets that of the output.
    """
    if config.output:
        locks.callback(places.output(Path(config.output)).close)
    check_places(config)
    return open_tracker(config), open_store(config)


def open_tracker(config: Config) -> Tracker:
    """Return the tracker, its store known to take the run and its model."""
    tracking = config.tracking
    if tracking.enabled:
        check_spelled(config.class_indices)
        model = tracking.model if registers(config) else None
        return MlflowTracker(tracking.uri, tracking.experiment, run_name(config), model)
    uris = [*vars(config.data).values(), config.checkpoint]
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
    return model
