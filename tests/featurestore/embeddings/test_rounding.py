"""Rounding agrees with NumPy, bit by bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.embeddings.layout import STORED
from featurestore.embeddings.rounding import Rounding

EDGES = [
    0.0, -0.0, 2**-14, -(2**-14), 2**-24, 2**-25, 1e-8, 65504.0, 65519.0, 65520.0, -65520.0, 1e9,
    np.inf, -np.inf, np.nan, 1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-11 + 2**-20, 2047.5, 6.1e-5,
]  # fmt: skip


def agrees(block: np.ndarray, storage: str) -> None:
    stored, rounded = Rounding(*block.shape, storage)(block)
    with np.errstate(over="ignore"):
        expected = block.astype(STORED[storage])
    assert stored.tobytes() == expected.tobytes()
    np.testing.assert_array_equal(rounded, expected.astype(np.float32))


@pytest.mark.parametrize("storage", ["float16", "bfloat16", "float32"])
def test_edges(storage: str):
    agrees(np.array([EDGES, EDGES[::-1]], dtype=np.float32), storage)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=64))
def test_any_single_float_becomes_the_nearest_half_float(patterns: list[int]):
    values = np.array([patterns], dtype=np.uint32).view(np.float32)
    agrees(np.where(np.isnan(values), np.float32(np.nan), values), "float16")


def test_a_block_of_columns_is_rounded_as_well():
    agrees(np.arange(24, dtype=np.float32).reshape(4, 6)[:, ::2], "float16")
