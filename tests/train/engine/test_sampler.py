"""Batches of an epoch: every position once, and no two epochs alike."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from train.engine.sampler import batch_windows


@given(rows=st.integers(1, 200), size=st.integers(1, 64), seed=st.integers(0, 9))
def test_batches_of_an_epoch_cover_every_position_once(rows: int, size: int, seed: int):
    epoch = list(batch_windows(rows, size, np.random.default_rng(seed)))
    positions = [p for window in epoch for start, stop in window for p in range(start, stop)]
    assert sorted(positions) == list(range(rows))
    assert len(epoch) == -(-rows // size)


def test_epochs_differ_in_their_batches():
    rng = np.random.default_rng(0)
    assert list(batch_windows(100, 10, rng)) != list(batch_windows(100, 10, rng))
