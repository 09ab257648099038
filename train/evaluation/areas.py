"""Areas under ROC and precision-recall curves: of all tiles, and without each unit's."""

import numpy as np
import numpy.typing as npt

from train.engine.confusion import Counts
from train.evaluation.jackknife import Floats

STEPS = 512  # of a class's probability, for what leaving out a unit changes
AT_ONCE = 1024  # units in memory


def areas(target: Counts, probabilities: npt.NDArray[np.float32]) -> Floats:
    """Return area under the ROC curve and average precision of each class, shape (2, K).

    Each class against the others, tiles of equal probability tied, as scikit-learn's
    ``roc_auc_score`` and ``average_precision_score``; not a number for a class that no tile or
    every tile has.

    Parameters
    ----------
    target
        Class index, shape (tiles,).
    probabilities
        Shape (tiles, K).
    """
    by_class = np.empty((2, probabilities.shape[1]))
    for index in range(probabilities.shape[1]):
        values, step = np.unique(probabilities[:, index], return_inverse=True)
        of_class = np.bincount(step, target == index, minlength=len(values))
        others = np.bincount(step, target != index, minlength=len(values))
        by_class[:, index] = areas_of_steps(others, of_class)
    return by_class


def areas_left_out(
    target: Counts,
    probabilities: npt.NDArray[np.float32],
    cluster: Counts,
    clusters: int,
    exact: Floats,
) -> Floats:
    """Return the areas of all tiles but those of each cluster, shape (clusters, 2, K).

    The exact areas, and what leaving out a cluster changes where probabilities are rounded to
    `STEPS` steps: linear in tiles and clusters.

    Parameters
    ----------
    cluster
        Number of each tile's cluster, shape (tiles,).
    clusters
        How many there are.
    exact
        The areas of all tiles.
    """
    left_out = np.empty((clusters, *exact.shape))
    order = np.argsort(cluster, kind="stable")
    starts = np.searchsorted(cluster[order], np.arange(0, clusters, AT_ONCE))
    for index in range(probabilities.shape[1]):
        probability = probabilities[:, index]
        edges = step_edges(probability, target == index)
        step = np.searchsorted(edges, probability, side="right")
        place = (target == index) * STEPS + step
        total = np.bincount(place, minlength=2 * STEPS)
        rounded = areas_of_steps(total[:STEPS], total[STEPS:])
        for block, rows in enumerate(np.split(order, starts[1:])):
            first = block * AT_ONCE
            number = min(AT_ONCE, clusters - first)
            cells = (cluster[rows] - first) * 2 * STEPS + place[rows]
            counts = np.bincount(cells, minlength=number * 2 * STEPS).reshape(number, 2, STEPS)
            others = total.reshape(2, STEPS) - counts
            changed = areas_of_steps(others[:, 0], others[:, 1]) - rounded[:, None]
            left_out[first : first + number, :, index] = (exact[:, index, None] + changed).T
    return left_out


def step_edges(
    probability: npt.NDArray[np.float32], of_class: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    """Return where steps of a probability end: half by quantiles of the class, half of the others.

    A rare class would lie in a few of the steps that all tiles make together.
    """
    shares = np.linspace(0, 1, STEPS // 2)
    sides = [side for side in (probability[of_class], probability[~of_class]) if len(side)]
    return np.unique(np.concatenate([np.quantile(side, shares) for side in sides]))[: STEPS - 1]


def areas_of_steps(others: npt.NDArray[np.number], of_class: npt.NDArray[np.number]) -> Floats:
    """Return ROC areas and average precisions, tiles of one step tied; shape (2, ...).

    Parameters
    ----------
    others, of_class
        Tiles of other classes and of the class by step of the probability, ascending, shape
        (..., steps).
    """
    others, of_class = others[..., ::-1], of_class[..., ::-1]
    positive, negative = of_class.sum(axis=-1), others.sum(axis=-1)
    above = of_class.cumsum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        area = ((above - of_class / 2) * others).sum(axis=-1) / (positive * negative)
        called = above + others.cumsum(axis=-1)
        precision = np.where(called > 0, above / np.maximum(called, 1), 0.0)
        average = (precision * of_class).sum(axis=-1) / positive
    return np.stack([area, np.where(negative > 0, average, np.nan)])
