"""One embedding under two keys, on two sides: candidates by their cells, then compared by value."""

import warnings
from collections.abc import Mapping

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.backend import engine, errors
from featurestore.embeddings import near
from featurestore.errors import FeatureStoreWarning
from featurestore.snapshots.layout import Matrices
from featurestore.views.folds import KEY
from featurestore.views.joins import look_up
from featurestore.views.leakage import duplicate_embeddings, kept_tiles

COMPARED = 1024  # embeddings held in memory at a time, to compare them
ROUNDS = 8  # tiles of a cell that all of it is compared with, one after the other

Codes = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def duplicates(fates_of: Mapping[str, ir.Table], matrices: Matrices) -> pa.Table:
    """Return pairs of kept tiles on two sides whose embeddings are near.

    A tile is compared with the first of its cell, and what is not near that with the next, in
    `ROUNDS` rounds, so that the cost is linear even where all embeddings are alike. A warning says
    where so many differ so little that rounds were too few.

    Parameters
    ----------
    fates_of
        The fates of each cohort, with their rows, all of one engine.
    matrices
        The embeddings of each cohort.

    Returns
    -------
    pa.Table
        ``slide_id, x, y, side, other_slide_id, other_x, other_y, other_side``: each tile that has
        a near one on another side, once, with one of those; ``side`` is a fold or ``test``.
    """
    near_pairs, crowded = [], 0
    known = np.zeros(0, dtype=np.int64)
    sides = engine.keep(_sides(fates_of, matrices))
    for grid in near.CELLS:
        one = sides.select(*KEY, "row", "side", "number", cell=grid)
        with errors.translated():
            candidates = duplicate_embeddings(one).to_pyarrow()
        candidates = _still_open(candidates, known)
        ours, theirs, unsettled = _compared(candidates, matrices)
        near_pairs.append(_pairs(candidates, ours, theirs))
        known = np.union1d(known, near_pairs[-1]["number"].to_numpy())
        crowded = max(crowded, unsettled)
    engine.release(sides)
    if crowded:
        warnings.warn(
            f"{crowded:,} tiles have embeddings so alike that each was compared with {ROUNDS} "
            "others alone: near duplicates across the split may have been missed",
            FeatureStoreWarning,
            stacklevel=2,
        )
    pairs = pa.concat_tables(near_pairs)
    _, first = np.unique(pairs["number"].to_numpy(), return_index=True)  # of several grids
    return pairs.take(pa.array(np.sort(first))).drop_columns(["number"])


def _sides(fates_of: Mapping[str, ir.Table], matrices: Matrices) -> ir.Table:
    """Return the kept tiles of all cohorts: key, ``side``, the row, its cells, and a number."""
    sides, number = [], 0
    for prefix, matrix in matrices.items():
        # Embeddings of another length are nobody's duplicates.
        if matrix.dim == matrices[""].dim:
            fates = kept_tiles(fates_of[prefix])
            side = ibis.literal("test") if prefix else fates.fold.cast("string")
            keys = matrix.keys(fates.get_backend())
            placed = fates.select(*KEY, "row", side=side, number=fates.row + number)
            sides.append(look_up(placed, keys, ["row"], *near.CELLS))
        number += matrix.rows
    return ibis.union(*sides) if len(sides) > 1 else sides[0]


def _still_open(candidates: pa.Table, known: Codes) -> pa.Table:
    """Return the tiles of those cells of which not all are duplicates by an earlier grid.

    Parameters
    ----------
    known
        The numbers of the duplicates.
    """
    cell, is_open = _codes(candidates["cell"]), ~np.isin(candidates["number"].to_numpy(), known)
    return candidates.filter(np.isin(cell, cell[is_open]))


def _pairs(candidates: pa.Table, ours: Codes, theirs: Codes) -> pa.Table:
    names = [*KEY, "side"]
    pairs, others = candidates.take(ours).select([*names, "number"]), candidates.take(theirs)
    for name in names:
        pairs = pairs.append_column(f"other_{name}", others[name])
    return pairs


def _compared(candidates: pa.Table, matrices: Matrices) -> tuple[Codes, Codes, int]:
    """Compare the tiles of each cell.

    Parameters
    ----------
    candidates
        Those of one cell together.

    Returns
    -------
    ours, theirs
        The places of tiles, and of a near one on another side of each.
    unsettled
        How many tiles all rounds have left over.
    """
    cell = _codes(candidates["cell"])
    side = _codes(candidates["side"])
    settled, partner = np.zeros(len(cell), dtype=bool), np.full(len(cell), -1)
    for _ in range(ROUNDS):
        left = np.flatnonzero(~settled)
        if not len(left):
            break
        first = np.full(cell.max() + 1, -1)
        first[cell[left[::-1]]] = left[::-1]  # the last one written, the first in order, stays
        rows = np.flatnonzero(first[cell] >= 0)
        rows = rows[_near(candidates, matrices, rows, first[cell[rows]])]
        settled[rows] = True
        opposite = rows[side[rows] != side[first[cell[rows]]]]
        partner[opposite] = first[cell[opposite]]
        # Those on the side of the first one are near to who is opposite, if anybody is.
        across = np.full(len(first), -1)
        across[cell[opposite[::-1]]] = opposite[::-1]
        with_it = rows[side[rows] == side[first[cell[rows]]]]
        with_it = with_it[across[cell[with_it]] >= 0]
        partner[with_it] = across[cell[with_it]]
    ours = np.flatnonzero(partner >= 0)
    return ours, partner[ours], int((~settled).sum())


def _codes(column: pa.ChunkedArray) -> Codes:
    return column.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)


def _near(candidates: pa.Table, matrices: Matrices, ours: Codes, theirs: Codes) -> Mask:
    """Return which of some pairs of candidates are near."""
    storage = matrices[""].storage
    test, rows = np.asarray(pc.equal(candidates["side"], "test")), candidates["row"].to_numpy()

    def vectors(places: Codes) -> npt.NDArray[np.float32]:
        distinct, where = np.unique(places, return_inverse=True)  # the first of a cell is repeated
        block = np.empty((len(distinct), matrices[""].dim), dtype=np.float32)
        for prefix, mask in (("", ~test[distinct]), ("test_", test[distinct])):
            if mask.any():
                block[mask] = matrices[prefix].read_rows(rows[distinct[mask]])
        return block[where]

    starts = range(0, len(ours), COMPARED)
    blocks = [
        (ours[start : start + COMPARED], theirs[start : start + COMPARED]) for start in starts
    ]
    return np.concatenate([
        near.are_near(vectors(one), vectors(other), storage) for one, other in blocks
    ])  # fmt: skip
