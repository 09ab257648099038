"""Linear heads through the engine: under a bar, kept for a resume, and as a network."""

import time
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from featurestore.errors import FeatureStoreError
from train.config.schema import CLOSED, SOLVERS, Config, ConfigError
from train.engine.evaluate import evaluate
from train.engine.heads import HeadSpecs, balanced_class_weights
from train.engine.losses import HeadLosses
from train.engine.shard import Reduce, Shard
from train.engine.solvers.closed_form import solve_closed_form
from train.engine.solvers.gram_matrix import gram_matrices, strata
from train.engine.solvers.lbfgs import solve
from train.engine.standardizer import Standardizer, fit_standardizer
from train.engine.trainer import FitResult, Told, TrainPlan, train
from train.engine.weights import LinearHeads
from train.evaluation import calibration, metrics
from train.fitting.load import memory_budget
from train.models import checkpoint
from train.models.checkpoint import ModelSpec, TrainedModel
from train.models.heads import backbone, classifier, linear
from train.runtime.fit_state import FileCheckpointer
from train.runtime.processes import all_reduce
from train.runtime.progress import EpochBar
from train.runtime.run import Run


class DivergedError(FeatureStoreError):
    """The loss is not a finite number."""


def plan(config: Config) -> TrainPlan:
    """Return how a configuration trains."""
    return TrainPlan(
        config.optimizer, config.batch_size, config.max_epochs, config.patience, config.min_delta,
        config.seed,
    )  # fmt: skip


def summed(session: Run) -> Any:
    """Return the function that adds up over the processes."""
    return lambda value: all_reduce(session.accelerator, value)


def train_heads(
    session: Run,
    pool: Shard,
    heads: HeadSpecs,
    classes: list[str],
    how: TrainPlan,
    name: str,
    told: Told = lambda *_: None,
    log: list[Any] | None = None,
    held: Shard | None = None,
    counted: bool = False,
) -> tuple[FitResult, HeadLosses]:
    """Train heads on their own tiles, under a bar; return them and their losses' aims.

    Parameters
    ----------
    how
        Optimizer, batches and patience.
    name
        Of the state that is kept for a resume.
    told, held, counted
        As in `train.engine.trainer.train`.
    log
        What ``told`` writes; kept with the state.
    """
    config, total_ = session.config, summed(session)
    aims = HeadLosses(balanced_class_weights(pool, heads, len(classes), total_), heads.smoothing)
    body = fit_standardizer(pool, heads, total_) if config.normalize == "zscore" else None

    def best(state: dict[str, Any]) -> None:
        network(session, LinearHeads(*state["best"]), aims.weights[0], classes)

    alone = best if held else None  # of a pack, the best is yet to be chosen
    memory = FileCheckpointer(session, name, [] if log is None else log, alone)
    first = start(len(heads), pool.x.shape[1], len(classes), config.seed).on(aims.weights.device)
    with EpochBar(session.console, how.epochs, pool.rows) as bar:
        started = time.perf_counter()

        def heard(
            epoch: int, left: Tensor, trained: Tensor, validated: Tensor, cube: Tensor
        ) -> None:
            nonlocal started
            bar.epoch(
                epoch, time.perf_counter() - started, float(trained.mean()), float(validated.mean())
            )
            started = time.perf_counter()
            told(epoch, left, trained, validated, cube)

        if config.probe in CLOSED:
            memory.keep(dict)
            return at_once(session, pool, heads, aims, total_, body), aims
        if how.optimizer in SOLVERS:
            memory.keep(dict)  # a resumed solver starts anew: what it finds does not depend on it
            return optimal(pool, heads, aims, first, how, total_, body, heard), aims
        return train(
            pool, heads, aims, first, how, total_, body, heard, held, counted, memory
        ), aims


def at_once(
    session: Run,
    pool: Shard,
    heads: HeadSpecs,
    aims: HeadLosses,
    total_: Reduce,
    body: Standardizer | None,
) -> FitResult:
    """Return heads by a closed form, from one pass over the embeddings."""
    config, dim = session.config, pool.x.shape[1]
    classes, second = aims.weights.shape[1], config.probe != "prototype"
    cells = len(strata(heads, classes)[0])
    need, there = second * cells * 8 * dim**2, memory_budget(config)
    if need > there:
        raise ConfigError(
            f"The moments of probe={config.probe} do not fit into memory",
            found=f"{cells} Gram matrices of {dim} x {dim}: {need / 1e9:.1f} GB, {there / 1e9:.1f} "
            "GB to spend",
            fix="sweep fewer thresholds, strategies or shares of slides at once, or fewer folds",
        )
    found = gram_matrices(pool, heads, classes, total_, second)
    affine = solve_closed_form(config.probe, found, heads, aims, body).on(aims.weights.device)
    loss, _ = evaluate(pool, affine, heads, aims, total_, counted=False)
    return FitResult(affine, torch.zeros(len(heads), dtype=torch.int64), loss.cpu())


def optimal(
    pool: Shard,
    heads: HeadSpecs,
    aims: HeadLosses,
    first: LinearHeads,
    how: TrainPlan,
    total_: Reduce,
    body: Standardizer | None,
    told: Told,
) -> FitResult:
    """Solve for heads at their optimum; their iterations stand for epochs."""

    def heard(iteration: int, left: Tensor, value: Tensor) -> None:
        told(iteration, left, value, value, torch.empty(0))

    found = solve(pool, heads, aims, first, total_, body, most=how.epochs, told=heard)
    loss, _ = evaluate(pool, found.affine, heads, aims, total_, counted=False)
    proof = {"objective": found.objective, "gradient": found.slope}
    return FitResult(found.affine, found.iterations, loss.cpu(), proof)


def start(number: int, dim: int, classes: int, seed: int) -> LinearHeads:
    """Return initial weights, the same for all heads: what differs is what they are told."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = nn.Linear(dim, classes)
    weight, bias = layer.weight.detach(), layer.bias.detach()
    return LinearHeads(weight.repeat(number, 1, 1), bias.repeat(number, 1))


def calibrated(
    session: Run, probabilities: Tensor, target: npt.NDArray[np.int64]
) -> tuple[Tensor, float]:
    """Return probabilities and their temperature: 1 unless one is asked for.

    Parameters
    ----------
    probabilities
        Of tiles that the head was not trained on, shape (tiles, K).
    target
        Their classes.
    """
    if not session.config.calibrate:
        return probabilities, 1.0
    before = probabilities.numpy()
    found = calibration.temperature(before, target)
    after = calibration.scaled(before, found)
    errors = [metrics.calibration_error(shares, target) for shares in (before, after)]
    values = {"temperature": found, "error_before": errors[0], "error_after": errors[1]}
    session.tracker.metrics({f"calibration/{name}": value for name, value in values.items()})
    session.console.print(
        f"temperature {found:.3f}: calibration error {errors[0]:.4f} -> {errors[1]:.4f}"
    )
    return torch.from_numpy(after), found


def network(
    session: Run,
    affine: LinearHeads,
    weights: Tensor,
    classes: list[str],
    temperature: float = 1.0,
) -> TrainedModel:
    """Return one head as the network that is registered.

    Its standardisation and its temperature are in its weights.
    """
    _, number, dim = affine.weight.shape
    config = session.config
    body = "l2" if config.normalize == "l2" else "none"
    blueprint = ModelSpec(
        "linear", config.hidden, body, dim, classes, weights.tolist(), temperature
    )
    head = linear(dim, number, 0)
    assert isinstance(head, nn.Linear)
    head.weight.data = affine.weight[0].cpu() / temperature
    head.bias.data = affine.bias[0].cpu() / temperature
    network = classifier(backbone(body, dim), head).eval().requires_grad_(False)
    trained = TrainedModel(network, blueprint)
    if session.is_first:
        checkpoint.save(session.folder / checkpoint.FILE, trained)
    return trained
