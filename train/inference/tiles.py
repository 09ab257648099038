"""A network applied to the tiles of a split, which all processes share."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import torch
from torch import Tensor

from featurestore.snapshots.tile_set import TileSet
from train.config.schema import Config
from train.engine.lanes import Lanes, Rows, owned
from train.engine.shard import DROPPED
from train.engine.solvers.knn import QUERIES, Voters
from train.evaluation.predict import weighted_loss
from train.models.checkpoint import ModelSpec, TrainedModel
from train.models.inference import apply_to_tiles, mean_loss
from train.predictions import partitions
from train.predictions.table import PROBABILITY, Predictions
from train.runtime.processes import Processes


def predict_split(
    model: TrainedModel,
    tiles: TileSet,
    processes: Processes,
    config: Config,
) -> tuple[Predictions, float | None]:
    """Return the predictions of a network, and its loss.

    The loss is the mean cross entropy of the tiles with a label, each weighted by its class; None
    where none of them weighs anything. A process reads its own lanes, in blocks.

    Parameters
    ----------
    tiles
        All of them on the main process, which has the predictions; none on the others.
    """
    spec = model.spec
    local = TrainedModel(model.network.to(processes.device), spec)
    places, share = processes.scatter(lambda: split_tiles(tiles, processes.world))
    applied = apply_to_tiles(local, share, config.threads)
    loss = mean_loss(processes.all_reduce(applied.sums))
    probabilities = processes.assemble(applied.probabilities, places, len(tiles.keys))
    predictions = Predictions.of(
        tiles.keys, probabilities.numpy(), spec.classes, config.evidence.resample
    )
    return predictions, loss


def vote_split(
    voters: Voters,
    transform: Callable[[Tensor], Tensor],
    tiles: TileSet,
    processes: Processes,
    config: Config,
) -> tuple[Predictions, float | None]:
    """Return what neighbours vote on the tiles of a split, and the loss; as `predict_split`.

    Parameters
    ----------
    transform
        What was done to the voters' embeddings when they were read.
    """
    places, share = processes.scatter(lambda: split_tiles(tiles, processes.world))
    rows = share.keys["row"].to_numpy()
    share.matrix.check(rows)
    target = torch.from_numpy(share.keys["target"].fill_null(DROPPED).to_numpy())
    target = target.to(processes.device)
    sums = torch.zeros(2, dtype=torch.float64, device=processes.device)
    votes = [torch.zeros((0, len(config.class_names)), device=processes.device)]
    for start in range(0, len(rows), QUERIES):
        block = slice(start, start + QUERIES)
        x = transform(torch.from_numpy(share.matrix.read_rows(rows[block], threads=config.threads)))
        votes += voters.shares(x.to(processes.device))
        labelled = target[block] != DROPPED
        sums += voters.loss_sums(votes[-1][labelled], target[block][labelled])
    loss = mean_loss(processes.all_reduce(sums))
    probabilities = processes.assemble(torch.cat(votes), places, len(tiles.keys))
    predictions = Predictions.of(
        tiles.keys, probabilities.numpy(), config.class_names, config.evidence.resample
    )
    return predictions, loss


def split_tiles(tiles: TileSet, world: int) -> list[tuple[Rows, TileSet]]:
    """Return the tiles of each of several processes: their places among all, and what is read."""
    row = tiles.keys["row"].to_numpy()
    order = np.argsort(row)
    lanes = Lanes.cut(row[order], tiles.matrix.starts)
    by_process = [order[lanes.rows(owned(rank, world))] for rank in range(world)]
    columns = tiles.keys.select(["row", "target"])
    return [(places, replace(tiles, keys=columns.take(pa.array(places)))) for places in by_process]


def read_doubtful(folder: Path, spec: ModelSpec, config: Config) -> Predictions:
    """Return those predictions of a cohort that are less sure than ``abstain_below``."""
    least = pa.scalar(config.abstain_below, pa.float32())  # the type that they were written in
    sure = pc.max_element_wise(*(ds.field(f"{PROBABILITY}{name}") for name in spec.classes))
    table = partitions.read(folder, sure < least)
    return Predictions.from_table(table, spec.classes, config.evidence.resample)


def read_cohort(folder: Path, spec: ModelSpec, config: Config) -> tuple[Predictions, float | None]:
    """Return the predictions of a cohort that were written to a folder, and their loss.

    None where not every tile has a label.
    """
    table = partitions.read(folder)
    predictions = Predictions.from_table(table, spec.classes, config.evidence.resample)
    return predictions, weighted_loss(predictions, spec)
