"""A fit of one linear head: by the engine, every epoch recorded."""

import math

import numpy as np
import torch
from torch import Tensor

from featurestore.snapshots.tile_set import TileSet
from train.config.rules import steadier
from train.engine.evaluate import evaluate, out_of_fold
from train.engine.heads import HeadSpecs
from train.evaluation.calibration import cross_entropy
from train.fitting.linear import DivergedError, calibrated, network, plan, summed, train_heads
from train.fitting.load import TileTable, load
from train.models.checkpoint import TrainedModel
from train.reports.history import History
from train.reports.recorder import record_split
from train.runtime.processes import assemble_rows
from train.runtime.run import Run
from train.tracking.names import encode_name

TRAINED, HELD = 0, 1  # the two folds that a single head knows


def fit(session: Run, tiles: TileSet, classes: list[str]) -> TrainedModel:
    """Train a head on the tiles of split ``train``, stop by the others, and record how good it is.

    Raises
    ------
    DivergedError
        The validation loss is not a finite number.
    """
    config, accelerator = session.config, session.accelerator
    side = np.where(np.asarray(tiles.keys["split"]) == "train", TRAINED, HELD)
    target = tiles.keys["target"].to_numpy()
    own = TileTable(tiles.keys, target[:, None], side[:, None], tiles.matrix)
    shuffled = np.random.default_rng(config.seed).permutation(np.flatnonzero(side == TRAINED))
    pool, _ = load(session, own, shuffled)
    held, order = load(session, own, np.flatnonzero(side == HELD))
    heads = HeadSpecs(
        *(torch.tensor([value]) for value in (0, HELD)),
        *(torch.tensor([value]) for value in (
            1.0, config.learning_rate, config.weight_decay, config.label_smoothing
        )),
    ).on(accelerator.device)  # fmt: skip
    history = History(session, classes)

    def told(epoch: int, _: Tensor, trained: Tensor, validated: Tensor, cube: Tensor) -> None:
        if not math.isfinite(float(validated)):
            raise DivergedError(
                f"Training diverged in epoch {epoch}",
                found=f"validation/loss {float(validated)}, train/loss {float(trained)}",
                fix=steadier(config),
            )
        losses = {"train/loss": float(trained), "validation/loss": float(validated)}
        if session.is_first:
            history.epoch(
                epoch, losses | {"learning_rate": config.learning_rate},
                cube[0].sum(dim=0).cpu().numpy(),
            )  # fmt: skip

    fitted, aims = train_heads(
        session, pool, heads, classes, plan(config), "head", told, history.rows, held, counted=True
    )
    history.close()
    weights = aims.weights[0].tolist()
    named = zip(classes, weights, strict=True)
    session.tracker.metrics({f"class_weight/{encode_name(name)}": weight for name, weight in named})
    found, _ = evaluate(held, fitted.affine, heads, aims, summed(session), counted=False)
    loss = float(found)
    probabilities = assemble_rows(accelerator, held, out_of_fold(held, fitted.affine, heads))
    probabilities, temperature = calibrated(session, probabilities, target[order])
    if config.calibrate:
        loss = cross_entropy(probabilities.numpy(), target[order], np.array(weights))
    if session.is_first:
        record_split(session, "validation", tiles, order, probabilities, classes, loss)
    return network(session, fitted.affine, aims.weights[0], classes, temperature)
