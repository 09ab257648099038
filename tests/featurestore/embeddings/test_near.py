"""Cells and comparison of near embeddings: none are parted in all grids, few others meet."""

import ml_dtypes
import numpy as np
import pytest

from featurestore.embeddings.near import GRIDS, TOLERANCE, are_near, cells, directions


def embeddings(rows: int, dim: int) -> np.ndarray:
    rng = np.random.default_rng(dim)
    lengths = 10 ** rng.uniform(-6, 6, (rows, 1))
    return (rng.normal(size=(rows, dim)) * lengths).astype(np.float32)


@pytest.mark.parametrize("dim", [1, 2, 3, 64, 1536])
def test_near_embeddings_share_a_cell_in_some_grid(dim: int):
    """Each component is moved as far as it may be, in any direction."""
    block = embeddings(2000, dim)
    most = TOLERANCE * np.linalg.norm(block, axis=1, keepdims=True)
    signs = np.random.default_rng(1).choice([-1, 1], block.shape)
    moved = (block + signs * most).astype(np.float32)
    onto = directions(dim)
    one, other = cells(block, onto), cells(moved, onto)
    assert one.shape == (2000, GRIDS)
    assert (one == other).any(axis=1).all()


def test_others_do_not_meet():
    block = embeddings(2000, 64)
    for grid in cells(block, directions(64)).T:
        assert len(np.unique(grid)) == 2000


def test_zero_and_minus_zero_are_one():
    zeros, minus = np.float32([[0, 0, 0], [1, 0, 2]]), np.float32([[-0.0, 0, -0.0], [1, -0.0, 2]])
    onto = directions(3)
    assert (cells(zeros, onto) == cells(minus, onto)).all()
    assert are_near(zeros, minus, "float32").all()


@pytest.mark.parametrize(
    ("other", "is_near"),
    [
        ([3.0, 4.0, 0.0], True),
        ([3.0, 4.0, 4e-6], True),  # of a length of 5
        ([3.0, 4.0, 6e-6], False),
        ([3.0, 4.00001, 0.0], False),
        ([-3.0, -4.0, 0.0], False),
    ],
)
def test_near_is_a_millionth_of_the_length_in_each_component(other: list, is_near: bool):
    assert are_near(np.float32([[3, 4, 0]]), np.float32([other]), "float32").tolist() == [is_near]


@pytest.mark.parametrize("storage", ["float16", "bfloat16"])
def test_what_storage_rounds_away_is_allowed(storage: str):
    kind = ml_dtypes.bfloat16 if storage == "bfloat16" else np.float16
    block = np.random.default_rng(0).normal(size=(500, 16)).astype(np.float32)
    stored = [(block * factor).astype(kind).astype(np.float32) for factor in (1, 1 + 1e-7)]
    assert are_near(*stored, storage).all()  # type: ignore[arg-type]
    assert not are_near(stored[0], stored[0] * np.float32(1.05), storage).any()  # type: ignore[arg-type]
