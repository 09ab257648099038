"""New groups, and new tiles, beside those that have their folds: which evens out the classes."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int64]
NEW = -1  # in place of a fold


def extended_groups(
    counts: Codes, known: Codes, k: int, seed: int, sizes: Sequence[float] | None = None
) -> Codes:
    """Give each new group a fold, one after another, beside the groups that keep theirs.

    The order and the criterion are those of `sklearn.model_selection.StratifiedGroupKFold`: the
    group whose classes differ most in number goes first, and takes the fold that leaves the shares
    of the classes most alike over the folds; of equal ones that with the fewest tiles, of those the
    first. It differs in what it starts from, and in taking sums that are equal but for rounding for
    equal.

    Parameters
    ----------
    counts
        Tiles per group and class, shape (groups, classes); no class is without a tile.
    known
        Fold of each group, shape (groups,); `NEW` where it has none.
    k
        Number of folds.
    seed
        Shuffles the new groups, so that it decides between those that are alike.
    sizes
        How large each fold is to be, in even shares; all alike by default.

    Returns
    -------
    ndarray of int, shape (groups,)

    Examples
    --------
    >>> counts = np.array([[4, 0], [0, 4], [4, 0], [0, 4]])
    >>> extended_groups(counts, np.array([0, 0, -1, -1]), k=2, seed=0).tolist()
    [0, 0, 1, 1]
    """
    folds, total = known.copy(), counts.sum(axis=0)
    wanted = np.ones(k) if sizes is None else np.asarray(sizes)
    held = known != NEW
    cells = np.zeros((k, counts.shape[1]))
    np.add.at(cells, known[held], counts[held])
    new = np.flatnonzero(~held)
    np.random.RandomState(seed).shuffle(new)  # as scikit-learn does
    for group in new[np.argsort(-np.std(counts[new], axis=1), kind="stable")]:
        proposed = cells + np.eye(k)[:, :, None] * counts[group]  # (fold it takes, fold, class)
        uneven = np.std(proposed / total / wanted[:, None], axis=1).mean(axis=1)
        alike = np.flatnonzero(np.isclose(uneven, uneven.min()))
        fold = alike[np.argmin(cells[alike].sum(axis=1) / wanted[alike])]
        folds[group] = fold
        cells[fold] += counts[group]
    return folds


def extended_tiles(labels: Codes, known: Codes, k: int, seed: int) -> Codes:
    """Give each new tile a fold, so that each label's tiles are spread as evenly as can be.

    Parameters
    ----------
    labels
        Class of each tile, shape (tiles,).
    known
        Fold of each tile, shape (tiles,); `NEW` where it has none.
    k
        Number of folds.
    seed
        Decides which of a label's new tiles goes where.

    Returns
    -------
    ndarray of int, shape (tiles,)

    Examples
    --------
    >>> extended_tiles(np.zeros(6, int), np.array([0, 0, 0, 1, -1, -1]), k=2, seed=0).tolist()
    [0, 0, 0, 1, 1, 1]
    """
    generator, folds = np.random.default_rng(seed), known.copy()
    load = np.bincount(known[known != NEW], minlength=k)
    order, ends = np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))
    for rows in np.split(order, ends[:-1]):
        new = rows[known[rows] == NEW]
        held = np.bincount(known[rows][known[rows] != NEW], minlength=k)
        shares = _filled(held, load, len(new))
        folds[new] = generator.permutation(np.repeat(np.arange(k), shares))
        load += shares
    return folds


def _filled(held: Codes, load: Codes, new: int) -> Codes:
    """Return how many new tiles of a label each fold takes: the emptiest are filled up first.

    Parameters
    ----------
    held, load
        Tiles of the label, and of all labels, in each fold; where folds hold as many of the label,
        those with the fewest of all come first.
    """
    ascending = np.sort(held)
    below = np.cumsum(ascending)
    folds = np.arange(1, len(held))
    # What it takes to fill the first 1, 2, ... folds up to the next one; then the level of all.
    filled = 1 + np.searchsorted(folds * ascending[1:] - below[:-1], new, side="right")
    level = (new + below[filled - 1]) // filled
    shares = np.maximum(level - held, 0)
    order = np.lexsort((load, held > level))
    shares[order[: new - shares.sum()]] += 1
    return shares
