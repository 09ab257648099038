"""What metrics are computed from, added up by cluster: slides, or patients.

Tiles of a slide are not independent, so a resample draws clusters. All that the metrics need is
added up by cluster first; then a resample is one row of a matrix of counts times those sums, and
all resamples are one product.
"""

from dataclasses import dataclass, field, fields
from functools import cached_property

import numpy as np
import numpy.typing as npt

from train.engine.confusion import confusion_index
from train.evaluation.bootstrap import Floats

Counts = npt.NDArray[np.int64]
BINS = 15  # of confidence, for the calibration error
STEPS = 512  # of a class's probability, by quantiles, for the intervals of areas under curves
MEMORY = 2**29  # bytes of these: of very many clusters there are fewer steps, LEAST_STEPS or more
LEAST_STEPS = 32


@dataclass(frozen=True, eq=False)
class UnitSums:
    """Sums by cluster, clusters first; `total` makes them sums over clusters.

    Parameters
    ----------
    cube
        Tiles by true and predicted class, shape (..., K, K).
    square
        Squared errors of the probabilities, shape (...,).
    bins
        Tiles, confidence and hits by bin of confidence, shape (..., BINS, 3).
    steps
        Tiles of other classes and of the class by step of its probability, ascending; shape
        (..., K, 2, steps). Without steps, areas under curves are not numbers.

    Of a confusion matrix alone, the cube is all there is.
    """

    cube: Floats
    square: Floats = field(default_factory=lambda: np.empty(0))
    bins: Floats = field(default_factory=lambda: np.empty((0, BINS, 3)))
    steps: Floats = field(default_factory=lambda: np.empty((0, 0, 2, 0)))

    def __len__(self) -> int:
        return len(self.cube)

    def total(self, counts: Floats) -> "UnitSums":
        """Return the sums over clusters, each counted as often as said; shape (R, S) gives R."""
        return UnitSums(**{
            part.name: np.tensordot(counts, getattr(self, part.name), axes=1)
            for part in fields(self)
        })  # fmt: skip

    @cached_property
    def tiles(self) -> Floats:
        """Tiles, shape (...,)."""
        tiles: Floats = self.cube.sum(axis=(-2, -1))
        return tiles

    @cached_property
    def hits(self) -> Floats:
        """Tiles predicted as what they are, by class, shape (..., K)."""
        return np.diagonal(self.cube, axis1=-2, axis2=-1)

    @cached_property
    def true(self) -> Floats:
        """Tiles of each class, shape (..., K)."""
        true: Floats = self.cube.sum(axis=-1)
        return true

    @cached_property
    def predicted(self) -> Floats:
        """Tiles predicted as each class, shape (..., K)."""
        predicted: Floats = self.cube.sum(axis=-2)
        return predicted

    @cached_property
    def areas(self) -> tuple[Floats, Floats]:
        """Areas under ROC and precision-recall curves by class, see `areas`."""
        return areas(self.steps)


def unit_sums(
    target: Counts,
    probabilities: npt.NDArray[np.float32],
    cluster: Counts,
    steps: int = STEPS,
) -> UnitSums:
    """Add predictions up by cluster.

    Parameters
    ----------
    target
        Class index, shape (tiles,).
    probabilities
        Shape (tiles, K).
    cluster
        Number of the slide, or of what else is resampled, shape (tiles,). Numbers that no tile
        bears are no clusters.
    steps
        Of a class's probability; 0 where nobody asks for areas under curves.
    """
    tiles, classes = probabilities.shape
    numbers, cluster = np.unique(cluster, return_inverse=True)
    clusters = len(numbers)
    steps = min(steps, max(LEAST_STEPS, MEMORY // (clusters * classes * 2 * 8)))
    of_true = probabilities[np.arange(tiles), target].astype(float)
    error = (probabilities.astype(float) ** 2).sum(axis=1) - 2 * of_true + 1
    ranks = np.empty((clusters, classes, 2, steps))
    for index in range(classes if steps else 0):
        probability = probabilities[:, index]
        edges = np.unique(np.quantile(probability, np.linspace(0, 1, steps + 1)[1:-1]))
        step = np.searchsorted(edges, probability, side="right")
        place = (cluster * 2 + (target == index)) * steps + step
        ranks[:, index] = _added(place, clusters * 2 * steps).reshape(clusters, 2, steps)
    return UnitSums(
        cube=confusion_counts(cluster, target, probabilities.argmax(axis=1), classes).astype(float),
        square=_added(cluster, clusters, error),
        bins=confidence_bins(probabilities, target, cluster).reshape(clusters, BINS, 3),
        steps=ranks,
    )


def confusion_counts(cluster: Counts, target: Counts, predicted: Counts, classes: int) -> Counts:
    """Count tiles by cluster, true and predicted class, shape (clusters, K, K)."""
    clusters = int(cluster.max()) + 1
    index = confusion_index(cluster, target, predicted, classes)
    return np.bincount(index, minlength=clusters * classes**2).reshape(clusters, classes, classes)


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


def areas(steps: Floats) -> tuple[Floats, Floats]:
    """Return areas under ROC and precision-recall curves, tiles of one step tied; shape (..., K).

    The second is the average precision: precision where recall rises, from the highest step down.
    """
    others, of_class = steps[..., 0, ::-1], steps[..., 1, ::-1]
    positive, negative = of_class.sum(axis=-1), others.sum(axis=-1)
    above = of_class.cumsum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        area = ((above - of_class / 2) * others).sum(axis=-1) / (positive * negative)
        called = above + others.cumsum(axis=-1)
        precision = np.where(called > 0, above / np.maximum(called, 1), 0.0)
        average = (precision * of_class).sum(axis=-1) / positive
    return area, np.where(negative > 0, average, np.nan)
