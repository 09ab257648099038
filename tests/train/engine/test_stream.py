"""Embeddings that stay on disk: the same tiles, losses and heads as in memory."""

import itertools
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_problems import (
    CLASSES,
    MANY,
    make_heads,
    make_plan,
    make_problem,
    make_weights,
    numbered,
    of_rank,
    one_head,
    run,
    same,
    solve,
    train,
)
from ranks import local_positions, ranks, share
from sklearn_shards import HEADS, load_shard
from torch import Tensor

from train.engine import sampler
from train.engine import shard as shards
from train.engine.evaluate import evaluate, out_of_fold
from train.engine.shard import Reduce, Shard
from train.engine.solvers.closed_form import ClosedFormTrainer
from train.engine.standardizer import fit_standardizer
from train.engine.stepper import gradient
from train.engine.stream import Stream, prefetch


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read little at a time, so that few tiles are many pieces."""
    monkeypatch.setattr(shards, "SECTION", 100)
    monkeypatch.setattr(sampler, "CHUNK", 32)


def on_disk(shard: Shard, rank: int = 0, world: int = 1) -> Shard:
    """Return a process's share of a shard, read when it is asked for: lane by lane."""
    positions = local_positions(len(shard), rank, world)
    local, x = share(shard, rank, world), shard.x.numpy()
    stream = Stream(
        gather=lambda rows, out: np.copyto(out, x[rows]), rows=positions, dim=shard.dim,
        change=lambda part: part,
    )  # fmt: skip
    rows = torch.from_numpy(np.argsort(np.argsort(positions)))  # of the share in memory
    return replace(
        local, x=stream, target=local.target[:, rows], fold=local.fold[:, rows],
        cluster=local.cluster[rows], slide_rank=local.slide_rank[rows], positions=positions,
    )  # fmt: skip


def test_passes_over_the_disk_are_passes_over_memory(shard: Shard):
    problem, weights, streamed = make_problem(shard, MANY), make_weights(len(MANY)), on_disk(shard)
    torch.testing.assert_close(
        gradient(streamed, weights, problem)[0].weight,
        gradient(shard, weights, problem)[0].weight, rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    from_disk = of_rank(problem, streamed, same)
    for value, expected in zip(
        evaluate(from_disk, weights), evaluate(problem, weights), strict=True
    ):
        torch.testing.assert_close(value, expected)
    expected = out_of_fold(problem, weights)[streamed.positions]
    torch.testing.assert_close(out_of_fold(from_disk, weights), expected)
    torch.testing.assert_close(
        fit_standardizer(streamed, MANY, same).scale, fit_standardizer(shard, MANY, same).scale
    )


def epoch(shard: Shard, size: int, seed: int) -> list[list[int]]:
    """Return the numbers of the tiles in each batch of an epoch."""
    rng = np.random.default_rng(seed)
    return [
        [int(value) for piece in batch for value in piece.x[:, 0]]
        for batch in shard.batches(size, rng)
    ]


@pytest.mark.parametrize("rows", [1, 5, 33, 257])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_an_epoch_has_every_tile_once_however_many_share_it(rows: int, world: int):
    """Uneven shares, an empty one, a last short batch: the batches are those of one process."""
    shard = numbered(rows)
    batches = epoch(on_disk(shard), 8, seed=3)
    shares = [epoch(on_disk(shard, rank, world), 8, seed=3) for rank in range(world)]
    assert sorted(value for batch in batches for value in batch) == list(range(rows))
    assert max(map(len, batches)) <= 8
    together = [sorted(itertools.chain(*parts)) for parts in zip(*shares, strict=True)]
    assert together == [sorted(batch) for batch in batches]


def test_epochs_differ_and_mix_chunks():
    """A batch holds tiles of several chunks, and no two epochs cut them alike."""
    shard = on_disk(numbered(512))
    batches = epoch(shard, 16, seed=0)
    assert batches != epoch(shard, 16, seed=1)
    assert np.mean([len({value // 32 for value in batch}) for batch in batches]) > 2


def test_labels_stay_with_their_embeddings():
    for batch in on_disk(numbered(257), rank=1, world=2).batches(16, np.random.default_rng(0)):
        for piece in batch:
            number = piece.x[:, 0].long()
            torch.testing.assert_close(piece.target[0], number % 3)
            torch.testing.assert_close(piece.cluster, number // 10)


@pytest.mark.slow
def test_a_head_beside_others_is_the_head_alone(shard: Shard):
    problem = make_problem(on_disk(shard), MANY)
    together = train(problem, make_plan(4))
    for index in range(len(MANY)):
        alone = train(problem.select(one_head(index)), make_plan(4))
        difference = together.weights.weight[index] - alone.weights.weight[0]
        assert difference.norm() / alone.weights.weight[0].norm() < 1e-4


@pytest.mark.parametrize("world", [2, 4])
def test_processes_train_what_one_trains(shard: Shard, world: int):
    problem = make_problem(shard, MANY)
    expected = train(of_rank(problem, on_disk(shard), same), make_plan(3)).weights.weight

    shares = [on_disk(shard, rank, world) for rank in range(world)]

    def work(part: Shard, reduce: Reduce) -> Tensor:
        [streamed] = [each for each in shares if set(each.positions) == set(part.positions)]
        return train(of_rank(problem, streamed, reduce), make_plan(3)).weights.weight

    for weight in ranks(shard, world, work):
        torch.testing.assert_close(weight, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_optimum_is_that_in_memory():
    shard, classes = load_shard("digits")
    heads = make_heads(fold=[0, 1, 2, 3], weight_decay=[1e-1, 1e-2, 1e-2, 1e-3])
    result = solve(make_problem(on_disk(shard), heads, classes=classes))
    expected = solve(make_problem(shard, heads, classes=classes))
    torch.testing.assert_close(
        result.diagnostics["objective"], expected.diagnostics["objective"], rtol=1e-6, atol=0
    )


def test_closed_forms_are_those_in_memory(dataset: tuple[Shard, int]):
    shard, classes = dataset
    result, expected = (
        run(ClosedFormTrainer(make_problem(tiles, HEADS, classes=classes), "ridge"))
        for tiles in (on_disk(shard), shard)
    )
    torch.testing.assert_close(result.weights.weight, expected.weights.weight, rtol=1e-3, atol=1e-4)


def test_heads_learn_from_the_disk(shard: Shard):
    result = train(make_problem(on_disk(shard), make_heads()), make_plan(12))
    _, confusion = evaluate(make_problem(shard, make_heads()), result.weights)
    hits: Tensor = confusion.sum(dim=0).diagonal().sum()
    assert float(hits / confusion.sum()) > 0.85
    assert confusion.shape[-1] == CLASSES


def test_the_next_is_read_while_this_one_is_used():
    started = [threading.Event() for _ in range(3)]

    def read(number: int) -> int:
        started[number].set()
        return number

    for number in prefetch(read, range(3)):
        if number < 2:
            assert started[number + 1].wait(5)
