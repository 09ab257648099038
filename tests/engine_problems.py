"""Tiles, heads and trainers that tests of the engine share."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from train.engine.heads import HeadSpecs
from train.engine.minibatch import MiniBatchTrainer
from train.engine.problem import Problem, TrainPlan
from train.engine.shard import DROPPED, Reduce, Shard
from train.engine.solvers.lbfgs import LbfgsTrainer
from train.engine.trainer import FitResult, Trainer
from train.engine.weights import LinearHeads

SLIDES, CLASSES, DIM = 12, 10, 64


def same(value: Tensor) -> Tensor:
    """Stand for the all-reduce of one process."""
    return value


@pytest.fixture(scope="module")
def shard() -> Shard:
    """The first 600 digits, 50 a slide, folds dealt by slide; a few dropped; a second variant."""
    images, digit = load_digits(return_X_y=True)
    number = torch.arange(600)
    slide = number // 50
    ranks = torch.randperm(SLIDES, generator=torch.Generator().manual_seed(0)) + 1
    target = torch.from_numpy(digit[:600]).long()
    dropped = number % 17 == 0
    second_fold = torch.where(number % 3 == 0, DROPPED, number % 4)
    return Shard(
        x=torch.from_numpy(images[:600].astype(np.float32) / 16),
        target=torch.stack([target.masked_fill(dropped, DROPPED),
                            target.masked_fill(second_fold == DROPPED, DROPPED)]),
        fold=torch.stack([(slide % 4).masked_fill(dropped, DROPPED), second_fold]),
        cluster=slide, slide_rank=ranks[slide] / SLIDES, clusters=SLIDES, rows=600,
    )  # fmt: skip


def numbered(rows: int) -> Shard:
    """Return tiles whose embedding is their own number."""
    number = torch.arange(rows)
    return Shard(
        x=number[:, None].float(), target=number[None] % 3, fold=number[None] % 2,
        cluster=number // 10, slide_rank=(number // 10 + 1) / (rows // 10 + 1),
        clusters=rows // 10 + 1, rows=rows,
    )  # fmt: skip


def make_heads(**columns: list) -> HeadSpecs:
    """Return heads; a column of one value is that of all."""
    columns = {
        "variant": [0], "fold": [0], "max_slide_rank": [1.0], "learning_rate": [0.01],
        "weight_decay": [1e-3], "label_smoothing": [0.0],
    } | columns  # fmt: skip
    number = max(map(len, columns.values()))
    kinds = {"variant": torch.int64, "fold": torch.int64}
    return HeadSpecs(**{
        name: torch.tensor(values * (number // len(values)), dtype=kinds.get(name, torch.float32))
        for name, values in columns.items()
    })  # fmt: skip


MANY = make_heads(
    variant=[0, 0, 0, 1, 1, 0],
    fold=[0, 1, 2, 3, 0, DROPPED],
    max_slide_rank=[1.0, 0.5, 1.0, 1.0, 0.7, 1.0],
    learning_rate=[0.01, 0.02, 0.005, 0.01, 0.01, 0.01],
    weight_decay=[1e-3, 0.0, 0.1, 1e-2, 1e-3, 0.0],
    label_smoothing=[0.0, 0.1, 0.2, 0.0, 0.3, 0.0],
)


def one_head(index: int) -> Tensor:
    """Return the index that selects one head."""
    return torch.tensor([index])


def make_weights(number: int) -> LinearHeads:
    """Return weights for the digits, the same for all heads."""
    rng = torch.Generator().manual_seed(1)
    weight = torch.randn((1, CLASSES, DIM), generator=rng) / 8
    return LinearHeads(weight.repeat(number, 1, 1), torch.zeros(number, CLASSES))


def make_problem(
    shard: Shard,
    heads: HeadSpecs,
    reduce: Reduce = same,
    zscore: bool = False,
    classes: int = CLASSES,
) -> Problem:
    """Return the problem of heads whose validation folds are in the shard."""
    return Problem.prepare((shard, shard), heads, classes, reduce, zscore)


def smoothed_loss(
    class_weights: Tensor, label_smoothing: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the mean of torch's cross entropy with smoothed targets, tiles weighted by class."""

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        learned = (class_weights > 0).float()
        hard = torch.nn.functional.one_hot(target, len(learned))
        smooth = (1 - label_smoothing) * hard + label_smoothing * learned / learned.sum()
        by_tile = torch.nn.functional.cross_entropy(logits, smooth, reduction="none")
        weight = class_weights[target]
        return (weight * by_tile).sum() / weight.sum()

    return loss


def of_rank(problem: Problem, shard: Shard, reduce: Reduce) -> Problem:
    """Return a problem as a process sees it that has one share of the tiles."""
    return replace(problem, train=shard, validation=shard, reduce=reduce)


def make_plan(max_epochs: int = 4, patience: int = 99, **changes: object) -> TrainPlan:
    """Return a plan: AdamW by batches of 64, unless it is changed."""
    plan = TrainPlan("adamw", 64, max_epochs, patience, min_delta=0.0, seed=0)
    return replace(plan, **changes)


def run(trainer: Trainer) -> FitResult:
    """Train to the end."""
    for _ in trainer:
        pass
    return trainer.result()


def train(problem: Problem, plan: TrainPlan, initial: LinearHeads | None = None) -> FitResult:
    """Train heads of the digits by mini-batches."""
    return run(MiniBatchTrainer(problem, plan, initial or make_weights(len(problem.heads))))


def solve(problem: Problem, max_epochs: int = 500) -> FitResult:
    """Find the optimum of each head, from weights of zero."""
    shape = (len(problem.heads), problem.classes, problem.train.dim)
    device = problem.train.device
    zeros = LinearHeads(torch.zeros(shape, device=device), torch.zeros(shape[:2], device=device))
    return run(LbfgsTrainer(problem, make_plan(max_epochs), zeros))


def assert_identical(result: FitResult, expected: FitResult) -> None:
    """Assert that two results are the same bit for bit."""
    assert result.weights
    assert expected.weights
    assert torch.equal(result.weights.weight, expected.weights.weight)
    assert torch.equal(result.weights.bias, expected.weights.bias)
    assert torch.equal(result.best_epoch, expected.best_epoch)
    assert torch.equal(result.best_loss, expected.best_loss)
