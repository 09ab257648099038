"""Heads, tiles and losses that tests of the engine share."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from train.engine.heads import Heads, balanced
from train.engine.losses import Aims
from train.engine.shard import NOWHERE, Pool
from train.engine.trainer import Plan
from train.engine.weights import Affine

SLIDES, CLASSES = 12, 10


def same(value: Tensor) -> Tensor:
    return value


@pytest.fixture(scope="module")
def pool() -> Pool:
    """The first 600 digits, 50 a slide, folds dealt by slide; a few dropped; a second variant."""
    images, digit = load_digits(return_X_y=True)
    slide = torch.arange(600) // 50
    draw = (torch.randperm(SLIDES, generator=torch.Generator().manual_seed(0))[slide] + 1) / SLIDES
    target = torch.from_numpy(digit[:600]).long()
    fold = slide % 4
    dropped = torch.arange(600) % 17 == 0
    other = torch.where(torch.arange(600) % 3 == 0, NOWHERE, torch.arange(600) % 4)
    return Pool(
        x=torch.from_numpy(images[:600].astype(np.float32) / 16),
        target=torch.stack([target.masked_fill(dropped, NOWHERE),
                            target.masked_fill(other == NOWHERE, NOWHERE)]),
        fold=torch.stack([fold.masked_fill(dropped, NOWHERE), other]),
        slide=slide, draw=draw, slides=SLIDES, rows=600,
    )  # fmt: skip


def heads(**columns: list) -> Heads:
    """Return heads; a column of one value is that of all."""
    given = {"variant": [0], "fold": [0], "fraction": [1.0], "rate": [0.01], "decay": [1e-3],
             "smoothing": [0.0]} | columns  # fmt: skip
    number = max(map(len, given.values()))
    kinds = {"variant": torch.int64, "fold": torch.int64}
    return Heads(**{
        name: torch.tensor(values * (number // len(values)), dtype=kinds.get(name, torch.float32))
        for name, values in given.items()
    })  # fmt: skip


MANY = heads(
    variant=[0, 0, 0, 1, 1, 0],
    fold=[0, 1, 2, 3, 0, NOWHERE],
    fraction=[1.0, 0.5, 1.0, 1.0, 0.7, 1.0],
    rate=[0.01, 0.02, 0.005, 0.01, 0.01, 0.01],
    decay=[1e-3, 0.0, 0.1, 1e-2, 1e-3, 0.0],
    smoothing=[0.0, 0.1, 0.2, 0.0, 0.3, 0.0],
)


def start(number: int, dim: int = 64) -> Affine:
    rng = torch.Generator().manual_seed(1)
    weight = torch.randn((1, CLASSES, dim), generator=rng) / 8
    return Affine(weight.repeat(number, 1, 1), torch.zeros(number, CLASSES))


def aims(pool: Pool, own: Heads) -> Aims:
    return Aims(balanced(pool, own, CLASSES, same), own.smoothing)


def plan(epochs: int = 4, patience: int = 99) -> Plan:
    return Plan("adamw", batch=64, epochs=epochs, patience=patience, min_delta=0.0, seed=0)
