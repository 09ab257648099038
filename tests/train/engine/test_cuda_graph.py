"""The engine and the script on a GPU, where there is one: what a CPU computes, from the card."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import ROOT, launch
from engine_problems import (
    MANY,
    make_heads,
    make_plan,
    make_problem,
    make_weights,
    solve,
    train,
)

from train.engine.evaluate import evaluate, out_of_fold
from train.engine.heads import HeadSpecs
from train.engine.minibatch import MiniBatchTrainer
from train.engine.problem import Problem
from train.engine.shard import Shard
from train.engine.trainer import FitResult

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def place(shard: Shard, device: torch.device, kind: torch.dtype = torch.float32) -> Shard:
    """Return the tiles on a device."""
    columns = ("target", "fold", "cluster", "slide_rank")
    labels = {name: getattr(shard, name).to(device) for name in columns}
    return replace(shard, x=shard.x.to(device, kind), **labels)


def problem_of(shard: Shard, heads: HeadSpecs = MANY, zscore: bool = False) -> Problem:
    """Return the problem on the device of the tiles; their embeddings may lie elsewhere."""
    return make_problem(shard, heads.to(shard.device), zscore=zscore)


def fit(shard: Shard, zscore: bool = False) -> FitResult:
    """Train many heads on the device of the tiles."""
    weights = make_weights(len(MANY)).to(shard.device)
    return train(problem_of(shard, zscore=zscore), make_plan(6, patience=2), weights)


@pytest.mark.parametrize("zscore", [False, True])
def test_heads_are_those_of_a_cpu(shard: Shard, zscore: bool):
    expected, result = fit(place(shard, CPU), zscore), fit(place(shard, CUDA), zscore)
    torch.testing.assert_close(
        result.weights.weight.cpu(), expected.weights.weight, rtol=1e-3, atol=1e-4
    )
    assert result.best_epoch.tolist() == expected.best_epoch.tolist()


def test_embeddings_that_do_not_fit_stay_in_memory(shard: Shard):
    """Page-locked rows are copied batch by batch; nothing else changes."""
    resident = place(shard, CUDA)
    expected, result = fit(resident), fit(replace(resident, x=shard.x.pin_memory()))
    torch.testing.assert_close(result.weights.weight, expected.weights.weight, rtol=1e-5, atol=1e-6)


def test_training_goes_on_from_the_state_of_any_epoch(shard: Shard, tmp_path: Path):
    """The step is recorded anew, and is the same step."""
    problem, plan = problem_of(place(shard, CUDA)), make_plan(6, patience=1, min_delta=0.1)
    expected = MiniBatchTrainer(problem, plan, make_weights(len(MANY)).to(CUDA))
    for epoch in expected:
        torch.save(expected.state_dict(), tmp_path / f"{epoch.number}.pt")
    for file in tmp_path.glob("*.pt"):
        trainer = MiniBatchTrainer(problem, plan)
        trainer.load_state_dict(torch.load(file, weights_only=True))
        for _ in trainer:
            pass
        result = trainer.result()
        assert torch.equal(result.best_epoch, expected.result().best_epoch)
        torch.testing.assert_close(
            result.weights.weight, expected.result().weights.weight, rtol=1e-5, atol=1e-6
        )


def test_evaluation_counts_the_same_tiles(shard: Shard):
    results = {}
    for device in (CPU, CUDA):
        problem, weights = problem_of(place(shard, device)), make_weights(len(MANY)).to(device)
        loss, confusion = evaluate(problem, weights)
        results[device] = (loss.cpu(), confusion.cpu(), out_of_fold(problem, weights).cpu())
    torch.testing.assert_close(results[CUDA][0], results[CPU][0], rtol=1e-5, atol=1e-7)
    assert torch.equal(results[CUDA][1], results[CPU][1])
    torch.testing.assert_close(results[CUDA][2], results[CPU][2], rtol=1e-4, atol=1e-6)


def test_optima_are_those_of_a_cpu(shard: Shard):
    heads = make_heads(fold=[0, 1, 2], weight_decay=[1e-2, 1e-3, 1e-1])
    expected, result = (
        solve(problem_of(place(shard, device), heads), max_epochs=200) for device in (CPU, CUDA)
    )
    torch.testing.assert_close(
        result.diagnostics["objective"], expected.diagnostics["objective"], rtol=1e-6, atol=1e-8
    )


def test_half_precision_tells_the_same_classes(shard: Shard):
    hits = []
    for kind in (torch.float32, torch.bfloat16):
        _, confusion = fit(place(shard, CUDA, kind)).evaluate()
        hits.append(confusion.diagonal(dim1=1, dim2=2).sum() / confusion.sum())
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
