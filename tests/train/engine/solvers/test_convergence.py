"""How far L-BFGS is from the optimum, by what it says and by Newton's method in double."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_problems import make_heads, make_problem, one_head, solve
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn_shards import load_shard

from train.engine.heads import HeadSpecs, train_mask
from train.engine.problem import Problem
from train.engine.shard import Shard
from train.engine.trainer import FitResult
from train.engine.weights import LinearHeads


def separable(classes: int, dim: int = 8) -> Shard:
    """Return 900 tiles of classes that a hyperplane tells apart."""
    rng = torch.Generator().manual_seed(0)
    centres = 2.0 * torch.randn((classes, dim), generator=rng)
    target = torch.randint(classes, (900,), generator=rng)
    x, number = centres[target] + torch.randn((900, dim), generator=rng), torch.arange(900)
    return Shard(
        x, target[None], number[None] % 4, number // 20, torch.ones(900), clusters=45, rows=900
    )


class Oracle:
    """The objective of one head in double, around the mean, as NumPy computes it."""

    def __init__(self, problem: Problem, heads: HeadSpecs, head: int) -> None:
        rows = train_mask(problem.train, heads.select(one_head(head)))[0].numpy()
        x = problem.train.x.numpy().astype(float)
        self.mean = x[rows].mean(axis=0)
        self.everything = np.c_[x - self.mean, np.ones(len(x))]
        self.x, self.y = self.everything[rows], problem.train.target[0].numpy()[rows]
        weights = problem.losses.class_weights[head].double().numpy()
        self.classes = np.flatnonzero(weights)  # an absent class is as good as not there
        self.weight = weights[self.y] / weights[self.y].sum()
        self.penalty = np.r_[np.full(x.shape[1], float(heads.weight_decay[head])), 0.0]

    def value(self, weights: np.ndarray) -> float:
        """Return the objective; of a sure tile what one minus its probability is, to the last."""
        logits = self.x @ weights[self.classes].T
        others = logits - logits[np.arange(len(self.y)), self.y][:, None]
        others[np.arange(len(self.y)), self.y] = -np.inf
        losses = np.log1p(np.exp(logsumexp(others, axis=1)))
        return float(self.weight @ losses + (self.penalty * weights[self.classes] ** 2).sum() / 2)

    def optimum(self, start: np.ndarray) -> np.ndarray:
        """Return the weights that Newton's method ends at."""
        weights = start.copy()
        number, dim = len(self.classes), self.x.shape[1]
        hard = np.eye(number)[self.y]
        for _ in range(100):
            logits = self.x @ weights[self.classes].T
            probability = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
            residual = np.where(hard > 0, 0, probability)
            residual -= hard * residual.sum(axis=1, keepdims=True)
            gradient = (residual * self.weight[:, None]).T @ self.x
            gradient += self.penalty * weights[self.classes]
            curvature = np.einsum("nk,kj->nkj", probability, np.eye(number))
            curvature -= probability[:, :, None] * probability[:, None]
            curvature *= self.weight[:, None, None]
            hessian = np.einsum("nkj,nd,ne->kdje", curvature, self.x, self.x, optimize=True)
            hessian = hessian.reshape(number * dim, -1) + np.diag(np.tile(self.penalty, number))
            step = np.linalg.lstsq(hessian, gradient.ravel(), rcond=1e-15)[0].reshape(number, dim)
            size, before = 1.0, self.value(weights)
            moved = weights.copy()
            moved[self.classes] -= step
            while self.value(moved) > before and size > 1e-9:
                size /= 2
                moved[self.classes] = weights[self.classes] - size * step
            weights = moved
            if (gradient * step).sum() < 1e-13 * before:
                break
        return weights

    def of(self, weights: LinearHeads, head: int) -> np.ndarray:
        """Return a head's weights with its biases, around the mean."""
        weight, bias = weights.weight[head].double().numpy(), weights.bias[head].double().numpy()
        return np.c_[weight, bias + weight @ self.mean]


def excess(result: FitResult, heads: HeadSpecs) -> tuple[list[float], list[int]]:
    """Return how far each objective is above the optimum, relative, and predictions that differ."""
    above, different = [], []
    for head in range(len(heads)):
        oracle = Oracle(result.problem, heads, head)
        ours = oracle.of(result.weights, head)
        best = oracle.optimum(np.zeros_like(ours))
        above.append(oracle.value(ours) / oracle.value(best) - 1)
        predicted = [(oracle.everything @ w[oracle.classes].T).argmax(1) for w in (ours, best)]
        different.append(int((predicted[0] != predicted[1]).sum()))
    return above, different


@pytest.mark.parametrize("classes", [2, 3])
def test_separable_classes_are_solved_at_tiny_penalties(classes: int):
    """What is left of a sure tile's residual in single precision is nothing."""
    heads = make_heads(fold=[0], weight_decay=[1e-4, 1e-6, 1e-8])
    result = solve(make_problem(separable(classes), heads, classes=classes))
    above, different = excess(result, heads)
    assert max(above) < 1e-6
    assert different == [0, 0, 0]
    assert result.diagnostics["converged"].all()
    assert int(result.best_epoch.max()) < 100


@pytest.mark.parametrize("name", ["separable", "wine", "absent"])
def test_the_gap_is_a_bound(name: str):
    """Wherever a solver is cut off, it is not further above its optimum than it says."""
    shard, classes = load_shard("wine") if name == "wine" else (separable(3), 3)
    classes += name == "absent"  # one more, without a tile
    heads = make_heads(fold=[0], weight_decay=[1.0, 1e-2, 1e-4, 1e-6])
    problem = make_problem(shard, heads, classes=classes)
    oracles = [Oracle(problem, heads, head) for head in range(len(heads))]
    zeros = np.zeros((classes, shard.dim + 1))
    best = [oracle.value(oracle.optimum(zeros)) for oracle in oracles]
    for iterations in (0, 1, 3, 8, 20):
        result = solve(problem, iterations)
        for head, oracle in enumerate(oracles):
            gap = float(result.diagnostics["gap"][head])
            above = oracle.value(oracle.of(result.weights, head)) - best[head]
            assert above <= gap + 1e-7 * best[head]  # digits of single precision
            converged = bool(result.diagnostics["converged"][head])
            assert converged or int(result.best_epoch[head]) == iterations
            assert not converged or gap < 1e-3 * best[head]


def test_heads_without_an_optimum_never_rise():
    """Separable and without a penalty, or of numbers too large: beside one that has an optimum."""
    heads = make_heads(fold=[0, 0], weight_decay=[1e-3, 0.0])
    result = solve(make_problem(separable(3), heads, classes=3), 500)
    assert bool(result.diagnostics["converged"][0])
    assert 0 <= float(result.diagnostics["objective"][1]) < 1e-6
    assert result.weights.weight.isfinite().all()
    huge = separable(3)
    huge = replace(huge, x=huge.x * 1e18)
    assert not solve(make_problem(huge, heads, classes=3), 20).diagnostics["converged"].all()


def test_without_a_penalty_there_is_no_bound():
    heads = make_heads(fold=[0], weight_decay=[0.0])
    result = solve(make_problem(load_shard("breast_cancer")[0], heads, classes=2), 5)
    assert result.diagnostics["gap"].isinf().all()


def test_a_class_without_a_tile_is_at_its_optimum_from_the_start():
    """As many iterations, and the same weights, as without it; it is never predicted."""
    shard, heads = separable(3), make_heads(fold=[0], weight_decay=[1e-3], label_smoothing=[0.1])
    without = solve(make_problem(shard, heads, classes=3))
    beside = solve(make_problem(shard, heads, classes=4))
    torch.testing.assert_close(
        beside.weights.weight[:, :3], without.weights.weight, rtol=1e-3, atol=1e-4
    )
    assert beside.weights.bias[0, 3] == -torch.inf  # whatever its logits are divided by
    assert not beside.weights.weight[:, 3].any()
    assert not (beside.weights.logits(shard.x).argmax(dim=1) == 3).any()


@pytest.mark.parametrize(("classes", "factor"), [(2, 2), (3, 1)])
def test_the_penalty_is_scikit_learns_c(classes: int, factor: int):
    """C = 1 / (decay * sum of the tiles' weights); twice that for two classes."""
    shard = separable(classes)
    shard = replace(shard, x=shard.x / 5)
    heads = make_heads(fold=[0], weight_decay=[0.02])
    problem = make_problem(shard, heads, classes=classes)
    rows = train_mask(shard, heads)[0].numpy()
    x, y = shard.x.numpy().astype(float), shard.target[0].numpy()
    weight = problem.losses.class_weights[0].double().numpy()[y[rows]]
    model = LogisticRegression(C=factor / (0.02 * weight.sum()), tol=1e-10, max_iter=5000)
    model.fit(x[rows], y[rows], weight)
    probabilities = solve(problem).weights.logits(shard.x)[0].softmax(dim=0).T
    np.testing.assert_allclose(probabilities, model.predict_proba(x), atol=1e-4)
