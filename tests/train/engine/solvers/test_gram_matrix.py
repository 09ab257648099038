"""Moments of the strata against NumPy's over each head's own tiles."""

import numpy as np
import torch
from engine_problems import make_problem, one_head
from sklearn_shards import HEADS

from train.engine.heads import train_mask
from train.engine.shard import Shard
from train.engine.solvers.gram_matrix import gram_matrices, list_strata


def test_each_head_is_a_sum_of_strata(dataset: tuple[Shard, int]):
    """Every tile that a head trains on is in one of its strata, once; none is nobody's."""
    shard, classes = dataset
    moments = gram_matrices(make_problem(shard, HEADS, classes=classes), second=False)
    assert len(moments.gram) == 0
    used = torch.zeros(len(moments.strata), dtype=torch.bool)
    for head in range(len(HEADS)):
        strata = moments.train_mask(0, int(HEADS.fold[head]), float(HEADS.max_slide_rank[head]))
        used |= strata
        counts, sums = moments.by_class(strata, classes)
        rows = train_mask(shard, HEADS.select(one_head(head)))[0]
        np.testing.assert_array_equal(
            counts, np.bincount(shard.target[0, rows].numpy(), minlength=classes)
        )
        np.testing.assert_allclose(
            sums.sum(dim=0) + counts.sum() * moments.centre, shard.x[rows].double().sum(dim=0),
            rtol=1e-5,
        )  # fmt: skip
    assert used.all()
    assert len(list_strata(HEADS, classes)[0]) == len(moments.strata)


def test_gram_matrices_are_numpys(dataset: tuple[Shard, int]):
    shard, classes = dataset
    moments = gram_matrices(make_problem(shard, HEADS, classes=classes))
    weights = torch.linspace(0.5, 2, classes, dtype=torch.float64)
    for head in range(len(HEADS)):
        strata = moments.train_mask(0, int(HEADS.fold[head]), float(HEADS.max_slide_rank[head]))
        rows = train_mask(shard, HEADS.select(one_head(head)))[0]
        x = shard.x[rows].double().numpy() - moments.centre.numpy()
        expected = (x * weights[shard.target[0, rows]].numpy()[:, None]).T @ x
        np.testing.assert_allclose(
            moments.weighted(strata, weights), expected, rtol=1e-4, atol=1e-5 * abs(expected).max()
        )
