"""A network on tiles that are read in blocks: its probabilities, and its loss by its logits."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional

from featurestore.snapshots.tile_set import TileSet
from train.models import inference
from train.models.checkpoint import ModelSpec, TrainedModel


@dataclass(frozen=True)
class Matrix:
    """Embeddings in memory, read as those of a snapshot are."""

    values: np.ndarray

    def check(self, rows: np.ndarray) -> None:
        pass

    def read_rows(self, rows: np.ndarray, threads: int | None = None) -> np.ndarray:
        return self.values[rows]


def test_the_loss_is_of_logits(monkeypatch: pytest.MonkeyPatch):
    """Of long embeddings most float32 probabilities are 0 or 1, and their logarithms too small."""
    monkeypatch.setattr(inference, "BLOCK", 7)
    torch.manual_seed(0)
    spec = ModelSpec("linear", 8, "none", 5, ["a", "b", "c"], [1.0, 2.0, 3.0])
    model = TrainedModel(spec.build().requires_grad_(False), spec)
    x = 400 * functional.normalize(torch.randn(30, 5), dim=1)
    target = torch.arange(30) % 4  # the last stands for tiles without a label
    keys = pa.table({"row": np.arange(30)[::-1],
                     "target": pa.array(target.tolist(), mask=(target == 3).numpy())})  # fmt: skip
    tiles = TileSet(keys, Matrix(x.flip(0).numpy()))
    applied = inference.apply_to_tiles(model, tiles)
    expected = model.network(x)
    assert bool((expected == 0).any())
    torch.testing.assert_close(applied.probabilities, expected)
    labelled, head = target < 3, model.network.get_submodule("head")
    weights = torch.tensor(spec.weights, dtype=torch.float64)
    logits = (x.double() @ head.weight.double().T + head.bias.double())[labelled]
    loss = functional.cross_entropy(logits, target[labelled], weight=weights)
    assert applied.loss == pytest.approx(float(loss), rel=1e-5)
    parts = [
        inference.apply_to_tiles(model, TileSet(keys.slice(first, 15), tiles.matrix))
        for first in (0, 15)
    ]
    assert inference.mean_loss(parts[0].sums + parts[1].sums) == pytest.approx(
        float(loss), rel=1e-5
    )
    torch.testing.assert_close(parts[1].probabilities, expected[15:])
