"""Shares of tiles: each position has one owner, and batches do not depend on how many share."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_problems import numbered
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import share

from train.engine.sampler import batch_windows
from train.engine.shard import DROPPED, Shard


def numbers(*pieces: Shard) -> list[int]:
    """Return the numbers of the tiles in some pieces."""
    return [int(value) for piece in pieces for value in piece.x[:, 0]]


def assert_labels_belong(shard: Shard, everything: Shard) -> None:
    """Assert that each row has the columns of the tile that its embedding names."""
    rows = shard.x[:, 0].long()
    assert torch.equal(shard.target, everything.target[:, rows])
    assert torch.equal(shard.fold, everything.fold[:, rows])
    assert torch.equal(shard.cluster, everything.cluster[rows])
    assert torch.equal(shard.slide_rank, everything.slide_rank[rows])


@given(rows=st.integers(1, 60), world=st.integers(1, 25))
def test_a_position_is_owned_by_one_process(rows: int, world: int):
    shares = [share(numbered(rows), rank, world) for rank in range(world)]
    assert sorted(numbers(*shares)) == list(range(rows))
    for part in shares:
        assert len(part) == rows
        assert numbers(part) == part.positions.tolist() == sorted(part.positions)


@given(lanes=st.lists(st.integers(1, 9), max_size=6), edges=st.tuples(*[st.integers(0, 60)] * 2))
def test_slices_of_a_window_are_its_positions(lanes: list[int], edges: tuple[int, int]):
    """Of rows as on disk: in each lane a run of them."""
    rng, start, stop = np.random.default_rng(0), min(edges), max(edges)
    drawn = rng.permutation(60)[: sum(lanes)]
    by_lane = [np.sort(each) for each in np.split(drawn, np.cumsum(lanes))]
    positions = np.concatenate(by_lane)
    shard = replace(numbered(len(positions)), rows=60, positions=positions)
    slices = shard.local_slices(start, stop)
    assert len(slices) <= max(1, len(lanes))
    rows = np.concatenate([np.r_[each] for each in slices])
    inside = np.flatnonzero((positions >= start) & (positions < stop))
    assert rows.tolist() == inside.tolist()


@settings(deadline=None, max_examples=20)
@given(world=st.integers(1, 25), size=st.integers(1, 20))
def test_processes_share_every_batch_exactly(world: int, size: int):
    """Together they hold the rows that one process alone would: none twice, none lost."""
    everything = numbered(23)
    shares = [share(everything, rank, world) for rank in range(world)]
    for window in batch_windows(len(everything), size, np.random.default_rng(1)):
        for start, stop in window:
            pieces = [part.window(start, stop) for part in shares]
            assert sorted(numbers(*pieces)) == numbers(everything.window(start, stop))
            for piece in pieces:
                assert_labels_belong(piece, everything)
    epochs = [list(part.batches(size, np.random.default_rng(1))) for part in shares]
    for batch, *parts in zip(
        everything.batches(size, np.random.default_rng(1)), *epochs, strict=True
    ):
        together = [piece for part in parts for piece in part]
        assert sorted(numbers(*together)) == sorted(numbers(*batch))
        for piece in together:
            assert_labels_belong(piece, everything)


@pytest.mark.parametrize("world", [1, 3])
def test_blocks_are_the_local_rows_in_order(world: int):
    shard = share(numbered(50), world - 1, world)
    blocks = list(shard.blocks(7))
    assert numbers(*blocks) == numbers(shard)
    assert max(block.local_rows for block in blocks) == 7
    for block in blocks:
        assert_labels_belong(block, numbered(50))


def test_rows_that_are_not_valid_are_dropped():
    everything, rows = numbered(50), torch.tensor([4, 40, 3])
    masked = everything.masked(rows, torch.tensor([True, False, True]))
    assert numbers(masked) == [4, 40, 3]
    assert masked.fold.tolist() == [[0, DROPPED, 1]]
    assert torch.equal(masked.target, everything.target[:, rows])
    assert torch.equal(masked.cluster, everything.cluster[rows])
