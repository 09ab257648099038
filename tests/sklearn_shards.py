"""Data sets of scikit-learn as shards."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_problems import make_heads
from sklearn.datasets import load_breast_cancer, load_digits, load_wine

from train.engine.shard import DROPPED, Shard

DATASETS = {"digits": load_digits, "breast_cancer": load_breast_cancer, "wine": load_wine}


def load_shard(name: str) -> tuple[Shard, int]:
    """Return a data set, standardised, in four folds, and its number of classes."""
    x, y = DATASETS[name](return_X_y=True)
    x = ((x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-9)).astype(np.float32)
    number = torch.arange(len(x))
    shard = Shard(
        x=torch.from_numpy(x), target=torch.from_numpy(y)[None], fold=number[None] % 4,
        cluster=number // 20, slide_rank=torch.ones(len(x)), clusters=len(x) // 20 + 1,
        rows=len(x),
    )  # fmt: skip
    return shard, int(y.max()) + 1


HEADS = make_heads(
    fold=[0, 1, 2, 2, DROPPED],
    weight_decay=[0.1, 0.01, 0.3, 0.02, 0.5],
    max_slide_rank=[1.0, 1.0, 0.6, 1.0, 1.0],
)


@pytest.fixture(scope="module", params=DATASETS)
def dataset(request: pytest.FixtureRequest) -> tuple[Shard, int]:
    """A data set with unlike scales and a mean far from zero; slides in some random order."""
    shard, classes = load_shard(request.param)
    ranks = np.random.default_rng(0).permutation(shard.clusters)[shard.cluster.numpy()] + 1
    x = shard.x * torch.linspace(0.5, 3, shard.dim) + 2
    slide_rank = torch.from_numpy(ranks / shard.clusters).float()
    return replace(shard, x=x, slide_rank=slide_rank), classes
