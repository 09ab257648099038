"""What heads are trained on: class weights and standardisation of each head's own tiles."""

import numpy as np
import pytest
import torch
from engine_problems import CLASSES, MANY, make_problem, make_weights, one_head
from ranks import ranks
from sklearn.utils.class_weight import compute_class_weight

from train.engine.heads import train_mask
from train.engine.problem import Problem
from train.engine.shard import Reduce, Shard


def test_class_weights_are_scikit_learns(shard: Shard):
    weights = make_problem(shard, MANY).losses.class_weights
    for index in range(len(MANY)):
        head = MANY.select(one_head(index))
        target = shard.target[int(head.variant), train_mask(shard, head)[0]].numpy()
        expected = compute_class_weight("balanced", classes=np.arange(CLASSES), y=target)
        np.testing.assert_allclose(weights[index], expected, rtol=1e-6)


@pytest.mark.parametrize("world", [2, 4])
def test_processes_prepare_what_one_prepares(shard: Shard, world: int):
    expected = make_problem(shard, MANY, zscore=True)
    assert expected.standardizer

    def work(share: Shard, reduce: Reduce) -> Problem:
        return make_problem(share, MANY, reduce, zscore=True)

    for problem in ranks(shard, world, work):
        assert problem.standardizer
        assert torch.equal(problem.losses.class_weights, expected.losses.class_weights)
        torch.testing.assert_close(problem.standardizer.mean, expected.standardizer.mean)
        torch.testing.assert_close(problem.standardizer.scale, expected.standardizer.scale)


@pytest.mark.parametrize("zscore", [False, True])
def test_the_problem_of_some_heads_is_theirs(shard: Shard, zscore: bool):
    heads = torch.tensor([3, 1])
    problem = make_problem(shard, MANY, zscore=zscore).select(heads)
    expected = make_problem(shard, MANY.select(heads), zscore=zscore)
    assert torch.equal(problem.losses.class_weights, expected.losses.class_weights)
    assert torch.equal(problem.losses.label_smoothing, expected.losses.label_smoothing)
    assert torch.equal(problem.heads.training_sets, expected.heads.training_sets)
    weights = make_weights(2)
    torch.testing.assert_close(
        problem.on_raw(weights).weight, expected.on_raw(weights).weight, rtol=1e-4, atol=1e-6
    )
