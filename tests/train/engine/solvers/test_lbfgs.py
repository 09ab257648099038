"""L-BFGS against scikit-learn's optimum, and heads side by side against heads alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_problems import (
    make_heads,
    make_plan,
    make_problem,
    of_rank,
    one_head,
    run,
    same,
    solve,
)
from ranks import ranks
from sklearn.linear_model import LogisticRegression
from sklearn_shards import DATASETS, load_shard

from train.engine.heads import train_mask
from train.engine.shard import Reduce, Shard
from train.engine.solvers.lbfgs import LbfgsTrainer
from train.engine.standardizer import fit_standardizer
from train.engine.trainer import FitResult


def objective(data: tuple[np.ndarray, np.ndarray, np.ndarray], weight: np.ndarray,
              bias: np.ndarray, decay: float) -> float:  # fmt: skip
    """Return the objective in double, by NumPy, of embeddings, classes and sample weights."""
    x, y, sample_weight = data
    logits = x.astype(float) @ weight.astype(float).T + bias
    logs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    loss = -(sample_weight * logs[np.arange(len(y)), y]).sum() / sample_weight.sum()
    return float(loss + decay / 2 * (weight.astype(float) ** 2).sum())


def scikit_learns(
    data: tuple[np.ndarray, np.ndarray, np.ndarray], decay: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return weights and biases at its optimum, a row for each class."""
    x, y, sample_weight = data
    binary = y.max() == 1  # one row for two classes: the symmetric pair has half the penalty
    penalty = decay * sample_weight.sum() / (2 if binary else 1)
    model = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=20_000)
    model.fit(x.astype(float), y, sample_weight=sample_weight)
    if not binary:
        return model.coef_, model.intercept_
    weight = np.concatenate([-model.coef_, model.coef_]) / 2
    return weight, np.concatenate([-model.intercept_, model.intercept_]) / 2


@pytest.mark.parametrize("name", DATASETS)
def test_the_optimum_is_scikit_learns(name: str):
    """Objective within 1e-6, at most one differing prediction, over folds and penalties at once."""
    shard, classes = load_shard(name)
    heads = make_heads(fold=[0, 1, 2, 3], weight_decay=[1e-1, 1e-2, 1e-3, 1e-2])
    problem = make_problem(shard, heads, classes=classes)
    result = solve(problem)
    everything = shard.x.numpy()
    for head in range(4):
        rows = train_mask(shard, heads.select(one_head(head)))[0].numpy()
        x, y = everything[rows], shard.target[0].numpy()[rows]
        data = (x, y, problem.losses.class_weights[head].numpy()[y])
        decay = float(heads.weight_decay[head])
        expected_weight, expected_bias = scikit_learns(data, decay)
        weight, bias = result.weights.weight[head].numpy(), result.weights.bias[head].numpy()
        value = objective(data, weight, bias, decay)
        best = objective(data, expected_weight, expected_bias, decay)
        assert value == pytest.approx(best, rel=1e-6)
        assert float(result.diagnostics["objective"][head]) == pytest.approx(value, rel=1e-5)
        predicted = (everything @ weight.T + bias).argmax(axis=1)
        expected = (everything @ expected_weight.T + expected_bias).argmax(axis=1)
        assert (predicted != expected).sum() <= 1
        assert float(result.diagnostics["gradient"][head]) < 1e-4


@pytest.mark.slow
def test_a_head_beside_others_is_the_head_alone():
    shard, classes = load_shard("digits")
    heads = make_heads(fold=[0, 1, 2, 3, 0], weight_decay=[1e-2, 1e-3, 1e-1, 1e-2, 1e-3])
    problem = make_problem(shard, heads, classes=classes)
    together = solve(problem)
    for head in range(len(heads)):
        alone = solve(problem.select(one_head(head)))
        difference = together.weights.weight[head] - alone.weights.weight[0]
        assert difference.norm() / alone.weights.weight[0].norm() < 1e-3
        assert float(together.diagnostics["objective"][head]) == pytest.approx(
            float(alone.diagnostics["objective"][0]), rel=1e-6
        )


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_processes_find_the_same_optimum(world: int):
    shard, classes = load_shard("wine")
    heads = make_heads(fold=[0, 1, 2, 3], weight_decay=[1e-2, 1e-3, 1e-1, 1e-2])
    problem = make_problem(shard, heads, classes=classes)
    expected = solve(problem)

    def work(share: Shard, reduce: Reduce) -> FitResult:
        return solve(of_rank(problem, share, reduce))

    for result in ranks(shard, world, work):
        torch.testing.assert_close(
            result.diagnostics["objective"], expected.diagnostics["objective"], rtol=1e-6, atol=0
        )
        difference = (result.weights.weight - expected.weights.weight).norm()
        assert difference / expected.weights.weight.norm() < 1e-3


def test_ill_conditioned_embeddings_take_few_iterations():
    """Embeddings whose spectrum falls over two decades, as those of foundation models do."""
    rng, dim = torch.Generator().manual_seed(0), 64
    rotation, _ = torch.linalg.qr(torch.randn((dim, dim), generator=rng))
    y = torch.randint(5, (3000,), generator=rng)
    centres = torch.randn((5, dim), generator=rng)
    spectrum = 10 * torch.arange(1, dim + 1).float() ** -1.2
    x = ((torch.randn((3000, dim), generator=rng) + 0.7 * centres[y]) * spectrum) @ rotation + 3
    number = torch.arange(3000)
    shard = Shard(
        x, y[None], fold=number[None] % 4, cluster=number // 100, slide_rank=torch.ones(3000),
        clusters=30, rows=3000,
    )  # fmt: skip
    heads = make_heads(fold=[0, 1, 2], weight_decay=[1e-1, 1e-3, 1e-5])
    result = solve(make_problem(shard, heads, classes=5))
    assert int(result.best_epoch.max()) <= 60
    assert float(result.diagnostics["gradient"].max()) < 1e-4


def test_standardised_in_the_weights_as_well():
    """The same optimum whether embeddings are standardised before or within."""
    shard, classes = load_shard("wine")
    shard = replace(shard, x=shard.x * 3 + 5)
    heads = make_heads(fold=[0, 1], weight_decay=[1e-2])
    within = solve(make_problem(shard, heads, zscore=True, classes=classes))
    for index in range(2):
        head = heads.select(one_head(index))
        standardizer = fit_standardizer(shard, head, same)
        z = (shard.x - standardizer.mean[0]) / standardizer.scale[0]
        before = solve(make_problem(replace(shard, x=z), head, classes=classes))
        assert float(before.diagnostics["objective"][0]) == pytest.approx(
            float(within.diagnostics["objective"][index]), rel=1e-6
        )


@pytest.mark.slow
def test_a_solver_that_is_broken_off_finds_the_optimum_all_the_same():
    """Some heads are at theirs by then: they stay there while the others begin anew."""
    shard, classes = load_shard("wine")
    heads = make_heads(fold=[0, 1, 2], weight_decay=[1.0, 1e-2, 1e-3])
    problem = make_problem(shard, heads, classes=classes)
    expected = solve(problem).diagnostics["objective"]
    trainer = LbfgsTrainer(problem, make_plan(500))
    for epoch in trainer:
        if len(epoch.active) == 2:
            break
    result = run(trainer)
    torch.testing.assert_close(result.diagnostics["objective"], expected, rtol=1e-6, atol=0)
