"""How good predictions are, with 95 % intervals that resample slides.

Tiles of a slide are not independent, so a resample draws slides, or patients: units. All that the
metrics need is added up by unit first (`UnitSums`); then a resample is one row of a matrix of
counts times those sums, and all resamples are one product.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, roc_auc_score

from train.evaluation.bootstrap import RESAMPLES, Floats, interval

BINS = 15  # of confidence, for the calibration error
STEPS = 512  # of a class's probability, by quantiles, for the intervals of areas under curves
ROOM = 2**29  # bytes that these may take: of very many units there are fewer steps, LEAST or more
LEAST = 32


@dataclass(frozen=True)
class UnitSums:
    """What is added up, with units first; `total` makes them sums over units.

    Parameters
    ----------
    cube
        Tiles by true and predicted class, shape (S, K, K).
    square
        UnitSums of squared errors of the probabilities, shape (S,).
    bins
        Tiles, confidence and hits by bin of confidence, shape (S, BINS, 3).
    steps
        Tiles of other classes and of the class by step of its probability, ascending; shape
        (S, K, 2, steps).
    """

    cube: Floats
    square: Floats
    bins: Floats
    steps: Floats

    def total(self, counts: Floats) -> "UnitSums":
        """Return the sums over units, each counted as often as said; shape (R, S) gives R."""
        return UnitSums(
            **{name: np.tensordot(counts, values, axes=1) for name, values in vars(self).items()}
        )


def unit_sums(
    target: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float32],
    unit: npt.NDArray[np.int64],
    steps: int = STEPS,
) -> UnitSums:
    """Add predictions up by unit.

    Parameters
    ----------
    target
        Class index, shape (tiles,).
    probabilities
        Shape (tiles, K).
    unit
        Number of the slide, or of what else is resampled, shape (tiles,). Numbers that no tile
        bears are no units.
    steps
        Of a class's probability; 0 where nobody asks for areas under curves.
    """
    tiles, classes = probabilities.shape
    there, unit = np.unique(unit, return_inverse=True)
    units = len(there)
    steps = min(steps, max(LEAST, ROOM // (units * classes * 2 * 8)))
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    own = probabilities[np.arange(tiles), target].astype(float)
    error = (probabilities.astype(float) ** 2).sum(axis=1) - 2 * own + 1
    edge = np.clip(np.ceil(confidence * BINS) - 1, 0, BINS - 1).astype(np.int64)
    kinds = (np.ones(tiles), confidence, predicted == target)
    bins = [_added(unit * BINS + edge, units * BINS, kind) for kind in kinds]
    ranks = np.empty((units, classes, 2, steps))
    for index in range(classes if steps else 0):
        share = probabilities[:, index]
        edges = np.unique(np.quantile(share, np.linspace(0, 1, steps + 1)[1:-1]))
        step = np.searchsorted(edges, share, side="right")
        place = (unit * 2 + (target == index)) * steps + step
        ranks[:, index] = _added(place, units * 2 * steps).reshape(units, 2, steps)
    return UnitSums(
        cube=cube(target, predicted, unit, classes).astype(float),
        square=_added(unit, units, error),
        bins=np.stack(bins, axis=-1).reshape(units, BINS, 3),
        steps=ranks,
    )


def cube(
    target: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    unit: npt.NDArray[np.int64],
    classes: int,
) -> npt.NDArray[np.int64]:
    """Count tiles by unit, true and predicted class, shape (units, K, K)."""
    units = int(unit.max()) + 1
    cell = (unit * classes + target) * classes + predicted
    return np.bincount(cell, minlength=units * classes**2).reshape(units, classes, classes)


def _added(
    place: npt.NDArray[np.int64], length: int, weights: npt.ArrayLike | None = None
) -> Floats:
    return np.bincount(place, weights, minlength=length).astype(float)


def compute_metrics(found: UnitSums, names: list[str], ordered: bool = False) -> dict[str, Floats]:
    """Return every figure from sums over slides; further axes in front are kept.

    A class in neither truth nor prediction is left out of macro means; an area under a curve is
    not a number for a class that no tile or every tile has.

    Parameters
    ----------
    found
        As `Sums.total` gives them.
    names
        The classes, by index.
    ordered
        Whether their order means something: then Cohen's kappa is given with quadratic weights too
        (J. Cohen, 1968).
    """
    cube = found.cube
    tiles = cube.sum(axis=(-2, -1))
    hits = np.diagonal(cube, axis1=-2, axis2=-1)
    true, predicted = cube.sum(axis=-1), cube.sum(axis=-2)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = np.where(true > 0, hits / true, np.nan)
        f1 = np.where(true + predicted > 0, 2 * hits / (true + predicted), np.nan)
        area, precision = areas(found.steps)
        confidence, right = found.bins[..., 1], found.bins[..., 2]
        result = {
            "accuracy": hits.sum(axis=-1) / tiles,
            "balanced_accuracy": _mean(recall),
            "f1_macro": _mean(f1),
            "kappa": kappa(cube, 0),
            "auroc_macro": _mean(area),
            "average_precision_macro": _mean(precision),
            "brier": found.square / tiles,
            "calibration_error": np.abs(confidence - right).sum(axis=-1) / tiles,
        }
    if ordered:
        result["kappa_quadratic"] = kappa(cube, 2)
    for kind, values in (
        ("recall", recall), ("f1", f1), ("auroc", area), ("average_precision", precision)
    ):  # fmt: skip
        result |= {f"{kind}/{name}": values[..., index] for index, name in enumerate(names)}
    return result


def kappa(cube: Floats, power: int) -> Floats:
    """Return Cohen's kappa, disagreements weighted by their distance to a power, 0 for alike."""
    number = np.arange(cube.shape[-1])
    weights = np.abs(number[:, None] - number).astype(float)
    weights = weights**power if power else (weights > 0).astype(float)
    tiles = cube.sum(axis=(-2, -1), keepdims=True)
    by_chance = cube.sum(axis=-1, keepdims=True) * cube.sum(axis=-2, keepdims=True) / tiles
    unlike = (weights * cube).sum(axis=(-2, -1))
    with np.errstate(invalid="ignore"):  # of one class alone, which nobody can disagree on
        return 1 - unlike / (weights * by_chance).sum(axis=(-2, -1))


def areas(steps: Floats) -> tuple[Floats, Floats]:
    """Return areas under ROC and precision-recall curves, tiles of one step tied; shape (..., K).

    The second is the average precision: precision where recall rises, from the highest step down.
    """
    others, own = steps[..., 0, ::-1], steps[..., 1, ::-1]
    positive, negative = own.sum(axis=-1), others.sum(axis=-1)
    above = own.cumsum(axis=-1)
    area = ((above - own / 2) * others).sum(axis=-1) / (positive * negative)
    called = above + others.cumsum(axis=-1)
    precision = np.where(called > 0, above / np.maximum(called, 1), 0.0)
    average = (precision * own).sum(axis=-1) / positive
    return area, np.where(negative > 0, average, np.nan)


def exact_areas(
    target: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32], names: list[str]
) -> dict[str, Floats]:
    """Return areas under ROC curves and average precisions, by class and their means."""
    found: dict[str, Floats] = {}
    for kind, area in (("auroc", roc_auc_score), ("average_precision", average_precision_score)):
        values = []
        for index in range(len(names)):
            own = target == index
            there = own.any() and not own.all()
            values.append(area(own, probabilities[:, index]) if there else np.nan)
        found |= {f"{kind}/{name}": np.array(v) for name, v in zip(names, values, strict=True)}
        found[f"{kind}_macro"] = _mean(np.array(values))
    return found


def confusions(
    cube: npt.NDArray[np.int64],
    names: list[str],
    seed: int = 0,
    most: int = 10,
    resamples: int = RESAMPLES,
) -> dict[str, list[Any]]:
    """Return the classes that are taken for others most often: a table, the worst first.

    Columns ``true, predicted, tiles, share_of_true``, the share's interval ``low, high``, and how
    many ``units`` have such a tile.

    Parameters
    ----------
    cube
        Counts, shape (units, K, K).
    """
    wrong = cube.sum(axis=0) * (1 - np.eye(len(names), dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    true, predicted = np.unravel_index(order[wrong.ravel()[order] > 0], wrong.shape)

    def drawn(counts: Floats) -> Floats:
        taken, all_ = counts @ cube[:, true, predicted], counts @ cube.sum(axis=2)[:, true]
        with np.errstate(invalid="ignore"):
            return (taken / all_).T

    one = np.ones((1, len(cube)))
    low, high = interval(len(cube), drawn, seed, resamples) if len(true) else (np.empty(0),) * 2
    return {
        "true": [names[i] for i in true],
        "predicted": [names[j] for j in predicted],
        "tiles": wrong[true, predicted].tolist(),
        "share_of_true": drawn(one)[:, 0].tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
        "units": (cube[:, true, predicted] > 0).sum(axis=0).tolist(),
    }


def confused(
    confusion: npt.NDArray[np.floating] | npt.NDArray[np.int64], names: list[str]
) -> tuple[str, str, int] | None:
    """Return true class, class that it is taken for, and tiles, of the most frequent confusion."""
    wrong = confusion * (1 - np.eye(len(names)))
    true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
    most = int(wrong[true, predicted])
    return (names[true], names[predicted], most) if most else None


def calibration_error(
    probabilities: npt.NDArray[np.float32], target: npt.NDArray[np.int64]
) -> float:
    """Return the expected calibration error: of `BINS` bins of confidence, all slides together."""
    one = unit_sums(target, probabilities, np.zeros_like(target)).bins[0]
    return float(np.abs(one[:, 1] - one[:, 2]).sum() / one[:, 0].sum())


def _mean(values: Floats) -> Floats:
    """Return the mean of what is a number, along the last axis."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.where(known.any(axis=-1), total / np.maximum(known.sum(axis=-1), 1), np.nan)
