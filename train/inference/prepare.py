"""From a configuration to the cohort that is predicted."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import pyarrow as pa

from featurestore.printing import Console
from train.config.schema import Config
from train.config.store import open_store
from train.evaluation.groups import check_group_values
from train.inference.cohort import PredictionSet, prediction_set
from train.inference.stream import lock_folder
from train.models import checkpoint
from train.models.checkpoint import TrainedModel
from train.runtime.inputs import Inputs, open_model


@dataclass(frozen=True)
class PredictionJob:
    """What all processes of a prediction work on.

    Parameters
    ----------
    config
        The configuration, resolved.
    states
        Where the predictions are written.
    cohort
        Tiles to predict.
    model
        The network that predicts.
    """

    config: Config
    states: Path
    cohort: PredictionSet
    model: TrainedModel

    @property
    def slides(self) -> pa.Table:
        """``slide_id, tiles, labelled`` of the slides that predictions are recorded of."""
        return self.cohort.slides

    def without_tiles(self) -> Self:
        """Return what the other processes are given."""
        return replace(self, cohort=self.cohort.without_tiles())


def prepare_prediction(
    config: Config, console: Console, processes: int
) -> tuple[Inputs, PredictionJob]:
    """Open all that a prediction needs; its state is that of any number of processes."""
    with ExitStack() as locks:
        tracker, model = open_model(config, locks)
        assert model
        store = open_store(config)
        cohort = prediction_set(store, model.digest, config.evidence.columns())
        cohort = replace(cohort, model=config.checkpoint)
        check_group_values(cohort.values(config.evidence.groups), len(cohort))
        checkpoint.check_dimension(model.spec, cohort.dim)
        states, lock = lock_folder(config, cohort, tracker)
        if lock:
            locks.callback(lock.close)
        inputs = Inputs(tracker, store, locks=locks.pop_all())
    return inputs, PredictionJob(config, states, cohort, model)
