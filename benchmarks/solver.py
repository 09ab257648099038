"""L-BFGS to the optimum, all folds and penalties at once, against scikit-learn one after another.

    python -m benchmarks.solver --rows 20000 --dim 2560

Embeddings whose spectrum falls as those of foundation models do, 7 classes, 5 folds and 10
penalties. Of scikit-learn's 50 fits a few penalties of one fold are run, and their time is scaled;
it is given doubles and a tolerance of 1e-5: on floats its line search ends 1e-4 above the optimum.
The last column says how far its objective is from this solver's. Then the same heads by closed
forms, against one fit of its RidgeClassifier, scaled.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from train.engine.heads import HeadSpecs, train_mask
from train.engine.problem import Problem, TrainPlan
from train.engine.shard import Shard
from train.engine.solvers.closed_form import ClosedFormTrainer
from train.engine.solvers.lbfgs import LbfgsTrainer
from train.engine.trainer import FitResult, Trainer
from train.engine.weights import LinearHeads

CLASSES, FOLDS = 7, 5


def same(value: torch.Tensor) -> torch.Tensor:
    return value


def make_shard(rows: int, dim: int, apart: float = 0.4) -> Shard:
    """Return embeddings with a falling spectrum around class centres, turned and shifted."""
    rng = torch.Generator().manual_seed(0)
    spectrum = 10 * torch.arange(1, dim + 1).float() ** -0.7
    rotation, _ = torch.linalg.qr(torch.randn((dim, dim), generator=rng))
    y = torch.randint(CLASSES, (rows,), generator=rng)
    centres = apart * torch.randn((CLASSES, dim), generator=rng)
    x = ((torch.randn((rows, dim), generator=rng) + centres[y]) * spectrum) @ rotation + 3
    number = torch.arange(rows)
    return Shard(
        x=x,
        target=y[None],
        fold=number[None] % FOLDS,
        cluster=number // 200,
        slide_rank=torch.ones(rows),
        clusters=rows // 200 + 1,
        rows=rows,
    )


def make_heads(decay: torch.Tensor) -> HeadSpecs:
    """Return the heads of all folds and penalties."""
    number = FOLDS * len(decay)
    zeros = torch.zeros(number)
    return HeadSpecs(
        variant=zeros.long(),
        fold=torch.arange(FOLDS).repeat(len(decay)),
        max_slide_rank=torch.ones(number),
        learning_rate=zeros,
        weight_decay=decay.repeat_interleave(FOLDS),
        label_smoothing=zeros,
    )


def timed(make_trainer: Callable[[], Trainer]) -> tuple[FitResult, float]:
    """Train; return the result and the seconds it took."""
    start = time.perf_counter()
    trainer = make_trainer()
    for _ in trainer:
        pass
    seconds = time.perf_counter() - start
    return trainer.result(), seconds


def rival(problem: Problem, head: int, best: float) -> tuple[float, float]:
    """Return the seconds of scikit-learn's fit of a head, and how far its objective is off."""
    shard, heads = problem.train, problem.heads
    rows = train_mask(shard, heads.select(torch.tensor([head])))[0].numpy()
    x, y = shard.x.numpy()[rows].astype(float), shard.target[0].numpy()[rows]
    weight, decay = problem.losses.class_weights[head].numpy()[y], float(heads.weight_decay[head])
    model = LogisticRegression(C=1 / (decay * weight.sum()), tol=1e-5, max_iter=20_000)
    start = time.perf_counter()
    model.fit(x, y, sample_weight=weight)
    seconds = time.perf_counter() - start
    logs = torch.from_numpy(x @ model.coef_.T + model.intercept_).log_softmax(dim=1)
    loss = -(weight * logs.numpy()[np.arange(len(y)), y]).sum() / weight.sum()
    off = (loss + decay / 2 * (model.coef_**2).sum()) / best - 1
    return seconds, off


def main() -> None:
    """Solve for all heads, run some of the rival's fits, print both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=2560)
    parser.add_argument("--penalties", type=int, default=10)
    parser.add_argument("--fits", type=int, default=3)
    options = parser.parse_args()
    shard = make_shard(options.rows, options.dim)
    decay = torch.logspace(-4, 0, options.penalties)
    heads = make_heads(decay)
    number = len(heads)
    problem = Problem.prepare((shard, shard), heads, CLASSES, same)
    zeros = LinearHeads(torch.zeros(number, CLASSES, options.dim), torch.zeros(number, CLASSES))
    plan = TrainPlan("lbfgs", 0, max_epochs=500, patience=0, min_delta=0.0, seed=0)
    result, seconds = timed(partial(LbfgsTrainer, problem, plan, zeros))
    table = Table("penalty", "iterations", "scikit-learn's seconds", "its objective, relative")
    fits = []
    for place in np.linspace(0, options.penalties - 1, options.fits).round().astype(int).tolist():
        head = place * FOLDS
        taken, off = rival(problem, head, float(result.diagnostics["objective"][head]))
        fits.append(taken)
        table.add_row(
            f"{decay[place]:.1e}", f"{result.best_epoch[head]}", f"{taken:.1f}", f"{off:+.1e}"
        )
    Console().print(table)
    scaled = float(np.mean(fits)) * number
    iterations = int(result.best_epoch.max())
    print(f"{number} heads at once: {seconds:.1f} s, at most {iterations} iterations")
    print(f"{number} fits of scikit-learn (scaled from {options.fits}): {scaled:.0f} s")
    print(f"{scaled / seconds:.1f} times as fast")
    closed_forms(problem)


def closed_forms(problem: Problem) -> None:
    """Time all heads of probe=ridge and probe=lda, and scikit-learn's ridge of one head."""
    shard, heads = problem.train, problem.heads
    seconds = {}
    for form in ("ridge", "lda"):
        _, seconds[form] = timed(partial(ClosedFormTrainer, problem, form))
        print(f"probe={form}, {len(heads)} heads: {seconds[form]:.1f} s")
    rows = train_mask(shard, heads.select(torch.tensor([0])))[0].numpy()
    x, y = shard.x.numpy()[rows].astype(float), shard.target[0].numpy()[rows]
    model = RidgeClassifier(alpha=float(heads.weight_decay[0]) * len(x), class_weight="balanced")
    start = time.perf_counter()
    model.fit(x, y)
    scaled = (time.perf_counter() - start) * len(heads)
    ratio = scaled / seconds["ridge"]
    print(f"{len(heads)} fits of RidgeClassifier (one, scaled): {scaled:.0f} s, {ratio:.1f}")


if __name__ == "__main__":
    main()
