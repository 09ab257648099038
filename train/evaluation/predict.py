"""A network on tiles whose labels may be known: its predictions, and its loss."""

import numpy as np

from featurestore.snapshots.tile_set import TileSet
from train.config.schema import Config
from train.evaluation.calibration import cross_entropy
from train.models.checkpoint import ModelSpec, TrainedModel
from train.models.inference import apply_to_tiles
from train.predictions.table import Predictions

TINY = 1e-30  # float32 rounds smaller probabilities to 0


def predict_tile_set(
    model: TrainedModel, tiles: TileSet, config: Config
) -> tuple[Predictions, float | None]:
    """Return what a network says of tiles, in this process, and its loss.

    The loss is as in `weighted_loss`, but of the network's logits.
    """
    applied = apply_to_tiles(model, tiles, threads=config.threads)
    predictions = Predictions.of(
        tiles.keys, applied.probabilities.numpy(), model.spec.classes, config.evidence.resample
    )
    return predictions, applied.loss if predictions.labelled else None


def weighted_loss(predictions: Predictions, spec: ModelSpec) -> float | None:
    """Return the mean cross entropy, each tile weighted by its class as in training.

    None where not every tile has a label, or none weighs anything. Of a probability of 0 nobody
    knows the logit: it counts as `TINY`.
    """
    weights = np.array(spec.weights)
    if not predictions.labelled or not weights[predictions.target].any():
        return None
    logits = np.log(np.maximum(predictions.probabilities, TINY))
    return cross_entropy(logits, predictions.target, weights)
