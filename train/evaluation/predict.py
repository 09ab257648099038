"""A network on tiles whose labels may be known: its predictions, and its loss."""

import numpy as np

from featurestore.snapshots.tile_set import TileSet
from train.config.schema import Config
from train.evaluation.calibration import cross_entropy
from train.models.checkpoint import ModelSpec, TrainedModel
from train.models.inference import predict_tiles
from train.predictions.table import Predictions


def predict_tile_set(model: TrainedModel, tiles: TileSet, config: Config) -> Predictions:
    """Return what a network says of tiles, in this process."""
    probabilities = predict_tiles(model.network, tiles, config.threads)
    order = np.arange(len(tiles.keys))  # that of the keys
    resample = config.evidence.resample
    return Predictions.of(tiles.keys, order, probabilities, model.spec.classes, resample)


def weighted_loss(predictions: Predictions, spec: ModelSpec) -> float | None:
    """Return the mean cross entropy, each tile weighted by its class as in training.

    None where not every tile has a label, or all are of classes that weigh nothing.
    """
    weights = np.array(spec.weights)
    if not predictions.labelled or not weights[predictions.target].any():
        return None
    return cross_entropy(predictions.probabilities, predictions.target, weights)
