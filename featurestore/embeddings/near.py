"""Embeddings that are equal but for rounding: which rows are worth comparing, in linear time.

Rows are put into cells by random projections of their directions, after M. Datar et al. (2004),
"Locality-sensitive hashing scheme based on p-stable distributions", in several grids that lie a
part of a cell apart. Of one projection, the edges of all grids are further apart than two near rows
can be: it parts them in one grid at most. There is one grid more than projections, so near rows
share a cell in one of the grids at least. Rows that share a cell are then compared by value.
"""

from functools import cache

import ml_dtypes
import numpy as np
import numpy.typing as npt

from featurestore.embeddings.layout import STORED
from featurestore.spec.literals import Storage

TOLERANCE = 1e-6  # of a component, in lengths of the embedding
PROJECTIONS = 3  # a million rows of 2,560 numbers are then rarely in a cell by chance
GRIDS = PROJECTIONS + 1
SEED = 20240301
# Directions of near rows are at most 2 sqrt(dim) TOLERANCE apart, of which a random projection
# shows 6 / sqrt(dim) but once in 10^9: 12 TOLERANCE. The rest is for rounding to single floats.
REACH = 16 * TOLERANCE
FACTORS = np.random.default_rng(SEED).integers(2**62, size=PROJECTIONS) | 1

CELLS = tuple(f"cell_{grid}" for grid in range(GRIDS))
"""The columns of a matrix's keys that hold the cell of a row in each grid."""


@cache
def directions(dim: int) -> npt.NDArray[np.float32]:
    """Return the unit vectors that embeddings are projected on, shape (PROJECTIONS, dim)."""
    draws = np.random.default_rng(SEED).normal(size=(dim, PROJECTIONS))
    return np.ascontiguousarray((draws / np.linalg.norm(draws, axis=0)).T, dtype=np.float32)


def cells(block: npt.NDArray[np.float32], onto: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return the cell of each row in each grid, shape (rows, GRIDS).

    Row by row: of a product of matrices each of the threads that convert would start threads of
    its own, which wait for each other ten times as long as they compute.

    Parameters
    ----------
    block
        Embeddings, shape (rows, dim).
    onto
        `directions` of that dimension.
    """
    with np.errstate(all="ignore"):  # what is not finite is refused elsewhere
        length = np.sqrt(np.vecdot(block, block))
        length[length == 0] = 1
        along = np.stack([np.vecdot(block, direction) for direction in onto], axis=1)
        projected = along / length[:, None] / np.float32(GRIDS * REACH)
        shifts = np.arange(GRIDS, dtype=np.float32) / np.float32(GRIDS)
        corners = np.floor(projected[:, None, :] + shifts[:, None]).astype(np.int64)
    return corners @ FACTORS  # wraps; two cells of one number cost a comparison


def are_near(
    one: npt.NDArray[np.float32], other: npt.NDArray[np.float32], storage: Storage
) -> npt.NDArray[np.bool_]:
    """Return which rows of two blocks are near: each component within `TOLERANCE` of the length.

    What the type in which they are stored rounds away is allowed as well. 0.0 equals -0.0.

    Parameters
    ----------
    one, other
        Embeddings out of a matrix, shape (rows, dim).
    storage
        The type in which that has them.
    """
    one, other = one.astype(np.float64), other.astype(np.float64)  # no square is too large
    length = np.sqrt(np.einsum("ij,ij->i", one, one))
    rounding = float(ml_dtypes.finfo(STORED[storage]).eps) * np.abs(one)
    return (np.abs(one - other) <= TOLERANCE * length[:, None] + rounding).all(axis=1)
