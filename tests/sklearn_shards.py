"""Data sets of scikit-learn as shards, and heads solved on them."""

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from torch import Tensor

from train.engine.heads import HeadSpecs, balanced_class_weights
from train.engine.losses import HeadLosses
from train.engine.shard import Shard
from train.engine.solvers.lbfgs import solve
from train.engine.standardizer import Standardizer
from train.engine.weights import LinearHeads

DATA = {"digits": load_digits, "breast_cancer": load_breast_cancer, "wine": load_wine}


def same(value: Tensor) -> Tensor:
    return value


def tiles(name: str) -> tuple[Shard, int]:
    """Return a data set, standardised, in four folds."""
    x, y = DATA[name](return_X_y=True)
    x = ((x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-9)).astype(np.float32)
    number = torch.arange(len(x))
    shard = Shard(torch.from_numpy(x), torch.from_numpy(y)[None], number[None] % 4, number // 20,
                torch.ones(len(x)), len(x) // 20 + 1, len(x))  # fmt: skip
    return shard, int(y.max()) + 1


def pack(folds: list[int], decays: list[float]) -> HeadSpecs:
    number = len(folds)
    variant, ones = torch.zeros(number, dtype=torch.int64), torch.ones(number)
    zeros = torch.zeros(number)
    return HeadSpecs(variant, torch.tensor(folds), ones, zeros, torch.tensor(decays), zeros)


def solved(shard: Shard, heads: HeadSpecs, classes: int, standardizer: Standardizer | None = None):
    losses = HeadLosses(balanced_class_weights(shard, heads, classes, same), heads.label_smoothing)
    start = LinearHeads(torch.zeros(len(heads), classes, shard.x.shape[1]),
                   torch.zeros(len(heads), classes))  # fmt: skip
    return solve(shard, heads, losses, start, same, standardizer), losses
