"""Heads, tiles and loss_sums that tests of the engine share."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from train.engine.heads import HeadSpecs, balanced_class_weights
from train.engine.losses import HeadLosses
from train.engine.shard import DROPPED, Shard
from train.engine.trainer import TrainPlan
from train.engine.weights import LinearHeads

SLIDES, CLASSES = 12, 10


def same(value: Tensor) -> Tensor:
    return value


@pytest.fixture(scope="module")
def shard() -> Shard:
    """The first 600 digits, 50 a slide, folds dealt by slide; a few dropped; a second variant."""
    images, digit = load_digits(return_X_y=True)
    slide = torch.arange(600) // 50
    draw = (torch.randperm(SLIDES, generator=torch.Generator().manual_seed(0))[slide] + 1) / SLIDES
    target = torch.from_numpy(digit[:600]).long()
    fold = slide % 4
    dropped = torch.arange(600) % 17 == 0
    other = torch.where(torch.arange(600) % 3 == 0, DROPPED, torch.arange(600) % 4)
    return Shard(
        x=torch.from_numpy(images[:600].astype(np.float32) / 16),
        target=torch.stack([target.masked_fill(dropped, DROPPED),
                            target.masked_fill(other == DROPPED, DROPPED)]),
        fold=torch.stack([fold.masked_fill(dropped, DROPPED), other]),
        slide=slide, draw=draw, slides=SLIDES, rows=600,
    )  # fmt: skip


def heads(**columns: list) -> HeadSpecs:
    """Return heads; a column of one value is that of all."""
    given = {"variant": [0], "fold": [0], "fraction": [1.0], "rate": [0.01], "decay": [1e-3],
             "smoothing": [0.0]} | columns  # fmt: skip
    number = max(map(len, given.values()))
    kinds = {"variant": torch.int64, "fold": torch.int64}
    return HeadSpecs(**{
        name: torch.tensor(values * (number // len(values)), dtype=kinds.get(name, torch.float32))
        for name, values in given.items()
    })  # fmt: skip


MANY = heads(
    variant=[0, 0, 0, 1, 1, 0],
    fold=[0, 1, 2, 3, 0, DROPPED],
    fraction=[1.0, 0.5, 1.0, 1.0, 0.7, 1.0],
    rate=[0.01, 0.02, 0.005, 0.01, 0.01, 0.01],
    decay=[1e-3, 0.0, 0.1, 1e-2, 1e-3, 0.0],
    smoothing=[0.0, 0.1, 0.2, 0.0, 0.3, 0.0],
)


def start(number: int, dim: int = 64) -> LinearHeads:
    rng = torch.Generator().manual_seed(1)
    weight = torch.randn((1, CLASSES, dim), generator=rng) / 8
    return LinearHeads(weight.repeat(number, 1, 1), torch.zeros(number, CLASSES))


def losses(shard: Shard, own: HeadSpecs) -> HeadLosses:
    return HeadLosses(balanced_class_weights(shard, own, CLASSES, same), own.smoothing)


def plan(epochs: int = 4, patience: int = 99) -> TrainPlan:
    return TrainPlan("adamw", batch=64, epochs=epochs, patience=patience, min_delta=0.0, seed=0)
