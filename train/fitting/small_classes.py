"""Classes with few tiles to train on, or none: said once for all heads."""

import warnings
from collections import defaultdict

import numpy as np
import numpy.typing as npt

from featurestore.errors import FeatureStoreWarning
from train.config.rules import lone_fold
from train.config.schema import Config
from train.fitting.grid import HeadGrid

FEW = 10  # tiles: with fewer, a class is what these happen to look like


def warn_of_small_classes(grid: HeadGrid, config: Config) -> None:
    """Warn of classes with fewer than `FEW` training tiles, by the fold that is validated on."""
    names, folds = config.class_names, grid.folds
    counts = np.zeros((len(grid.settings), len(folds), len(names)), dtype=np.int64)
    classes = grid.class_counts.shape[1]
    counts[..., :classes] = grid.class_counts.reshape(len(grid.settings), len(folds), classes)
    fewest = counts.min(axis=0)
    if (fewest >= FEW).all():
        return
    numbers = [lone_fold(config)] if grid.is_single else folds
    of = f", the fewest of {len(counts)} settings" if len(counts) > 1 else ""
    warnings.warn(
        f"few tiles to train on{of}: {few_by_fold(fewest, numbers, names)}. A class without any "
        "weighs nothing in training and validation loss and is not learned; one with fewer than "
        f"{FEW} is learned from those alone",
        FeatureStoreWarning,
        stacklevel=2,
    )


def few_by_fold(
    counts: npt.NDArray[np.int64], folds: list[int] | list[int | None], names: list[str]
) -> str:
    """Return which classes have few tiles, folds that say the same together.

    Parameters
    ----------
    counts
        Training tiles, shape (folds, K).

    Examples
    --------
    >>> few_by_fold(np.array([[0, 50], [0, 50], [70, 3]]), [0, 1, 4], ["Fat", "Nerve"])
    'Fat 0 (validating on fold 0, 1), Nerve 3 (validating on fold 4)'
    """
    folds_of = defaultdict(list)
    for fold, row in zip(folds, counts, strict=True):
        few = [f"{name} {count}" for name, count in zip(names, row, strict=True) if count < FEW]
        if few:
            folds_of[", ".join(few)].append(str(fold))
    return ", ".join(
        f"{few} (validating on fold {', '.join(numbers)})" for few, numbers in folds_of.items()
    )
