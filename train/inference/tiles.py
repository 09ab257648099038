"""A network applied to the tiles of a split, which all processes share."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from featurestore.snapshots.tile_set import TileSet
from train.config.schema import Config
from train.engine.shard import DROPPED
from train.evaluation.predict import weighted_loss
from train.models.checkpoint import ModelSpec, TrainedModel
from train.models.inference import BLOCK, apply_network
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
    spec, network = model.spec, model.network.to(processes.device)
    rows = tiles.keys["row"].to_numpy()[processes.rank :: processes.world]
    target = torch.from_numpy(tiles.keys["target"].fill_null(DROPPED).to_numpy())
    local = target[processes.rank :: processes.world]

    def blocks() -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(rows), BLOCK):
            block = slice(start, start + BLOCK)
            x = tiles.matrix.read_rows(rows[block], threads=config.threads)
            yield torch.from_numpy(x), local[block]

    weights = torch.tensor(spec.weights, device=processes.device)
    logits = network[:2]  # type: ignore[index]  # backbone and head of a Sequential
    applied = apply_network(logits, blocks(), weights)
    loss, weight = processes.all_reduce(applied.sums).tolist()
    probabilities = processes.assemble(applied.probabilities, len(target))
    order = np.arange(len(target))  # that of the keys
    predictions = Predictions.of(
        tiles.keys, order, probabilities.numpy(), spec.classes, config.evidence.resample
    )
    return predictions, loss / weight if weight else None


def read_cohort(folder: Path, spec: ModelSpec, config: Config) -> tuple[Predictions, float | None]:
    """Return the predictions of a cohort that were written to a folder, and their loss.

    None where not every tile has a label.
    """
    table = partitions.read(folder)
    predictions = Predictions.from_table(table, spec.classes, config.evidence.resample)
    return predictions, weighted_loss(predictions, spec)
