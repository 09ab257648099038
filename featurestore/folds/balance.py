"""Folds of few, huge groups: who goes where, decided by a solver instead of one after another.

scikit-learn's `StratifiedGroupKFold` deals groups greedily; with few groups it leaves folds uneven,
or without a class. The assignment that is even is a mixed-integer programme on the table of groups
and classes, which SciPy's HiGHS solves.
"""

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Folds = npt.NDArray[np.int64]

NODES = 200  # of the search tree: a limit in time would give each machine folds of its own
GAP = 0.01  # relative: closer to the best possible is no use to anybody


def imbalance(counts: Counts, folds: Folds, k: int) -> float:
    """Return how uneven folds are: |tiles - even share| / even share, the mean over fold x class.

    Parameters
    ----------
    counts
        Tiles per group and class, shape (groups, classes).
    folds
        Fold of each group, shape (groups,).
    k
        Number of folds.
    """
    even = np.maximum(counts.sum(axis=0), 1) / k
    return float((np.abs(_per_fold(counts, folds, k) - even) / even).mean())


def empty_cells(counts: Counts, folds: Folds, k: int) -> list[tuple[int, int]]:
    """Return (fold, class) of each fold without a tile of a class that is anywhere."""
    missing = (_per_fold(counts, folds, k) == 0) & (counts.sum(axis=0) > 0)
    return [(int(fold), int(kind)) for fold, kind in np.argwhere(missing)]


def _per_fold(counts: Counts, folds: Folds, k: int) -> Counts:
    table = np.zeros((k, counts.shape[1]), dtype=np.int64)
    np.add.at(table, folds, counts)
    return table


def optimal_folds(counts: Counts, k: int, start: Folds) -> Folds:
    """Assign groups to folds: no fold without a class if that can be, then the least `imbalance`.

    The search ends within `GAP` of the optimum or after `NODES` nodes; both depend on the input
    alone, so every machine gets the same folds.

    Parameters
    ----------
    counts
        Tiles per group and class, shape (groups, classes).
    k
        Number of folds.
    start
        An assignment to improve on, returned if the search finds none that is better.

    Returns
    -------
    ndarray of int, shape (groups,)
    """
    improved = _solved(counts, k)
    candidates = [start] if improved is None else [start, improved]
    return min(
        candidates,
        key=lambda folds: (len(empty_cells(counts, folds, k)), imbalance(counts, folds, k)),
    )


def _solved(counts: Counts, k: int) -> Folds | None:
    """Solve the programme over x[group, fold], the deviations and the empty cells."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import bmat, csr_array, eye_array, kron

    groups, classes = counts.shape
    cells = k * classes
    shares = counts / np.maximum(counts.sum(axis=0), 1)  # of each class, so rare ones count as much
    # Rows are cells (fold, class), columns x in the order of groups, then folds.
    filled = kron(shares.T, eye_array(k)).tocsr()
    any_tile = kron((counts > 0).astype(float).T, eye_array(k)).tocsr()
    one, none = eye_array(cells), csr_array((cells, cells))
    once = kron(eye_array(groups), np.ones((1, k)))
    rules = [
        LinearConstraint(bmat([[once, csr_array((groups, 2 * cells))]]), 1, 1),
        LinearConstraint(bmat([[filled, one, none]]), 1 / k, np.inf),  # share + d >= 1/k
        LinearConstraint(bmat([[filled, -one, none]]), -np.inf, 1 / k),  # share - d <= 1/k
        LinearConstraint(
            bmat([[any_tile, none, one]]), 1, np.inf
        ),  # some group, or the cell is empty
    ]
    cost = np.concatenate([np.zeros(groups * k), np.ones(cells), np.full(cells, 2.0 * cells)])
    upper = np.ones(len(cost))
    upper[: groups * k] = _unlike(counts, k).ravel()
    # Cells that stay empty whoever goes where weigh so much that a share of them hides the rest.
    scarce = bool(((counts > 0).sum(axis=0) < k).any())
    answer = milp(
        cost,
        integrality=np.repeat([1, 0, 1], [groups * k, cells, cells]),
        bounds=Bounds(0, upper),
        constraints=rules,
        options={"node_limit": NODES, "mip_rel_gap": 0 if scarce else GAP},
    )
    if answer.x is None:
        return None
    return answer.x[: groups * k].reshape(groups, k).argmax(axis=1)


def _unlike(counts: Counts, k: int) -> npt.NDArray[np.float64]:
    """Return which folds a group may take: the i-th largest one of the first i + 1.

    Folds have no names, so k! assignments are the same one; this leaves few of them to search.
    """
    allowed = np.ones((len(counts), k))
    largest = np.argsort(-counts.sum(axis=1), kind="stable")
    for place, group in enumerate(largest[: k - 1]):
        allowed[group, place + 1 :] = 0
    return allowed
