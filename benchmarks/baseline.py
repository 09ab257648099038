"""How soon a head is good: macro F1 on its validation fold by processor seconds of training.

    OMP_NUM_THREADS=1 python -m benchmarks.baseline            # 100,000 x 2560, one head
    python -m benchmarks.baseline --data digits --folds 5

AdamW at some learning rates with early stopping as configured by default (500 epochs at most,
patience 1, min_delta 1e-4), and L-BFGS, after every epoch or iteration. Training alone is timed,
with the losses that stop it; weights are kept, and judged afterwards. A good head is within 0.002
of the best macro F1 that any way reaches at its end. Embeddings as of `benchmarks.solver`, but with
classes that overlap.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits

from benchmarks.solver import FOLDS, make_heads, make_shard, same
from train.engine.evaluate import evaluate
from train.engine.minibatch import MiniBatchTrainer
from train.engine.problem import Problem, TrainPlan
from train.engine.shard import Shard
from train.engine.solvers.lbfgs import LbfgsTrainer
from train.engine.weights import LinearHeads
from train.evaluation.metrics import METRICS
from train.evaluation.unit_sums import UnitSums

GOOD = 0.002
Marks = list[tuple[float, LinearHeads]]


def digits() -> Shard:
    """Return the digits, folds by writer."""
    images, digit = load_digits(return_X_y=True)
    number = torch.arange(len(images))
    writer = number // 130
    x = torch.from_numpy(images.astype(np.float32) / 16)
    return Shard(x, torch.from_numpy(digit)[None], writer[None] % FOLDS, writer,
                 torch.ones(len(x)), clusters=14, rows=len(x))  # fmt: skip


def adamw(problem: Problem) -> Marks:
    """Train by AdamW; return seconds and weights after each epoch, the best at the end."""
    trainer = MiniBatchTrainer(problem, TrainPlan("adamw", 1024, 500, 1, 1e-4, 0))
    marks, start = [], time.process_time()
    for _ in trainer:
        best = trainer.result().weights
        assert best
        marks.append((time.process_time() - start, best.clone()))
    return marks


def lbfgs(problem: Problem) -> Marks:
    """Train by L-BFGS; return seconds and weights after each iteration."""
    marks, start = [], time.process_time()
    trainer = LbfgsTrainer(problem, TrainPlan("lbfgs", 0, 500, 0, 0.0, 0))
    for _ in trainer:
        marks.append((time.process_time() - start, trainer.current()))
    weights = trainer.result().weights
    assert weights
    return [*marks, (time.process_time() - start, weights)]


def f1(problem: Problem, weights: LinearHeads) -> float:
    """Return the mean macro F1 of the heads, each on its validation fold."""
    _, confusion = evaluate(problem, weights)
    return float(METRICS["f1_macro"].compute(UnitSums.of_confusion(confusion.numpy())).mean())


def main() -> None:
    """Train by each way, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=["synthetic", "digits"], default="synthetic")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=2560)
    parser.add_argument("--folds", type=int, default=1)
    options = parser.parse_args()
    synthetic = options.data == "synthetic"
    shard = make_shard(options.rows, options.dim, apart=0.15) if synthetic else digits()
    classes = int(shard.target.max()) + 1

    def problem(rate: float, decay: float) -> Problem:
        heads = make_heads(torch.tensor([decay])).select(torch.arange(options.folds))
        heads.learning_rate.fill_(rate)
        return Problem.prepare((shard, shard), heads, classes, same)

    ways: dict[str, tuple[Callable[[Problem], Marks], Problem]] = {
        f"AdamW, learning rate {rate:g}": (adamw, problem(rate, 1e-3))
        for rate in (1e-4, 1e-3, 1e-2)
    } | {f"L-BFGS, penalty {decay:g}": (lbfgs, problem(1.0, decay)) for decay in (1e-2, 1e-3)}
    reached = {}
    for name, (train, of_heads) in ways.items():
        marks = train(of_heads)
        reached[name] = [(seconds, f1(of_heads, weights)) for seconds, weights in marks]
    best = max(points[-1][1] for points in reached.values())
    table = Table("", "epochs or iterations", "CPU s", "macro F1", f"good head ({best - GOOD:.4f})")
    for name, points in reached.items():
        good = next((n for n, (_, value) in enumerate(points) if value >= best - GOOD), None)
        when = "never" if good is None else f"{points[good][0]:.1f} s, {good + 1}"
        seconds, value = points[-1]
        table.add_row(name, str(len(points)), f"{seconds:.1f}", f"{value:.4f}", when)
    Console().print(table)


if __name__ == "__main__":
    main()
