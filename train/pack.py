"""A fit of many heads at once: train them, compare their settings, keep the best."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn

from featurestore.errors import FeatureStoreError
from featurestore.tables import print_table
from train import checkpoint, sweep
from train.affine import Affine, Standard, standard
from train.checkpoint import Blueprint
from train.config import SOLVERS, Config
from train.data import predictions, write_parquet
from train.engine import Fitted, Plan, Told, evaluate, out_of_fold, train
from train.figures import settings_png
from train.heads import Unit, backbone, classifier, linear
from train.losses import Aims
from train.pool import BLOCK, NOWHERE, Heads, Pool, Sum, balanced
from train.progress import Bar
from train.report import spelled
from train.session import Session, assembled, total
from train.solver import solve
from train.sweep import Pack, Score, Tiles


class DivergedError(FeatureStoreError):
    """The loss is not a finite number."""


def fit(session: Session, pack: Pack, classes: list[str]) -> tuple[nn.Module, Blueprint]:
    """Train a head for every setting and fold; return the network of the best.

    With ``final``, that is one more head of the best setting, trained on all folds for as many
    epochs as its folds took at the median; else the head of the best setting whose validation loss
    is the lowest.
    """
    config, accelerator = session.config, session.accelerator
    tiles, chosen, folds = pack.tiles, pack.settings, pack.folds
    rank, world = accelerator.process_index, accelerator.num_processes
    pool, order = sweep.pool(tiles, config.seed, rank, world, config.threads)
    if config.normalize == "l2":
        for block in pool.x.split(BLOCK):
            block.copy_(Unit()(block))
    if config.precision == "bf16":
        pool = replace(pool, x=pool.x.bfloat16())
    pool = on(pool, accelerator.device)
    heads = pack.heads.on(accelerator.device)
    losses = Losses(len(chosen), len(folds))
    fitted, aims = train_heads(session, pool, heads, classes, plan(config), losses)
    loss, cube = evaluate(pool, fitted.affine, heads, aims, summed(session))
    by_setting = cube.view(len(chosen), len(folds), *cube.shape[1:]).cpu().numpy()
    if not fitted.loss.isfinite().any():
        raise DivergedError(
            "Training diverged in every setting and fold",
            found=f"validation losses {sorted(set(loss.tolist()))[:3]}",
            fix="lower learning_rate, or set normalize=zscore",
        )
    scores = [
        sweep.score(row, own, classes, config.seed)
        for row, own in zip(loss.view(len(chosen), -1).tolist(), by_setting, strict=True)
    ]
    winner = sweep.best(scores)
    own = torch.arange(winner * len(folds), (winner + 1) * len(folds), device=accelerator.device)
    probabilities = assembled(
        accelerator, pool, out_of_fold(pool, fitted.affine.of(own), heads.of(own))
    )
    if session.is_first:
        variant = chosen[winner].variant
        table = held_out(tiles, variant, order, probabilities, classes, folds)
        session.folder.mkdir(parents=True, exist_ok=True)
        file = write_parquet(session.folder / "oof_predictions.parquet", table)
        session.tracker.file(file)
        record(session, pack, scores, losses, fitted.evidence, winner)
    place = winner * len(folds) + int(np.argmin(fitted.loss[own.cpu()].numpy()))
    affine, weights = fitted.affine.of(torch.tensor([place])), aims.weights[place]
    if config.final:
        epochs = int(np.median(fitted.epoch[own.cpu()].numpy())) + 1
        if config.optimizer in SOLVERS:
            epochs = config.max_epochs  # an optimum is where it is, however many steps away
        whole_pack = sweep.pack(tiles, [chosen[winner]], [NOWHERE], config.seed)
        last = whole_pack.heads.on(accelerator.device)
        on_all = Plan(config.optimizer, config.batch_size, epochs, epochs, 0.0, config.seed)
        whole, all_aims = train_heads(session, pool, last, classes, on_all)
        affine, weights = whole.affine, all_aims.weights[0]
    return network(session, affine, weights, classes)


def on(pool: Pool, device: torch.device) -> Pool:
    """Bring the own tiles to a device, the embeddings only where they fit."""
    if device.type == "cpu":
        return pool
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
    x = pool.x.to(device) if pool.x.nbytes < 0.8 * free else pool.x.pin_memory()
    small = {name: getattr(pool, name).to(device) for name in ("target", "fold", "slide", "draw")}
    return replace(pool, x=x, **small)


def plan(config: Config) -> Plan:
    """Return how a configuration trains."""
    return Plan(
        config.optimizer, config.batch_size, config.max_epochs, config.patience, config.min_delta,
        config.seed,
    )  # fmt: skip


def summed(session: Session) -> Any:
    """Return the function that adds up over the processes."""
    return lambda value: total(session.accelerator, value)


class Losses:
    """The losses of every epoch, by setting."""

    def __init__(self, settings: int, folds: int) -> None:
        self.settings, self.folds = settings, folds
        self.rows: list[tuple[int, int, float, float]] = []  # epoch, setting, training, validation

    def add(self, epoch: int, left: Tensor, trained: Tensor, held: Tensor) -> None:
        """Keep the means over the folds that are left of each setting."""
        setting = left // self.folds
        for own in setting.unique().tolist():
            of = setting == own
            self.rows.append((epoch, own, float(trained[of].mean()), float(held[of].mean())))


def train_heads(
    session: Session,
    pool: Pool,
    heads: Heads,
    classes: list[str],
    how: Plan,
    losses: Losses | None = None,
) -> tuple[Fitted, Aims]:
    """Train heads on their own tiles, under a bar; return them and their losses' aims."""
    total_ = summed(session)
    weights = balanced(pool, heads, len(classes), total_)
    aims = Aims(weights, heads.smoothing)
    body = standard(pool, heads, total_) if session.config.normalize == "zscore" else None
    with Bar(session.console, how.epochs, pool.rows) as bar:
        started = time.perf_counter()

        def told(epoch: int, left: Tensor, trained: Tensor, held: Tensor) -> None:
            nonlocal started
            bar.epoch(time.perf_counter() - started, float(trained.mean()), float(held.mean()))
            started = time.perf_counter()
            if losses:
                losses.add(epoch, left, trained, held)

        first = start(len(heads), pool.x.shape[1], len(classes), session.config.seed)
        first = Affine(first.weight.to(weights.device), first.bias.to(weights.device))
        if how.optimizer in SOLVERS:
            return optimal(pool, heads, aims, first, how, total_, body, told), aims
        return train(pool, heads, aims, first, how, total_, body, told), aims


def optimal(
    pool: Pool,
    heads: Heads,
    aims: Aims,
    first: Affine,
    how: Plan,
    total_: Sum,
    body: Standard | None,
    told: Told,
) -> Fitted:
    """Solve for heads at their optimum; their iterations stand for epochs."""

    def heard(iteration: int, left: Tensor, value: Tensor) -> None:
        told(iteration, left, value, value)

    found = solve(pool, heads, aims, first, total_, body, most=how.epochs, told=heard)
    loss, _ = evaluate(pool, found.affine, heads, aims, total_, counted=False)
    proof = {"objective": found.objective, "gradient": found.slope}
    return Fitted(found.affine, found.iterations, loss.cpu(), proof)


def start(number: int, dim: int, classes: int, seed: int) -> Affine:
    """Return initial weights, the same for all heads: what differs is what they are told."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = nn.Linear(dim, classes)
    weight, bias = layer.weight.detach(), layer.bias.detach()
    return Affine(weight.repeat(number, 1, 1), bias.repeat(number, 1))


def held_out(
    tiles: Tiles,
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
    session: Session,
    pack: Pack,
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
    names = [setting.name for setting in pack.settings]
    tracker.file(settings_png(session.folder / "settings.png", names, f1, winner))
    for place, (setting, own) in enumerate(zip(pack.settings, scores, strict=True)):
        with tracker.child(setting.name):
            tracker.params({**setting.swept, "folds": pack.folds, "best": place == winner})
            tracker.metrics(summary(own))
            for fold, metrics in zip(pack.folds, own.folds, strict=True):
                tracker.metrics(spelled(metrics, f"fold{fold}/validation"))
            for name, values in evidence.items():
                own_values = values.view(-1, len(pack.folds))[place].tolist()
                for fold, value in zip(pack.folds, own_values, strict=True):
                    tracker.metrics({f"fold{fold}/{name}": value})
            for epoch, of, trained, held in losses.rows:
                if of == place and math.isfinite(held):
                    tracker.metrics({"train/loss": trained, "validation/loss": held}, step=epoch)
    tracker.params({"best_setting": names[winner]})
    tracker.metrics({f"best/{name}": value for name, value in summary(scores[winner]).items()})


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


def table_columns(pack: Pack, scores: Sequence[Score], winner: int) -> dict[str, list[Any]]:
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


def network(
    session: Session, affine: Affine, weights: Tensor, classes: list[str]
) -> tuple[nn.Module, Blueprint]:
    """Return one head as the network that is registered; its standardisation is in its weights."""
    _, number, dim = affine.weight.shape
    config = session.config
    body = "l2" if config.normalize == "l2" else "none"
    blueprint = Blueprint("linear", config.hidden, body, dim, classes, weights.tolist())
    head = linear(dim, number, 0)
    assert isinstance(head, nn.Linear)
    head.weight.data, head.bias.data = affine.weight[0].cpu(), affine.bias[0].cpu()
    whole = classifier(backbone(body, dim), head).eval().requires_grad_(False)
    if session.is_first:
        checkpoint.save(session.folder / checkpoint.FILE, whole, blueprint)
    return whole, blueprint
