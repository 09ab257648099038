"""Standardisation against NumPy's, in weights and in gradients."""

import numpy as np
import torch
from engine_problems import MANY, make_problem, make_weights, one_head, same

from train.engine.heads import train_mask
from train.engine.shard import Shard
from train.engine.standardizer import fit_standardizer
from train.engine.stepper import gradient


def test_standardisation_is_numpys(shard: Shard):
    standardizer = fit_standardizer(shard, MANY, same)
    for index in range(len(MANY)):
        x = shard.x[train_mask(shard, MANY.select(one_head(index)))[0]].double()
        np.testing.assert_allclose(standardizer.mean[index], x.mean(dim=0), atol=1e-6)
        deviation = x.std(dim=0, correction=0)
        np.testing.assert_allclose(
            standardizer.scale[index], torch.where(deviation > 1e-6, deviation, 1.0), rtol=1e-4
        )


def test_it_is_folded_into_the_weights(shard: Shard):
    standardizer, weights = fit_standardizer(shard, MANY, same), make_weights(len(MANY))
    for head in range(len(MANY)):
        z = (shard.x - standardizer.mean[head]) / standardizer.scale[head]
        logits = standardizer.fold_into(weights).logits(shard.x)[head]
        torch.testing.assert_close(logits, weights.weight[head] @ z.T, rtol=1e-4, atol=1e-4)


def test_the_gradient_is_that_on_standardised_embeddings(shard: Shard):
    weights, problem = make_weights(len(MANY)), make_problem(shard, MANY)
    standardizer = fit_standardizer(shard, MANY, same)
    raw, _ = gradient(shard, standardizer.fold_into(weights), problem)
    pulled = standardizer.pull_back(raw)
    for index in range(len(MANY)):
        z = (shard.x - standardizer.mean[index]) / standardizer.scale[index]
        head = one_head(index)
        expected, _ = gradient(
            Shard(**vars(shard) | {"x": z}), weights.select(head), problem.select(head)
        )  # fmt: skip
        torch.testing.assert_close(pulled.weight[index], expected.weight[0], rtol=1e-3, atol=1e-2)
        torch.testing.assert_close(pulled.bias[index], expected.bias[0], rtol=1e-3, atol=1e-3)
