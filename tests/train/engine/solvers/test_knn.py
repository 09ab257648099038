"""Votes of the nearest tiles against scikit-learn's."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from engine_problems import make_heads, make_problem, of_rank, one_head, run
from ranks import ranks
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn_shards import HEADS
from torch import Tensor

from train.engine.heads import train_mask
from train.engine.shard import DROPPED, Reduce, Shard
from train.engine.solvers.knn import LEAST, NearestNeighbours, Voting

SEVEN = [Voting(7)] * len(HEADS)


@pytest.mark.parametrize("zscore", [False, True])
@pytest.mark.parametrize("neighbours", [1, 7])
def test_votes_are_scikit_learns(dataset: tuple[Shard, int], neighbours: int, zscore: bool):
    shard, classes = dataset
    problem = make_problem(shard, HEADS, zscore=zscore, classes=classes)
    result = run(NearestNeighbours(problem, shard, [Voting(neighbours)] * len(HEADS)))
    loss, confusion = result.evaluate()
    y = shard.target[0].numpy()
    for head, fold in enumerate(HEADS.fold.tolist()):
        validation = shard.fold[0].numpy() == fold
        assert int(confusion[head].sum()) == validation.sum()
        if fold == DROPPED:
            continue
        rows = train_mask(shard, HEADS.select(one_head(head)))[0].numpy()
        x = shard.x.numpy().astype(float)
        x = StandardScaler().fit(x[rows]).transform(x) if zscore else x
        model = KNeighborsClassifier(neighbours).fit(x[rows], y[rows])
        votes = model.predict_proba(x[validation])
        shares = result.out_of_fold(one_head(head))
        np.testing.assert_allclose(shares[validation], votes, atol=1e-6)
        assert not shares[~validation].any()
        np.testing.assert_array_equal(
            confusion[head].diagonal().sum(),
            (votes.argmax(axis=1) == y[validation]).sum(),
        )
        weights = problem.losses.class_weights[head].numpy()[y[validation]]
        of_target = votes[np.arange(len(votes)), y[validation]].clip(LEAST)
        expected = -(weights * np.log(of_target)).sum() / weights.sum()
        assert float(loss[head]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("world", [2, 4])
def test_processes_find_the_same_votes(dataset: tuple[Shard, int], world: int):
    shard, classes = dataset
    problem = make_problem(shard, HEADS, zscore=True, classes=classes)

    def work(share: Shard, reduce: Reduce) -> tuple[Tensor, Tensor, Tensor, np.ndarray | None]:
        result = run(NearestNeighbours(of_rank(problem, share, reduce), shard, SEVEN))
        return *result.evaluate(), result.out_of_fold(torch.tensor([0, 1, 3])), share.positions

    loss, confusion, votes, _ = work(shard, problem.reduce)
    for result in ranks(shard, world, work):
        torch.testing.assert_close(result[0], loss)
        assert torch.equal(result[1], confusion)
        torch.testing.assert_close(result[2], votes[result[3]])


def test_tiles_to_validate_on_may_be_a_shard_of_their_own(dataset: tuple[Shard, int]):
    shard, classes = dataset
    problem = make_problem(shard, HEADS, classes=classes)
    expected = run(NearestNeighbours(problem, shard, SEVEN)).evaluate()
    apart = replace(problem, validation=shard.cut(slice(None)))
    votes = run(NearestNeighbours(apart, shard, SEVEN)).evaluate()
    assert all(map(torch.equal, votes, expected))


@pytest.mark.parametrize("zscore", [False, True])
def test_weights_and_metrics_side_by_side_are_scikit_learns(
    dataset: tuple[Shard, int], zscore: bool
):
    """Of a fold, all ways to vote at once; a tile that has copies among the voters included."""
    shard, classes = dataset
    fold, x = shard.fold[0], shard.x.clone()
    trained = ((fold != DROPPED) & (fold != 0)).nonzero()[:, 0]
    validation = (fold == 0).nonzero()[:, 0]
    x[validation[:3]] = x[trained[:3]]
    shard = replace(shard, x=x)
    ways = list(product([1, 4, 9], ["uniform", "distance"], ["euclidean", "cosine"]))
    heads = make_heads(fold=[0] * len(ways))
    problem = make_problem(shard, heads, zscore=zscore, classes=classes)
    result = run(NearestNeighbours(problem, shard, [Voting(*way) for way in ways]))
    rows, held = trained.numpy(), validation.numpy()
    values, y = x.numpy().astype(float), shard.target[0].numpy()
    values = StandardScaler().fit(values[rows]).transform(values) if zscore else values
    for head, (neighbours, weights, metric) in enumerate(ways):
        model = KNeighborsClassifier(neighbours, weights=weights, metric=metric)
        votes = model.fit(values[rows], y[rows]).predict_proba(values[held])
        shares = result.out_of_fold(one_head(head))[held].numpy()
        # A copy is at 0 in one of the two, and by rounding at 1e-16 in the other.
        np.testing.assert_allclose(shares, votes, atol=2e-4, err_msg=str(ways[head]))
