"""Embeddings that stay on disk: the same tiles, losses and heads as in memory."""

import itertools
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from packs import CLASSES, MANY, aims, heads, plan, pool, same, start
from ranks import ranks
from solutions import pack, solved, tiles
from torch import Tensor

from train.engine import sampler
from train.engine import shard as pools
from train.engine.evaluate import evaluate, out_of_fold
from train.engine.shard import Reduce, Shard
from train.engine.standardizer import fit_standardizer
from train.engine.stepper import gradient
from train.engine.stream import Stream, ahead
from train.engine.trainer import train

__all__ = ["pool"]  # a fixture


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read little at a time, so that few tiles are many pieces."""
    monkeypatch.setattr(pools, "SECTION", 100)
    monkeypatch.setattr(sampler, "CHUNK", 32)


def on_disk(whole: Shard, rank: int = 0, world: int = 1) -> Shard:
    """Return a process's share of a pool, read when it is asked for."""
    mine = slice(rank, None, world)
    rows = np.arange(whole.rows)[mine]
    x = whole.x.numpy()
    stream = Stream(lambda some, out: np.copyto(out, x[some]), rows, x.shape[1], lambda part: part)
    return replace(
        whole, x=stream, target=whole.target[:, mine], fold=whole.fold[:, mine],
        slide=whole.slide[mine], draw=whole.draw[mine], rank=rank, world=world,
    )  # fmt: skip


def test_passes_over_the_disk_are_passes_over_memory(pool: Shard):
    own, affine, streamed = aims(pool, MANY), start(len(MANY)), on_disk(pool)
    torch.testing.assert_close(
        gradient(streamed, affine, MANY, own)[0].weight,
        gradient(pool, affine, MANY, own)[0].weight, rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    for found, expected in zip(
        evaluate(streamed, affine, MANY, own, same), evaluate(pool, affine, MANY, own, same),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(out_of_fold(streamed, affine, MANY), out_of_fold(pool, affine, MANY))
    torch.testing.assert_close(
        fit_standardizer(streamed, MANY, same).scale, fit_standardizer(pool, MANY, same).scale
    )


def numbered(rows: int) -> Shard:
    """Return tiles whose embedding is their own number."""
    number = torch.arange(rows)
    return Shard(
        x=number[:, None].float(), target=number[None] % 3, fold=number[None] % 2,
        slide=number // 10, draw=torch.ones(rows), slides=rows // 10 + 1, rows=rows,
    )  # fmt: skip


def drawn(share: Shard, size: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [
        [int(value) for piece in batch for value in piece.x[:, 0]]
        for batch in share.batches(size, rng)
    ]


@pytest.mark.parametrize("rows", [1, 5, 33, 257])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_an_epoch_has_every_tile_once_however_many_share_it(rows: int, world: int):
    """Uneven shares, an empty one, a last short batch: the batches are those of one process."""
    whole = numbered(rows)
    one = drawn(on_disk(whole), 8, seed=3)
    shares = [drawn(on_disk(whole, rank, world), 8, seed=3) for rank in range(world)]
    assert sorted(value for batch in one for value in batch) == list(range(rows))
    assert max(map(len, one)) <= 8
    together = [sorted(itertools.chain(*parts)) for parts in zip(*shares, strict=True)]
    assert together == [sorted(batch) for batch in one]


def test_epochs_differ_and_mix_chunks():
    """A batch holds tiles of several chunks, and no two epochs cut them alike."""
    whole = on_disk(numbered(512))
    epoch, other = drawn(whole, 16, seed=0), drawn(whole, 16, seed=1)
    assert epoch != other
    assert np.mean([len({value // 32 for value in batch}) for batch in epoch]) > 2


def test_labels_stay_with_their_embeddings():
    for batch in on_disk(numbered(257), rank=1, world=2).batches(16, np.random.default_rng(0)):
        for piece in batch:
            number = piece.x[:, 0].long()
            torch.testing.assert_close(piece.target[0], number % 3)
            torch.testing.assert_close(piece.slide, number // 10)


def test_a_head_in_a_pack_is_the_head_alone(pool: Shard):
    streamed, own, first = on_disk(pool), aims(pool, MANY), start(len(MANY))
    together = train(streamed, MANY, own, first, plan(4), same)
    for head in range(len(MANY)):
        place = torch.tensor([head])
        alone = train(streamed, MANY.of(place), own.of(place), first.of(place), plan(4), same)
        difference = together.affine.weight[head] - alone.affine.weight[0]
        assert difference.norm() / alone.affine.weight[0].norm() < 1e-4


@pytest.mark.parametrize("world", [2, 4])
def test_processes_train_what_one_trains(pool: Shard, world: int):
    own = aims(pool, MANY)
    one = train(on_disk(pool), MANY, own, start(len(MANY)), plan(3), same).affine.weight

    def work(share: Shard, total: Reduce) -> Tensor:
        streamed = on_disk(pool, share.rank, world)
        return train(streamed, MANY, own, start(len(MANY)), plan(3), total).affine.weight

    for weight in ranks(pool, world, work):
        torch.testing.assert_close(weight, one, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_optimum_is_that_in_memory():
    whole, classes = tiles("digits")
    five = pack([0, 1, 2, 3], [1e-1, 1e-2, 1e-2, 1e-3])
    found, _ = solved(on_disk(whole), five, classes)
    expected, _ = solved(whole, five, classes)
    torch.testing.assert_close(found.objective, expected.objective, rtol=1e-6, atol=0)


def test_heads_learn_from_the_disk(pool: Shard):
    one = heads()
    fitted = train(on_disk(pool), one, aims(pool, one), start(1), plan(12), same)
    _, cube = evaluate(pool, fitted.affine, one, aims(pool, one), same)
    hits: Tensor = cube.sum(dim=(0, 1)).diagonal().sum()
    assert float(hits / cube.sum()) > 0.85
    assert cube.shape[-1] == CLASSES


def test_the_next_is_read_while_this_one_is_used():
    started = [threading.Event() for _ in range(3)]

    def read(number: int) -> int:
        started[number].set()
        return number

    for number in ahead(read, range(3)):
        if number < 2:
            assert started[number + 1].wait(5)
