"""A fit of many heads at once: train them, compare their settings, keep the best."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn

from train.config.rules import steadier
from train.config.schema import SOLVERS
from train.config.store import class_names
from train.engine.evaluate import evaluate, out_of_fold
from train.engine.heads import HeadSpecs, balanced_class_weights
from train.engine.losses import HeadLosses
from train.engine.shard import DROPPED, Shard
from train.engine.solvers.knn import knn_predict
from train.engine.standardizer import fit_standardizer
from train.engine.trainer import FitResult
from train.evaluation.calibration import calibrate, cross_entropy
from train.evaluation.evaluate import encode_metrics
from train.fitting import grid, selection
from train.fitting.grid import HeadGrid
from train.fitting.linear import DivergedError, network, plan, summed, train_heads
from train.fitting.load import TileTable, load, resident, to_device
from train.fitting.settings import SettingResults
from train.models.checkpoint import ModelSpec
from train.predictions.table import Predictions
from train.runtime.processes import assemble_rows
from train.runtime.run import Run

if TYPE_CHECKING:
    from train.reports.logger import Publish, RunLogger


@dataclass(frozen=True)
class Outcome:
    """What came of a pack.

    Parameters
    ----------
    loss, cube
        Of each head on its validation fold, as `train.engine.evaluate.evaluate` returns them.
    shares
        Returns probabilities of the own tiles out of the folds of some heads, shape (rows, K).
    aims
        The heads' losses.
    fitted
        The heads; None where there are only votes.
    """

    loss: Tensor
    cube: Tensor
    shares: Callable[[Tensor], Tensor]
    aims: HeadLosses
    fitted: FitResult | None = None


def fit(
    session: Run, log: "RunLogger", publish: "Publish", pack: HeadGrid, classes: list[str]
) -> tuple[nn.Module, ModelSpec] | None:
    """Train a head for every setting and fold; return the network of the best, if there is one.

    With ``final``, that is one more head of the best setting, trained on all folds for as many
    epochs as its folds took at the median; else the head of the best setting whose validation loss
    is the lowest.
    """
    config, accelerator = session.config, session.accelerator
    tiles, chosen, folds = pack.tiles, pack.settings, pack.folds
    shuffled = np.random.default_rng(config.seed).permutation(len(tiles.keys))
    pool, order = load(session, tiles, shuffled)
    heads = pack.heads.on(accelerator.device)
    losses = Losses(len(chosen), len(folds))
    if config.probe == "knn":
        found = polled(session, tiles, pool, order, heads, classes)
    else:
        found = trained(session, pool, heads, classes, losses)
    counts = found.cube.view(len(chosen), len(folds), *found.cube.shape[1:]).cpu().numpy()
    by_setting = zip(found.loss.view(len(chosen), -1).tolist(), counts, strict=True)
    scores = [selection.score(loss, own, classes, config.seed) for loss, own in by_setting]
    winner = selection.best(scores)
    own = torch.arange(winner * len(folds), (winner + 1) * len(folds), device=accelerator.device)
    probabilities = assemble_rows(accelerator, pool, found.shares(own))
    variant = chosen[winner].variant
    held = np.isin(tiles.fold[order, variant], folds)
    temperature = 1.0
    if config.calibrate:
        target = tiles.target[order, variant][held]
        scaled, calibration = calibrate(probabilities[held].numpy(), target)
        probabilities[held], temperature = torch.from_numpy(scaled), calibration.temperature
        log.calibration(calibration)
    if session.is_first:
        publish(held_out(session, pack, variant, order, probabilities), "oof", None, "oof_")
        diagnostics = found.fitted.evidence if found.fitted else {}
        log.settings(SettingResults(pack, scores, winner, losses.rows, diagnostics))
    if not found.fitted:
        return None
    if config.final:
        epochs = int(np.median(found.fitted.epoch[own.cpu()].numpy())) + 1
        return final(session, pack, pool, winner, epochs, classes, temperature)
    place = int(own[found.loss[own].argmin()])
    number = place - winner * len(folds)
    score = scores[winner].folds[number]
    if config.calibrate:
        alone = tiles.fold[order, variant] == folds[number]
        shares, target = probabilities[alone].numpy(), tiles.target[order, variant][alone]
        weights = found.aims.weights[place].double().cpu().numpy()
        score = score | {"loss": cross_entropy(shares, target, weights)}
    session.tracker.params({"registered_fold": folds[number]})
    session.tracker.metrics(encode_metrics(score, "registered/validation"))
    best = found.fitted.affine.of(torch.tensor([place]))
    return network(session, best, found.aims.weights[place], classes, temperature)


def trained(
    session: Run, pool: Shard, heads: HeadSpecs, classes: list[str], losses: "Losses"
) -> Outcome:
    """Train all heads; evaluate each on its own fold."""
    fitted, aims = train_heads(
        session, pool, heads, classes, plan(session.config), "heads", losses.add, losses.rows
    )
    loss, cube = evaluate(pool, fitted.affine, heads, aims, summed(session))
    if not fitted.loss.isfinite().any():
        raise DivergedError(
            "Training diverged in every setting and fold",
            found=f"validation losses {sorted(set(loss.tolist()))[:3]}",
            fix=steadier(session.config),
        )

    def shares(own: Tensor) -> Tensor:
        return out_of_fold(pool, fitted.affine.of(own), heads.of(own))

    return Outcome(loss, cube, shares, aims, fitted)


def polled(
    session: Run,
    tiles: TileTable,
    pool: Shard,
    order: npt.NDArray[np.int64],
    heads: HeadSpecs,
    classes: list[str],
) -> Outcome:
    """Ask the nearest tiles of every tile, among all that its head may train on."""
    config, whole = session.config, summed(session)
    bank = pool
    if pool.world > 1 or not isinstance(pool.x, Tensor):
        bank = to_device(resident(tiles, order, config), session.accelerator.device)
    aims = HeadLosses(balanced_class_weights(pool, heads, len(classes), whole), heads.smoothing)
    body = fit_standardizer(pool, heads, whole) if config.normalize == "zscore" else None
    asked = bank
    if pool.world > 1:
        assert isinstance(bank.x, Tensor)
        asked = replace(pool, x=bank.x[pool.rank :: pool.world])
    loss, cube, votes = knn_predict(asked, bank, heads, aims, whole, config.neighbours, body)

    def shares(own: Tensor) -> Tensor:
        return torch.stack([votes[head] for head in own.tolist()]).sum(dim=0)

    return Outcome(loss, cube, shares, aims)


def final(
    session: Run,
    pack: HeadGrid,
    pool: Shard,
    winner: int,
    epochs: int,
    classes: list[str],
    temperature: float,
) -> tuple[nn.Module, ModelSpec]:
    """Train one more head of the best setting, on all folds; its temperature is the folds'."""
    config = session.config
    if config.optimizer in SOLVERS:
        epochs = config.max_epochs  # an optimum is where it is, however many steps away
    whole = grid.head_grid(pack.tiles, [pack.settings[winner]], [DROPPED], config.seed)
    how = replace(plan(config), epochs=epochs, patience=epochs, min_delta=0.0)
    heads = whole.heads.on(session.accelerator.device)
    fitted, aims = train_heads(session, pool, heads, classes, how, "final")
    return network(session, fitted.affine, aims.weights[0], classes, temperature)


class Losses:
    """The losses of every epoch, by setting."""

    def __init__(self, settings: int, folds: int) -> None:
        self.settings, self.folds = settings, folds
        self.rows: list[tuple[int, int, float, float]] = []  # epoch, setting, training, validation

    def add(self, epoch: int, left: Tensor, trained: Tensor, held: Tensor, _: Tensor) -> None:
        """Keep the means over the folds that are left of each setting."""
        setting = left // self.folds
        for own in setting.unique().tolist():
            of = setting == own
            self.rows.append((epoch, own, float(trained[of].mean()), float(held[of].mean())))


def held_out(
    session: Run,
    pack: HeadGrid,
    variant: int,
    order: npt.NDArray[np.int64],
    probabilities: Tensor,
) -> Predictions:
    """Return the predictions of every tile of the folds, with its fold."""
    tiles, config = pack.tiles, session.config
    keys = tiles.keys.append_column("target", pa.array(tiles.target[:, variant]))
    predictions = Predictions.of(
        keys, order, probabilities.numpy(), class_names(config), config.evidence.resample
    )
    fold = tiles.fold[:, variant]
    return predictions.with_column("fold", fold).select(np.isin(fold, pack.folds))
