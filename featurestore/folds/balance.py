"""Folds of few, huge groups: who goes where, decided as a whole instead of one after another.

scikit-learn's `StratifiedGroupKFold` deals groups greedily; with few groups it leaves folds uneven,
or without a class. An even assignment is sought by a mixed-integer programme on the table of groups
and classes, which SciPy's HiGHS solves, and by exchanging groups between folds until no exchange
helps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Folds = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Free = npt.NDArray[np.bool_]

NODES = 200  # of the search tree: a limit in time would give each machine folds of its own
GAP = 0.01  # relative: closer to the best possible is no use to anybody
SOLVED = 100  # groups: with more of them exchanges alone end as even, in a fraction of the time
LEAST = 1e-12  # of an imbalance squared: a smaller gain is one of rounding


def imbalance(counts: Counts, folds: Folds, k: int) -> float:
    """Return how uneven folds are: the root mean square of (tiles - even share) / even share.

    The mean is over folds; all tiles together weigh as much in it as all classes.

    Parameters
    ----------
    counts
        Tiles per group and class, shape (groups, classes).
    folds
        Fold of each group, shape (groups,).
    k
        Number of folds.
    """
    return float(np.sqrt(np.square(_sums(_scaled(counts, k), folds, k) - _even(counts, k)).sum()))


def _scaled(counts: Counts, k: int) -> Floats:
    """Return what each group adds to the classes, and to all tiles, of a fold.

    In units in which the squares of a fold's deviations from `_even` sum to its part of the
    squared `imbalance`.
    """
    return _with_total(counts) * _units(counts, k)


def _even(counts: Counts, k: int) -> Floats:
    return _with_total(counts).sum(axis=0) / k * _units(counts, k)


def _units(counts: Counts, k: int) -> Floats:
    classes = counts.shape[1]
    weight = np.append(np.full(classes, 0.5 / classes), 0.5)
    even = np.maximum(_with_total(counts).sum(axis=0), 1) / k
    return np.sqrt(weight / k) / even


def _with_total(counts: Counts) -> Counts:
    return np.column_stack([counts, counts.sum(axis=1)])


def empty_cells(counts: Counts, folds: Folds, k: int) -> list[tuple[int, int]]:
    """Return (fold, class) of each fold without a tile of a class that is anywhere."""
    missing = (_sums(counts, folds, k) == 0) & (counts.sum(axis=0) > 0)
    return [(int(fold), int(kind)) for fold, kind in np.argwhere(missing)]


def _sums(rows: npt.NDArray, folds: Folds, k: int) -> npt.NDArray:
    """Sum the rows of groups by fold."""
    table = np.zeros((k, rows.shape[1]), dtype=rows.dtype)
    np.add.at(table, folds, rows)
    return table


def optimal_folds(counts: Counts, k: int, start: Folds) -> Folds:
    """Assign groups to folds: no fold without a class if that can be, then a small `imbalance`.

    No group moved to another fold, and no two groups exchanged, would make the result better. It
    depends on the input alone, so every machine gets the same folds. The programme, which finds
    folds without an empty cell wherever there are any, is solved for at most `SOLVED` groups; a
    round of exchanges takes time in proportion to groups x folds x classes, but for a logarithm.

    Parameters
    ----------
    counts
        Tiles per group and class, shape (groups, classes).
    k
        Number of folds.
    start
        An assignment to improve on, kept where nothing is better.

    Returns
    -------
    ndarray of int, shape (groups,)
    """
    solved = _solved(counts, k) if len(counts) <= SOLVED else None
    starts = [start] if solved is None else [start, solved]
    return min(
        (exchanged(counts, k, folds) for folds in starts),
        key=lambda folds: (len(empty_cells(counts, folds, k)), imbalance(counts, folds, k)),
    )


def exchanged(
    counts: Counts,
    k: int,
    start: Folds,
    free: Free | None = None,
    sizes: Sequence[float] | None = None,
) -> Folds:
    """Exchange groups between folds, two folds after two, until no exchange is an improvement.

    To move a group is to exchange it for nobody.

    Parameters
    ----------
    counts, k, start
        As of `optimal_folds`.
    free
        Which groups may move, shape (groups,); all by default.
    sizes
        How large each fold is to be, in even shares; all alike by default.
    """
    everybody = np.ones(len(start), dtype=bool)
    exchanges = Exchanges(
        counts, k, start.copy(), everybody if free is None else free, sizes or [1.0] * k
    )
    pairs = list(combinations(range(k), 2))
    while sum(exchanges.improve(*pair) for pair in pairs):
        pass
    return exchanges.folds


@dataclass
class Exchanges:
    """An assignment that is being improved.

    Parameters
    ----------
    counts, k
        As of `optimal_folds`.
    folds
        Fold of each group, changed in place.
    free
        Which groups may move.
    sizes
        How large each fold is to be, in even shares.
    """

    counts: Counts
    k: int
    folds: Folds
    free: Free
    sizes: Sequence[float]

    def __post_init__(self) -> None:
        nobody = np.zeros((1, self.counts.shape[1]), dtype=np.int64)
        self.points = np.vstack([_scaled(self.counts, self.k), np.zeros(self.counts.shape[1] + 1)])
        self.even = _even(self.counts, self.k)
        self.holds = (np.vstack([self.counts, nobody]) > 0).astype(np.int64)

    def improve(self, one: int, other: int) -> bool:
        """Make the best exchange between two folds; return whether there was one that helps."""
        ours, theirs = (np.flatnonzero(self.folds == fold) for fold in (one, other))
        asked = self.even * (self.sizes[one] - self.sizes[other])
        gap = (self.points[ours].sum(axis=0) - self.points[theirs].sum(axis=0) - asked) / 2
        left, right = self._worth_a_look(ours, theirs, gap)
        empty = self._empty(ours, left, right) + self._empty(theirs, right, left)
        # |a - b - gap|^2 - |gap|^2 is half of what giving a for b adds to the squared imbalance.
        worse = np.square(self.points[left] - self.points[right] - gap).sum(axis=1) - gap @ gap
        worse[np.abs(worse) < LEAST] = 0
        best = np.lexsort((worse, empty))[0]
        if (empty[best], worse[best]) >= (0, 0):
            return False
        nobody = len(self.folds)
        for group, fold in ((left[best], other), (right[best], one)):
            if group != nobody:
                self.folds[group] = fold
        return True

    def _worth_a_look(self, ours: Folds, theirs: Folds, gap: Floats) -> tuple[Folds, Folds]:
        """Return exchanges among which the best is, or one that fills a cell: their groups.

        An exchange empties a cell only if it takes the one group that holds a class in its fold;
        those are few, and are tried with everybody. If no move fills a cell, none but those can.
        Of the other exchanges, the best gives each group for the one nearest to what it is beyond
        the gap between the folds.
        """
        from scipy.spatial import KDTree

        nobody = np.array([len(self.folds)])  # exchanged for nobody, nothing changes
        sole_ours, sole_theirs = self._sole_holders(ours), self._sole_holders(theirs)
        ours, theirs, sole_ours, sole_theirs = (
            groups[self.free[groups]] for groups in (ours, theirs, sole_ours, sole_theirs)
        )
        pairs = [
            np.stack(np.meshgrid(a, b, indexing="ij")).reshape(2, -1)
            for a, b in (
                (nobody, nobody), (ours, nobody), (nobody, theirs),
                (sole_ours, theirs), (ours, sole_theirs),
            )
        ]  # fmt: skip
        others, partners = np.setdiff1d(ours, sole_ours), np.setdiff1d(theirs, sole_theirs)
        if len(others) and len(partners):
            _, nearest = KDTree(self.points[partners]).query(self.points[others] - gap)
            pairs.append(np.stack([others, partners[nearest]]))
        left, right = np.hstack(pairs)
        return left, right

    def _sole_holders(self, groups: Folds) -> Folds:
        """Return those groups of a fold that alone hold some class in it."""
        holds = self.holds[groups]
        return groups[(holds[:, holds.sum(axis=0) == 1] > 0).any(axis=1)]

    def _empty(self, groups: Folds, leaving: Folds, entering: Folds) -> Counts:
        """Return how many more classes a fold would be without, for each exchange."""
        before = self.holds[groups].sum(axis=0)
        after = before - self.holds[leaving] + self.holds[entering]
        return (after == 0).sum(axis=1) - (before == 0).sum()


def _solved(counts: Counts, k: int) -> Folds | None:
    """Solve the programme over x[group, fold], the deviations and the empty cells."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import bmat, csr_array, eye_array, kron

    groups, classes = counts.shape
    cells, sums = k * classes, k * (classes + 1)
    # Of each class, so that rare ones count as much; and of all tiles.
    shares = _with_total(counts) / np.maximum(_with_total(counts).sum(axis=0), 1)
    # Rows are cells (class, fold), columns x in the order of groups, then folds.
    filled = kron(shares.T, eye_array(k)).tocsr()
    any_tile = kron((counts > 0).astype(float).T, eye_array(k)).tocsr()
    off, none = eye_array(sums), csr_array((sums, cells))
    once = kron(eye_array(groups), np.ones((1, k)))
    some = bmat([[any_tile, csr_array((cells, sums)), eye_array(cells)]])
    rules = [
        LinearConstraint(bmat([[once, csr_array((groups, sums + cells))]]), 1, 1),
        LinearConstraint(bmat([[filled, off, none]]), 1 / k, np.inf),  # share + d >= 1/k
        LinearConstraint(bmat([[filled, -off, none]]), -np.inf, 1 / k),  # share - d <= 1/k
        LinearConstraint(some, 1, np.inf),  # some group, or the cell is empty
    ]
    uneven = np.append(np.ones(cells), np.full(k, float(classes)))
    cost = np.concatenate([np.zeros(groups * k), uneven, np.full(cells, 4.0 * cells)])
    upper = np.ones(len(cost))
    upper[: groups * k] = _unlike(counts, k).ravel()
    # Cells that stay empty whoever goes where weigh so much that a share of them hides the rest.
    scarce = bool(((counts > 0).sum(axis=0) < k).any())
    answer = milp(
        cost,
        integrality=np.repeat([1, 0, 1], [groups * k, sums, cells]),
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
