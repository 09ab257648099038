"""A temperature on held-out tiles: what is reported is what the registered network says."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest
import torch
from accelerate import Accelerator
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.metrics import log_loss
from torch import Tensor

from train.config.schema import Config
from train.engine.trainer import FitResult
from train.fitting.grid import Setting, head_grid, single_head
from train.fitting.held_out import HeldOut
from train.fitting.load import load_shards
from train.fitting.network import build_network
from train.fitting.selection import select_setting
from train.fitting.tile_table import TileTable
from train.fitting.trainers import build_trainer
from train.runtime.processes import Processes

TILES, CLASSES, DIM, NORM = 160, 3, 16, 400.0
SINGLE = {"adamw": {"learning_rate": 0.1}, "sgd": {"learning_rate": 0.001}}
SEVERAL = {
    "lbfgs": {"weight_decay": 1e-6, "optimizer": "lbfgs"},
    "ridge": {"probe": "ridge"},
    "lda": {"probe": "lda", "weight_decay": 0.01},
    "prototype": {"probe": "prototype"},
}


@dataclass(frozen=True)
class Matrix:
    """Embeddings in memory, read as those of a snapshot are."""

    values: np.ndarray
    dim: int = DIM
    starts: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))

    def check(self, rows: np.ndarray) -> None:
        pass

    def read_rows(self, rows: np.ndarray, threads: int | None = None) -> np.ndarray:
        return self.values[rows]


@pytest.fixture(scope="module")
def tiles() -> TileTable:
    """Tiles of classes that overlap, their embeddings long and far from zero."""
    rng, number = np.random.default_rng(0), np.arange(TILES)
    target = rng.integers(CLASSES, size=TILES)
    x = 8 + rng.normal(size=(TILES, DIM)) + rng.normal(size=(CLASSES, DIM))[target]
    x *= NORM / np.linalg.norm(x, axis=1, keepdims=True)
    keys = pa.table({"slide_id": [f"s{n // 10:02d}" for n in number], "x": number, "y": number,
                     "row": number})  # fmt: skip
    fold = number // 10 % 2
    return TileTable(keys, target[:, None], fold[:, None], Matrix(x.astype(np.float32)))


def fitted(
    tiles: TileTable, name: str, normalize: str
) -> tuple[Config, FitResult, HeldOut, Callable[[Tensor], Tensor]]:
    """Return heads of both folds, or one head of one fold."""
    changes = (SINGLE | SEVERAL)[name]
    optimizer = changes.get("optimizer", name if name in SINGLE else "adamw")
    config = Config(**{
        "class_indices": {str(n): n for n in range(CLASSES)}, "max_epochs": 40, "patience": 40,
        "normalize": normalize, "batch_size": 32, "threads": 1, **changes, "optimizer": optimizer,
    })  # fmt: skip
    if name in SINGLE:
        named = tiles.keys.append_column("target", pa.array(tiles.target[:, 0]))
        tiles = TileTable(named, tiles.target, tiles.fold, tiles.matrix)
        grid = single_head(tiles, config)
    else:
        setting = Setting({}, 0, 1.0, 0.0, config.weight_decay, 0.0)
        grid = head_grid(tiles, [setting], [0, 1], seed=0)
    processes = Processes(Accelerator(cpu=True))
    shards = load_shards(tiles, grid, config, processes)
    trainer = build_trainer(config, grid, shards, processes)
    assert all(epoch.train_loss.isfinite().all() for epoch in trainer)
    result = trainer.result()
    held_out = HeldOut(grid, select_setting(grid, result, config), tiles)
    return (
        config,
        result,
        held_out,
        lambda rows: processes.assemble(rows, shards.share.place, TILES),
    )


@pytest.mark.slow
@pytest.mark.parametrize("normalize", ["none", "zscore", "l2"])
@pytest.mark.parametrize("name", [*SINGLE, *SEVERAL])
def test_what_is_reported_is_of_the_registered_network(tiles: TileTable, name: str, normalize: str):
    """To 1e-6, however large the embeddings, and with the best temperature that there is."""
    config, result, held_out, assembled = fitted(tiles, name, normalize)
    heads = held_out.grid.of_setting(0)
    raw = result.out_of_fold(heads)
    logits = assembled(result.out_of_fold_logits(heads))
    calibration, choice = held_out.calibrate(logits, result, config)
    result = result.with_temperature(calibration.temperature)
    predictions = held_out.predictions(assembled(result.out_of_fold(heads)), config)
    assert (calibration.doubt, calibration.parts) == ("", 5)

    of_fold = predictions.select(held_out.fold[predictions.keys["x"].to_numpy()] == choice.fold)
    x = tiles.matrix.read_rows(of_fold.keys["x"].to_numpy())
    model = build_network(result, choice.head, config)
    probabilities = model.network(torch.from_numpy(x)).numpy()
    assert model.spec.temperature == calibration.temperature != 1
    np.testing.assert_allclose(probabilities, of_fold.probabilities, rtol=0, atol=1e-6)
    weights = np.array(model.spec.weights)[of_fold.target]
    expected = log_loss(of_fold.target, probabilities.astype(float), sample_weight=weights)
    assert choice.loss == pytest.approx(expected, rel=1e-4)

    if normalize == "none" and name != "ridge":  # float32 knows no probabilities so near to 1
        assert bool((result.problem.validation.x.norm(dim=1) > 399).all())
        assert bool((raw == 1).any())
    mask, positions = held_out.validated, np.arange(held_out.validated.sum())
    exact = logits.double().numpy()[mask]

    def loss(inverse: np.ndarray) -> float:
        by_class = log_softmax(exact * (inverse / calibration.temperature), axis=1)
        return -by_class[positions, held_out.target[mask]].mean()

    assert minimize(loss, [0.5], tol=1e-10).x[0] == pytest.approx(1, abs=1e-3)
