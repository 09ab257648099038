"""The engine and the script on a GPU, where there is one: what a CPU computes, from the card."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import ROOT, launch
from packs import CLASSES, MANY, heads, plan, same, shard, start

from train.engine.evaluate import evaluate, out_of_fold
from train.engine.heads import balanced_class_weights
from train.engine.losses import HeadLosses
from train.engine.shard import Shard
from train.engine.solvers.lbfgs import solve
from train.engine.standardizer import fit_standardizer
from train.engine.trainer import FitResult, train

__all__ = ["shard"]  # a fixture
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


def placed(shard: Shard, device: str, kind: torch.dtype = torch.float32) -> Shard:
    """Return the tiles on a device."""
    small = {name: getattr(shard, name).to(device) for name in ("target", "fold", "slide", "draw")}
    assert isinstance(shard.x, torch.Tensor)
    return replace(shard, x=shard.x.to(device, kind), **small)


def fitted(shard: Shard, normalize: bool = False, rows: torch.device | None = None) -> FitResult:
    """Train many heads on the device of the tiles; their embeddings may lie elsewhere."""
    device = shard.target.device
    own = MANY.to(device)
    losses = HeadLosses(balanced_class_weights(shard, own, CLASSES, same), own.smoothing)
    standardizer = fit_standardizer(shard, own, same) if normalize else None
    return train(
        shard, own, losses, start(len(own)).to(device), plan(6, patience=2), same, standardizer
    )


@pytest.mark.parametrize("normalize", [False, True])
def test_heads_are_those_of_a_cpu(shard: Shard, normalize: bool):
    here = fitted(placed(shard, "cpu"), normalize)
    there = fitted(placed(shard, "cuda"), normalize)
    torch.testing.assert_close(there.affine.weight.cpu(), here.affine.weight, rtol=1e-3, atol=1e-4)
    assert there.epoch.tolist() == here.epoch.tolist()


def test_embeddings_that_do_not_fit_stay_in_memory(shard: Shard):
    """Page-locked rows are copied batch by batch; nothing else changes."""
    card = placed(shard, "cuda")
    assert isinstance(shard.x, torch.Tensor)
    there, apart = fitted(card), fitted(replace(card, x=shard.x.pin_memory()))
    torch.testing.assert_close(apart.affine.weight, there.affine.weight, rtol=1e-5, atol=1e-6)


def test_evaluation_counts_the_same_tiles(shard: Shard):
    found = {}
    for device in ("cpu", "cuda"):
        own, own_pool = MANY.to(torch.device(device)), placed(shard, device)
        losses = HeadLosses(balanced_class_weights(own_pool, own, CLASSES, same), own.smoothing)
        affine = start(len(own)).to(torch.device(device))
        loss, cube = evaluate(own_pool, affine, own, losses, same)
        found[device] = (loss.cpu(), cube.cpu(), out_of_fold(own_pool, affine, own).cpu())
    torch.testing.assert_close(found["cuda"][0], found["cpu"][0], rtol=1e-5, atol=1e-7)
    assert torch.equal(found["cuda"][1], found["cpu"][1])
    torch.testing.assert_close(found["cuda"][2], found["cpu"][2], rtol=1e-4, atol=1e-6)


def test_optima_are_those_of_a_cpu(shard: Shard):
    found = []
    for device in ("cpu", "cuda"):
        own_pool = placed(shard, device)
        own = heads(fold=[0, 1, 2], decay=[1e-2, 1e-3, 1e-1]).to(torch.device(device))
        losses = HeadLosses(balanced_class_weights(own_pool, own, CLASSES, same), own.smoothing)
        first = start(3).to(torch.device(device))
        found.append(solve(own_pool, own, losses, first, same, None, most=200).objective.cpu())
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-8)


def test_half_precision_tells_the_same_classes(shard: Shard):
    own = MANY.to(torch.device("cuda"))
    cubes = []
    for kind in (torch.float32, torch.bfloat16):
        card = placed(shard, "cuda", kind)
        losses = HeadLosses(balanced_class_weights(card, own, CLASSES, same), own.smoothing)
        cubes.append(evaluate(card, fitted(card).affine, own, losses, same)[1].sum(dim=1))
    hits = [cube.diagonal(dim1=1, dim2=2).sum() / cube.sum() for cube in cubes]
    assert abs(float(hits[0] - hits[1])) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    "argv", [["fold=4"], ["fold=4", "head=mlp"], ["fold=all", "sweep.learning_rate=[0.002,0.02]"],
             ["fold=4", "optimizer=lbfgs"], ["fold=4", "probe=ridge"], ["fold=4", "stream=always"]]
)  # fmt: skip
def test_the_script_predicts_what_it_does_on_a_cpu(argv: list[str], tmp_path: Path):
    tables = []
    for device, variables in (("cuda", {}), ("cpu", {"ACCELERATE_USE_CPU": "1"})):
        done = launch(
            [sys.executable, str(ROOT / "train" / "probe.py"), *argv, "tracking.enabled=false",
             f"output={device}"],
            tmp_path, **variables,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        [file] = (tmp_path / device).glob("*predictions.parquet")
        tables.append(pq.read_table(file))
    same_class = np.mean(tables[0]["pred"].to_numpy() == tables[1]["pred"].to_numpy())
    assert same_class > 0.98
