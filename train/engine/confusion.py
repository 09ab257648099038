"""Confusion matrices: the one index formula, and the cells of many matrices that hold a tile."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]

if TYPE_CHECKING:  # whoever has arrays alone needs no torch
    from torch import Tensor

    Integers = TypeVar("Integers", Counts, Tensor)


def confusion_index(
    unit: "Integers", target: "Integers", predicted: "Integers", classes: int
) -> "Integers":
    """Return each tile's index into counts of shape (units, K, K), laid out flat.

    Parameters
    ----------
    unit
        Number of what is counted apart: a head, a slide, or both in one number.
    target, predicted
        True and predicted class.
    classes
        K.

    Examples
    --------
    >>> confusion_index(np.array([0, 1]), np.array([1, 0]), np.array([0, 2]), 3)
    array([ 3, 11])
    """
    return (unit * classes + target) * classes + predicted


@dataclass(frozen=True, eq=False)
class ConfusionCells:
    """The confusion matrices of many units by the cells that hold a tile.

    A tile is in one cell, so there are no more of them than tiles; the matrices of 5,000 slides
    and 200 classes have 200 million, nearly all of them empty.

    Parameters
    ----------
    index
        Of each such cell into counts of shape (units, K, K), laid out flat; ascending.
    count
        Its tiles.
    units, classes
        How many there are.

    Examples
    --------
    >>> cells = ConfusionCells.of(np.array([5, 3, 3]), units=2, classes=2)
    >>> cells.unit, cells.true, cells.predicted, cells.count
    (array([0, 1]), array([1, 0]), array([1, 1]), array([2, 1]))
    """

    index: Counts
    count: Counts
    units: int
    classes: int

    @classmethod
    def of(cls, tiles: Counts, units: int, classes: int) -> "ConfusionCells":
        """Count tiles, given the index of each one's cell."""
        index, count = np.unique(tiles, return_counts=True)
        return cls(index, count, units, classes)

    @property
    def unit(self) -> Counts:
        """The unit of each cell."""
        return self.index // self.classes**2

    @property
    def true(self) -> Counts:
        """The true class of each cell."""
        return self.index // self.classes % self.classes

    @property
    def predicted(self) -> Counts:
        """The predicted class of each cell."""
        return self.index % self.classes

    def select(self, start: int, stop: int) -> "ConfusionCells":
        """Return those of units start .. stop, numbered from 0."""
        size = self.classes**2
        low, high = np.searchsorted(self.index, (start * size, stop * size))
        index = self.index[low:high] - start * size
        return ConfusionCells(index, self.count[low:high], stop - start, self.classes)

    def matrix(self) -> Counts:
        """Return the sum over all units, shape (K, K)."""
        return self.by(self.index % self.classes**2, self.classes**2).reshape(2 * (self.classes,))

    def by(self, key: Counts, length: int) -> Counts:
        """Return the tiles of the cells added up by a key of each, shape (length,)."""
        return np.bincount(key, self.count, minlength=length).astype(np.int64)
