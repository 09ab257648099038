"""The solver against scikit-learn's optimum, and a pack against heads alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ranks import ranks
from sklearn.linear_model import LogisticRegression
from solutions import DATA, pack, same, solved, tiles

from train.engine.heads import train_mask
from train.engine.shard import Reduce, Shard
from train.engine.solvers.lbfgs import Solved, solve
from train.engine.standardizer import fit_standardizer
from train.engine.weights import LinearHeads


def objective(x: np.ndarray, y: np.ndarray, own: np.ndarray, weight: np.ndarray,
              bias: np.ndarray, decay: float) -> float:  # fmt: skip
    """The objective in double, by NumPy."""
    logits = x.astype(float) @ weight.astype(float).T + bias
    logs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    loss = -(own * logs[np.arange(len(y)), y]).sum() / own.sum()
    return float(loss + decay / 2 * (weight.astype(float) ** 2).sum())


@pytest.mark.parametrize("name", DATA)
def test_the_optimum_is_scikit_learns(name: str):
    """Objective within 1e-6, at most one differing prediction, over folds and penalties at once."""
    pool, classes = tiles(name)
    heads = pack([0, 1, 2, 3], [1e-1, 1e-2, 1e-3, 1e-2])
    found, aims = solved(pool, heads, classes)
    for head in range(4):
        rows = train_mask(pool, heads.of(torch.tensor([head])))[0].numpy()
        x, y = pool.x.numpy()[rows], pool.target[0].numpy()[rows]
        own, decay = aims.weights[head].numpy()[y], float(heads.decay[head])
        theirs = LogisticRegression(C=1 / (decay * own.sum()), tol=1e-10, max_iter=20_000)
        theirs.fit(x.astype(float), y, sample_weight=own)
        if classes == 2:  # one row for two classes: the symmetric pair has half the penalty
            weight = np.concatenate([-theirs.coef_, theirs.coef_]) / 2
            bias = np.concatenate([-theirs.intercept_, theirs.intercept_]) / 2
            theirs = LogisticRegression(C=2 / (decay * own.sum()), tol=1e-10, max_iter=20_000)
            theirs.fit(x.astype(float), y, sample_weight=own)
            weight = np.concatenate([-theirs.coef_, theirs.coef_]) / 2
            bias = np.concatenate([-theirs.intercept_, theirs.intercept_]) / 2
        else:
            weight, bias = theirs.coef_, theirs.intercept_
        mine = objective(x, y, own, found.affine.weight[head].numpy(),
                         found.affine.bias[head].numpy(), decay)  # fmt: skip
        best = objective(x, y, own, weight, bias, decay)
        assert mine == pytest.approx(best, rel=1e-6)
        assert float(found.objective[head]) == pytest.approx(mine, rel=1e-5)
        everything = pool.x.numpy()
        ours = (everything @ found.affine.weight[head].numpy().T
                + found.affine.bias[head].numpy()).argmax(axis=1)  # fmt: skip
        assert (ours != (everything @ weight.T + bias).argmax(axis=1)).sum() <= 1
        assert float(found.slope[head]) < 1e-4


def test_a_head_in_a_pack_is_the_head_alone():
    pool, classes = tiles("digits")
    heads = pack([0, 1, 2, 3, 0], [1e-2, 1e-3, 1e-1, 1e-2, 1e-3])
    together, _ = solved(pool, heads, classes)
    for head in range(len(heads)):
        alone, _ = solved(pool, heads.of(torch.tensor([head])), classes)
        difference = together.affine.weight[head] - alone.affine.weight[0]
        assert difference.norm() / alone.affine.weight[0].norm() < 1e-3
        assert float(together.objective[head]) == pytest.approx(float(alone.objective[0]), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_processes_find_the_same_optimum(world: int):
    pool, classes = tiles("wine")
    heads = pack([0, 1, 2, 3], [1e-2, 1e-3, 1e-1, 1e-2])
    expected, aims = solved(pool, heads, classes)
    start = LinearHeads(torch.zeros(4, classes, pool.x.shape[1]), torch.zeros(4, classes))

    def work(share: Shard, total: Reduce) -> Solved:
        return solve(share, heads, aims, start, total)

    for found in ranks(pool, world, work):
        torch.testing.assert_close(found.objective, expected.objective, rtol=1e-6, atol=0)
        difference = (found.affine.weight - expected.affine.weight).norm()
        assert difference / expected.affine.weight.norm() < 1e-3


def test_ill_conditioned_embeddings_take_few_iterations():
    """Embeddings whose spectrum falls over two decades, as those of foundation models do."""
    rng, dim = torch.Generator().manual_seed(0), 64
    turned, _ = torch.linalg.qr(torch.randn((dim, dim), generator=rng))
    y = torch.randint(5, (3000,), generator=rng)
    centres = torch.randn((5, dim), generator=rng)
    spectrum = 10 * torch.arange(1, dim + 1).float() ** -1.2
    x = ((torch.randn((3000, dim), generator=rng) + 0.7 * centres[y]) * spectrum) @ turned + 3
    pool = Shard(x, y[None], torch.arange(3000)[None] % 4, torch.arange(3000) // 100,
                torch.ones(3000), 30, 3000)  # fmt: skip
    found, _ = solved(pool, pack([0, 1, 2], [1e-1, 1e-3, 1e-5]), 5)
    assert int(found.iterations.max()) <= 60
    assert float(found.slope.max()) < 1e-4


def test_standardised_in_the_weights_as_well():
    """The same optimum whether embeddings are standardised before or within."""
    pool, classes = tiles("wine")
    raw = replace(pool, x=pool.x * 3 + 5)
    heads = pack([0, 1], [1e-2, 1e-2])
    within, _ = solved(raw, heads, classes, fit_standardizer(raw, heads, same))
    for head in range(2):
        one = heads.of(torch.tensor([head]))
        body = fit_standardizer(raw, one, same)
        before = replace(raw, x=(raw.x - body.mean[0]) / body.scale[0])
        found, _ = solved(before, one, classes)
        assert float(found.objective[0]) == pytest.approx(float(within.objective[head]), rel=1e-6)
