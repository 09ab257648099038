"""Metrics, all derived from one integer cube: slide x true class x predicted class.

Counts add up over blocks and processes exactly. One definition everywhere: a class that is in
neither truth nor prediction is left out of a macro mean.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics import Metric

Counts = npt.NDArray[np.int64]


class Cube(Metric):
    """Counts tiles by slide, true and predicted class; torchmetrics sums it over processes.

    Parameters
    ----------
    slides, classes
        Numbers of slides and of classes.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, slides: int, classes: int) -> None:
        super().__init__()
        self.shape = (slides, classes, classes)
        zeros = torch.zeros(self.shape, dtype=torch.int64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")

    def update(self, slide: Tensor, target: Tensor, predicted: Tensor) -> None:
        """Count some tiles, each given once."""
        _, classes, _ = self.shape
        cell = (slide * classes + target) * classes + predicted
        self.counts += torch.bincount(cell, minlength=self.counts.numel()).view(self.shape)

    def compute(self) -> Tensor:
        """Return the counts, shape (slides, classes, classes)."""
        return self.counts


def confusion_metrics(confusion: Counts, names: list[str]) -> dict[str, float]:
    """Return accuracy, recall and F1 from a confusion matrix.

    Parameters
    ----------
    confusion
        Shape (K, K): true class down, predicted class across.
    names
        The classes, by index.

    Returns
    -------
    dict
        ``accuracy`` (share of tiles), ``balanced_accuracy`` (mean recall of the classes in the
        truth), ``accuracy_macro`` and ``f1_macro`` (means over the classes in truth or
        prediction), and per such class ``accuracy/<class>`` (its recall) and ``f1/<class>``.
    """
    hits = np.diag(confusion).astype(float)
    true, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    present = (true + predicted) > 0
    recall = hits / np.maximum(true, 1)
    f1 = 2 * hits / np.maximum(true + predicted, 1)
    result = {
        "accuracy": hits.sum() / max(confusion.sum(), 1),
        "balanced_accuracy": _mean(recall[true > 0]),
        "accuracy_macro": _mean(recall[present]),
        "f1_macro": _mean(f1[present]),
    }
    for index in np.flatnonzero(present):
        result[f"accuracy/{names[index]}"] = recall[index]
        result[f"f1/{names[index]}"] = f1[index]
    return {name: float(value) for name, value in result.items()}


def f1_macro(confusion: Counts | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the macro F1 of many confusion matrices, shape (..., K, K) -> (...)."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    both = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    f1 = 2 * hits / np.maximum(both, 1)
    return f1.sum(axis=-1) / np.maximum((both > 0).sum(axis=-1), 1)


def absent_classes(confusion: Counts, names: list[str]) -> list[str]:
    """Return the classes in neither truth nor prediction, which macro means leave out."""
    seen = confusion.sum(axis=1) + confusion.sum(axis=0)
    return [name for name, count in zip(names, seen, strict=True) if count == 0]


def slide_accuracy(cube: Counts, slides: list[str]) -> dict[str, list[Any]]:
    """Return a table ``slide_id, tiles, accuracy`` of the slides with any tile, the worst first."""
    tiles = cube.sum(axis=(1, 2))
    accuracy = np.trace(cube, axis1=1, axis2=2) / np.maximum(tiles, 1)
    order = [i for i in np.lexsort((np.arange(len(tiles)), accuracy)) if tiles[i]]
    return {
        "slide_id": [slides[i] for i in order],
        "tiles": [int(tiles[i]) for i in order],
        "accuracy": [float(accuracy[i]) for i in order],
    }


def slide_summary(accuracy: list[float]) -> dict[str, float]:
    """Return mean, median and minimum of the accuracies per slide."""
    return {
        "slide_accuracy/mean": _mean(np.array(accuracy)),
        "slide_accuracy/median": float(np.median(accuracy)) if accuracy else float("nan"),
        "slide_accuracy/min": min(accuracy, default=float("nan")),
    }


def _mean(values: npt.NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")
