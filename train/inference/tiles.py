"""A network applied to the tiles of a split, which all processes share."""

from pathlib import Path

import numpy as np

from featurestore.snapshots.tile_set import TileSet
from train.config.schema import Config
from train.evaluation.predict import weighted_loss
from train.models.checkpoint import ModelSpec, TrainedModel
from train.models.inference import apply_to_tiles, mean_loss
from train.predictions import partitions
from train.predictions.table import Predictions
from train.runtime.processes import Processes


def predict_split(
    model: TrainedModel,
    tiles: TileSet,
    processes: Processes,
    config: Config,
) -> tuple[Predictions, float | None]:
    """Return the predictions of a network, and its loss.

    The loss is the mean cross entropy of the tiles with a label, each weighted by its class; None
    where none of them weighs anything. The embeddings are read from disk in blocks.
    """
    spec = model.spec
    local = TrainedModel(model.network.to(processes.device), spec)
    rows = slice(processes.rank, None, processes.world)
    applied = apply_to_tiles(local, tiles, rows, config.threads)
    loss = mean_loss(processes.all_reduce(applied.sums))
    order = np.arange(len(tiles.keys))  # that of the keys
    probabilities = processes.assemble(applied.probabilities, len(order))
    predictions = Predictions.of(
        tiles.keys, order, probabilities.numpy(), spec.classes, config.evidence.resample
    )
    return predictions, loss


def read_cohort(folder: Path, spec: ModelSpec, config: Config) -> tuple[Predictions, float | None]:
    """Return the predictions of a cohort that were written to a folder, and their loss.

    None where not every tile has a label.
    """
    table = partitions.read(folder)
    predictions = Predictions.from_table(table, spec.classes, config.evidence.resample)
    return predictions, weighted_loss(predictions, spec)
