"""A fit of many heads at once: train them, compare their settings, keep the best."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from featurestore.console.tables import print_table
from train.config.rules import steadier
from train.config.schema import SOLVERS
from train.engine.evaluate import evaluate, out_of_fold
from train.engine.heads import HeadSpecs, balanced_class_weights
from train.engine.losses import HeadLosses
from train.engine.shard import DROPPED, Shard
from train.engine.solvers.knn import knn_predict
from train.engine.standardizer import fit_standardizer
from train.engine.trainer import FitResult
from train.evaluation.calibration import cross_entropy
from train.fitting import grid, selection
from train.fitting.grid import HeadGrid
from train.fitting.linear import DivergedError, calibrated, network, plan, summed, train_heads
from train.fitting.load import TileTable, load, resident, to_device
from train.fitting.selection import Score
from train.models.checkpoint import TrainedModel
from train.overlays import record as overlays_record
from train.plots.settings import axis_png, settings_png
from train.predictions.files import write_parquet
from train.predictions.table import plural, predictions
from train.reports import results
from train.reports.recorder import abstentions, encode_metrics, record_evidence
from train.runtime.processes import assemble_rows
from train.runtime.run import Run
from train.tracking.names import encode_name


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


def fit(session: Run, pack: HeadGrid, classes: list[str]) -> TrainedModel | None:
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
    probabilities[held], temperature = calibrated(
        session, probabilities[held], tiles.target[order, variant][held]
    )
    if session.is_first:
        table = held_out(tiles, variant, order, probabilities, classes, folds)
        session.folder.mkdir(parents=True, exist_ok=True)
        file = write_parquet(session.folder / "oof_predictions.parquet", table)
        session.tracker.file(file)
        record_evidence(session, "oof", table, classes, "oof_")
        abstentions(session, table, "oof_")
        overlays_record.record(session, table, "oof_maps")
        record(session, pack, scores, losses, found.fitted.evidence if found.fitted else {}, winner)
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
) -> TrainedModel:
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
    tiles: TileTable,
    variant: int,
    order: npt.NDArray[np.int64],
    probabilities: Tensor,
    classes: list[str],
    folds: Sequence[int],
) -> pa.Table:
    """Return ``slide_id, x, y, target, pred, prob_<class>, fold`` of every tile of the folds."""
    keys = tiles.keys.append_column("target", pa.array(tiles.target[:, variant]))
    table = predictions(keys, order, probabilities, classes)
    table = table.append_column("fold", pa.array(tiles.fold[:, variant]))
    return table.filter(pa.array(np.isin(tiles.fold[:, variant], folds)))


def record(
    session: Run,
    pack: HeadGrid,
    scores: Sequence[Score],
    losses: Losses,
    evidence: dict[str, Tensor],
    winner: int,
) -> None:
    """Print the settings side by side; record each as a run of its own below this one."""
    tracker, columns = session.tracker, table_columns(pack, scores, winner)
    print_table(shown(columns, list(pack.settings[0].swept)), session.console, "settings")
    tracker.table(columns, "settings.json")
    f1 = [(s.mean("f1_macro"), s.spread("f1_macro"), s.low, s.high) for s in scores]
    names, over = [s.name for s in pack.settings], plural(session.config.evidence.resample)
    pictures = [settings_png(session.folder / "settings.png", names, f1, winner, over)]
    swept = [setting.swept for setting in pack.settings]
    for axis in [key for key in swept[0] if len({own[key] for own in swept}) > 1]:
        picture = session.folder / f"{encode_name(axis)}.png"
        pictures.append(axis_png(picture, axis, swept, columns["tiles"], f1, over))
    for picture in pictures:
        tracker.file(picture)
    results.settings(session.page, names[winner], columns, pictures, leak_gap(pack, scores), over)
    if (gap := leak_gap(pack, scores)) is not None:
        tracker.metrics({"leak_gap/f1_macro": gap})
        session.console.print(f"leak gap: {gap:+.4f} macro F1 where folds share slides")
    for place, (setting, own) in enumerate(zip(pack.settings, scores, strict=True)):
        with tracker.child(setting.name):
            tracker.params({**setting.swept, "folds": pack.folds, "best": place == winner})
            tracker.metrics(summary(own))
            for fold, metrics in zip(pack.folds, own.folds, strict=True):
                tracker.metrics(encode_metrics(metrics, f"fold{fold}/validation"))
            for name, values in evidence.items():
                own_values = values.view(-1, len(pack.folds))[place].tolist()
                for fold, value in zip(pack.folds, own_values, strict=True):
                    tracker.metrics({f"fold{fold}/{name}": value})
            for epoch, of, trained, held in losses.rows:
                if of == place and math.isfinite(held):
                    tracker.metrics({"train/loss": trained, "validation/loss": held}, step=epoch)
    tracker.params({"best_setting": names[winner]})
    tracker.metrics({f"best/{name}": value for name, value in summary(scores[winner]).items()})


def leak_gap(pack: HeadGrid, scores: Sequence[Score]) -> float | None:
    """Return how much better heads look under folds that share slides, the mean over settings.

    None unless both strategies were swept.
    """
    found: dict[str, list[float]] = {}
    for setting, own in zip(pack.settings, scores, strict=True):
        strategy = setting.swept.get("kfold_strategy", "")
        found.setdefault(strategy, []).append(own.mean("f1_macro"))
    if {"stratified", "stratified_group"} - set(found):
        return None
    return float(np.mean(found["stratified"]) - np.mean(found["stratified_group"]))


def shown(columns: dict[str, list[Any]], swept: list[str]) -> pa.Table:
    """Return what fits a terminal of the table of settings."""
    spread = zip(columns["f1_macro"], columns["sd"], columns["best"], strict=True)
    ends = zip(columns["low"], columns["high"], strict=True)
    return pa.table(
        {
            **{key: columns[key] for key in [*(swept or ["setting"]), "tiles"]},
            "macro F1": [f"{mean:.4f} ± {sd:.4f} {best and '*'}" for mean, sd, best in spread],
            "95 % interval": [f"{low:.3f} .. {high:.3f}" for low, high in ends],
        }
    )


def table_columns(pack: HeadGrid, scores: Sequence[Score], winner: int) -> dict[str, list[Any]]:
    """Return the table of settings by column; tiles and slides are those that a head trains on."""
    number = len(pack.settings)
    counts = pack.counts.reshape(number, len(pack.folds), 2).mean(axis=1).round().astype(int)
    swept = list(pack.settings[0].swept) or ["setting"]
    return {
        **{
            key: [setting.swept.get(key, "as configured") for setting in pack.settings]
            for key in swept
        },
        "tiles": counts[:, 0].tolist(),
        "slides": counts[:, 1].tolist(),
        "f1_macro": [score.mean("f1_macro") for score in scores],
        "sd": [score.spread("f1_macro") for score in scores],
        "low": [score.low for score in scores],
        "high": [score.high for score in scores],
        "accuracy": [score.mean("accuracy") for score in scores],
        "loss": [score.mean("loss") for score in scores],
        "best": ["best" if place == winner else "" for place in range(number)],
    }


def summary(own: Score) -> dict[str, float]:
    """Return what is recorded of a setting: means, deviations and the interval."""
    named = ("f1_macro", "accuracy", "balanced_accuracy", "loss")
    values = {f"validation/{name}": own.mean(name) for name in named}
    values |= {f"validation/{name}_sd": own.spread(name) for name in named}
    if math.isfinite(own.low):
        values |= {"validation/f1_macro_low": own.low, "validation/f1_macro_high": own.high}
    return values
