"""What metrics are computed from: sums over all tiles, and over all but those of each unit.

Tiles of a slide are not independent, so intervals leave out slides, or patients, whole. All that
the metrics need is added up by unit first; sums without a unit are the total less its own.
"""

from dataclasses import dataclass, field, fields, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from train.engine.confusion import ConfusionCells, Counts, confusion_index
from train.evaluation.areas import areas, areas_left_out
from train.evaluation.jackknife import Floats

BINS = 15  # of confidence, for the calibration error


@dataclass(frozen=True, eq=False)
class UnitSums:
    """Sums over tiles; axes in front are kept.

    Parameters
    ----------
    hits
        Tiles predicted as what they are, by class, shape (..., K).
    true, predicted
        Tiles of each class, and predicted as each, shape (..., K).
    distance
        Squares of how far the predicted index is from the true one, shape (...,).
    square
        Squared errors of the probabilities, shape (...,).
    bins
        Tiles, confidence and hits by bin of confidence, shape (..., BINS, 3).
    areas
        No sums, but as `train.evaluation.areas.areas`, shape (..., 2, K).

    Of a confusion matrix alone, the first four are all there is.
    """

    hits: Floats
    true: Floats
    predicted: Floats
    distance: Floats
    square: Floats = field(default_factory=lambda: np.empty(0))
    bins: Floats = field(default_factory=lambda: np.empty((0, BINS, 3)))
    areas: Floats = field(default_factory=lambda: np.empty((0, 2, 0)))

    @classmethod
    def of_confusion(cls, confusion: npt.NDArray[np.number]) -> "UnitSums":
        """Return those of confusion matrices, shape (..., K, K): true class down."""
        counts = confusion.astype(float)
        index = np.arange(counts.shape[-1])
        return cls(
            hits=np.diagonal(counts, axis1=-2, axis2=-1),
            true=counts.sum(axis=-1),
            predicted=counts.sum(axis=-2),
            distance=(counts * (index[:, None] - index) ** 2).sum(axis=(-2, -1)),
        )

    @classmethod
    def of_cells(cls, cells: ConfusionCells) -> "UnitSums":
        """Return those of the units of a sparse count, units in front."""
        unit, true, predicted = cells.unit, cells.true, cells.predicted
        shape = (cells.units, cells.classes)

        def added(kind: Counts, count: Counts) -> Floats:
            place = unit * cells.classes + kind
            return _added(place, shape[0] * shape[1], count).reshape(shape)

        return cls(
            hits=added(true, cells.count * (true == predicted)),
            true=added(true, cells.count),
            predicted=added(predicted, cells.count),
            distance=_added(unit, cells.units, cells.count * (true - predicted) ** 2),
        )

    def __len__(self) -> int:
        return len(self.hits)

    def sum(self) -> "UnitSums":
        """Return the sums over units, which are the axis in front."""
        return UnitSums(
            **{part.name: getattr(self, part.name).sum(axis=0) for part in fields(self)}
        )

    def reshape(self, *units: int) -> "UnitSums":
        """Return the sums of a confusion with its units along several axes."""
        classes = self.hits.shape[-1]
        return UnitSums(
            hits=self.hits.reshape(*units, classes),
            true=self.true.reshape(*units, classes),
            predicted=self.predicted.reshape(*units, classes),
            distance=self.distance.reshape(units),
        )

    def without(self, units: "UnitSums") -> "UnitSums":
        """Return these sums less those of each unit, units in front."""
        return UnitSums(**{
            part.name: getattr(self, part.name) - getattr(units, part.name)
            for part in fields(self)
        })  # fmt: skip

    @cached_property
    def tiles(self) -> Floats:
        """Tiles, shape (...,)."""
        tiles: Floats = self.true.sum(axis=-1)
        return tiles


@dataclass(frozen=True, eq=False)
class LeaveOneOut:
    """What the delete-one jackknife computes metrics from.

    Parameters
    ----------
    total
        The sums over all tiles; no axis in front.
    left_out
        Those over all tiles but each unit's; units in front.
    units_of_class
        How many units have a tile of each class, shape (K,).
    """

    total: UnitSums
    left_out: UnitSums
    units_of_class: Counts

    def __len__(self) -> int:
        return len(self.left_out)


def leave_one_out(
    target: Counts,
    probabilities: npt.NDArray[np.float32],
    cluster: Counts,
    with_areas: bool = True,
) -> LeaveOneOut:
    """Add predictions up, with and without each unit. Linear in tiles; memory units x K.

    Parameters
    ----------
    target
        Class index, shape (tiles,).
    probabilities
        Shape (tiles, K).
    cluster
        Number of the slide, or of what else is left out, shape (tiles,). Numbers that no tile bears
        are no units.
    with_areas
        Whether anybody asks for areas under curves.
    """
    numbers, cluster = np.unique(cluster, return_inverse=True)
    units = unit_sums(target, probabilities, cluster, len(numbers))
    total = units.sum()
    left_out = total.without(units)
    if with_areas:
        exact = areas(target, probabilities)
        without = areas_left_out(target, probabilities, cluster, len(numbers), exact)
        total, left_out = replace(total, areas=exact), replace(left_out, areas=without)
    return LeaveOneOut(total, left_out, (units.true > 0).sum(axis=0))


def unit_sums(
    target: Counts, probabilities: npt.NDArray[np.float32], cluster: Counts, clusters: int
) -> UnitSums:
    """Return the sums of each unit, units in front; without areas, which do not add up."""
    tiles, classes = probabilities.shape
    predicted = probabilities.argmax(axis=1)
    of_true = probabilities[np.arange(tiles), target].astype(float)
    error = (probabilities.astype(float) ** 2).sum(axis=1) - 2 * of_true + 1

    def by_class(of: Counts, weights: npt.ArrayLike | None = None) -> Floats:
        return _added(cluster * classes + of, clusters * classes, weights).reshape(-1, classes)

    return UnitSums(
        hits=by_class(target, target == predicted),
        true=by_class(target),
        predicted=by_class(predicted),
        distance=_added(cluster, clusters, (target - predicted) ** 2),
        square=_added(cluster, clusters, error),
        bins=confidence_bins(probabilities, target, cluster).reshape(clusters, BINS, 3),
        areas=np.empty((clusters, 2, 0)),
    )


def confusion_cells(
    unit: Counts, units: int, predicted: Counts, target: Counts, classes: int
) -> ConfusionCells:
    """Count tiles by unit, true and predicted class."""
    return ConfusionCells.of(confusion_index(unit, target, predicted, classes), units, classes)


def confusion_matrix(target: Counts, predicted: Counts, classes: int) -> Counts:
    """Count tiles by true and predicted class, shape (K, K)."""
    index = confusion_index(np.zeros_like(target), target, predicted, classes)
    return np.bincount(index, minlength=classes**2).reshape(classes, classes)


def confidence_bins(
    probabilities: npt.NDArray[np.float32], target: Counts, cluster: Counts | int = 0
) -> Floats:
    """Return tiles, sums of confidence and hits by bin of confidence, shape (clusters * BINS, 3).

    Parameters
    ----------
    cluster
        The number of each tile's cluster; by default all tiles are of one.
    """
    confidence, hits = probabilities.max(axis=1), probabilities.argmax(axis=1) == target
    edge = np.clip(np.ceil(confidence * BINS) - 1, 0, BINS - 1).astype(np.int64)
    length = (int(np.max(cluster)) + 1) * BINS
    kinds = (np.ones(len(target)), confidence, hits)
    return np.stack([_added(cluster * BINS + edge, length, kind) for kind in kinds], axis=-1)


def _added(place: Counts, length: int, weights: npt.ArrayLike | None = None) -> Floats:
    return np.bincount(place, weights, minlength=length).astype(float)
