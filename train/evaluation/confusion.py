"""What confusion matrices tell: slides, the most frequent confusions, absent classes."""

from typing import Any

import numpy as np
import numpy.typing as npt

from train.evaluation.jackknife import jackknife_interval
from train.evaluation.unit_sums import ConfusionCells, Counts, confusion_cells
from train.predictions.table import Predictions


def confusions(predictions: Predictions, confusion: Counts, most: int = 10) -> dict[str, list[Any]]:
    """Return the classes that are taken for others most often: a table, the worst first.

    Columns ``true, predicted, tiles, share_of_true``, the share's interval ``low, high``, and how
    many ``units`` have such a tile.

    Parameters
    ----------
    confusion
        Tiles by true and predicted class, shape (K, K).
    """
    classes, clusters = predictions.classes, predictions.clusters
    wrong = confusion * (1 - np.eye(len(classes), dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    true, predicted = np.unravel_index(order[wrong.ravel()[order] > 0], wrong.shape)
    # Of each confusion, its tiles and those of the true class by cluster, shape (M, clusters).
    taken, tiles = np.zeros((2, len(true), clusters))
    for row, (one, other) in enumerate(zip(true, predicted, strict=True)):
        of_class = predictions.target == one
        tiles[row] = np.bincount(predictions.cluster[of_class], minlength=clusters)
        of_pair = of_class & (predictions.predicted == other)
        taken[row] = np.bincount(predictions.cluster[of_pair], minlength=clusters)
    total = tiles.sum(axis=1)
    share = taken.sum(axis=1) / total
    with np.errstate(invalid="ignore"):
        left_out = (taken.sum(axis=1)[:, None] - taken) / (total[:, None] - tiles)
    limits, units = np.array([[0.0, 1.0]] * len(true)).reshape(-1, 2), (tiles > 0).sum(axis=1)
    low, high = jackknife_interval(share, left_out, limits, units)
    return {
        "true": [classes[i] for i in true],
        "predicted": [classes[j] for j in predicted],
        "tiles": wrong[true, predicted].tolist(),
        "share_of_true": share.tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
        "units": (taken > 0).sum(axis=1).tolist(),
    }


def most_confused(
    confusion: npt.NDArray[np.floating] | Counts, classes: list[str]
) -> tuple[str, str, int] | None:
    """Return true class, class that it is taken for, and tiles, of the most frequent confusion."""
    wrong = confusion * (1 - np.eye(len(classes)))
    true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
    tiles = int(wrong[true, predicted])
    return (classes[true], classes[predicted], tiles) if tiles else None


def absent_classes(confusion: Counts, classes: list[str]) -> list[str]:
    """Return the classes in neither truth nor prediction, which macro means leave out."""
    tiles = confusion.sum(axis=1) + confusion.sum(axis=0)
    return [name for name, count in zip(classes, tiles, strict=True) if count == 0]


def slide_accuracy(cells: ConfusionCells, slides: list[str]) -> dict[str, list[Any]]:
    """Return a table ``slide_id, tiles, accuracy`` of the slides with any tile, the worst first.

    Parameters
    ----------
    cells
        Counts whose units are slides.
    slides
        Their names.
    """
    tiles = np.bincount(cells.unit, cells.count, minlength=cells.units)
    hits = np.bincount(
        cells.unit, cells.count * (cells.true == cells.predicted), minlength=cells.units
    )
    accuracy = hits / np.maximum(tiles, 1)
    order = [i for i in np.lexsort((np.array(slides), accuracy)) if tiles[i]]  # of equals, by name
    return {
        "slide_id": [slides[i] for i in order],
        "tiles": [int(tiles[i]) for i in order],
        "accuracy": [float(accuracy[i]) for i in order],
    }


def slide_summary(accuracy: list[float]) -> dict[str, float]:
    """Return mean, median and minimum of the accuracies per slide."""
    return {
        "slide_accuracy/mean": float(np.mean(accuracy)) if accuracy else float("nan"),
        "slide_accuracy/median": float(np.median(accuracy)) if accuracy else float("nan"),
        "slide_accuracy/min": min(accuracy, default=float("nan")),
    }


def fold_confusions(predictions: Predictions) -> tuple[ConfusionCells, int]:
    """Return tiles by fold and cluster, units fold * clusters + cluster, and how many folds."""
    folds, fold = np.unique(predictions.keys["fold"].to_numpy(), return_inverse=True)
    unit = fold * predictions.clusters + predictions.cluster
    cells = confusion_cells(
        unit, len(folds) * predictions.clusters, predictions.predicted, predictions.target,
        len(predictions.classes),
    )  # fmt: skip
    return cells, len(folds)
