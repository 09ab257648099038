"""How good predictions are, with 95 % intervals that resample slides.

Tiles of a slide are not independent, so a resample draws slides. All that the figures need is added
up by slide first (`Sums`); then a resample is one row of a matrix of counts times those sums, and
all resamples are one product.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import average_precision_score, roc_auc_score

Floats = npt.NDArray[np.float64]
RESAMPLES = 2000
AT_ONCE = 100  # resamples of a product
BINS = 15  # of confidence, for the calibration error
STEPS = 512  # of a class's probability, by quantiles, for the intervals of areas under curves


@dataclass(frozen=True)
class Sums:
    """What is added up, with slides first; `total` makes them sums over slides.

    Parameters
    ----------
    cube
        Tiles by true and predicted class, shape (S, K, K).
    square
        Sums of squared errors of the probabilities, shape (S,).
    bins
        Tiles, confidence and hits by bin of confidence, shape (S, BINS, 3).
    steps
        Tiles of other classes and of the class by step of its probability, ascending; shape
        (S, K, 2, STEPS).
    """

    cube: Floats
    square: Floats
    bins: Floats
    steps: Floats

    def total(self, counts: Floats) -> "Sums":
        """Return the sums over slides, each counted as often as said; shape (R, S) gives R."""
        return Sums(
            **{name: np.tensordot(counts, values, axes=1) for name, values in vars(self).items()}
        )


def sums(
    target: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float32],
    slide: npt.NDArray[np.int64],
) -> Sums:
    """Add predictions up by slide.

    Parameters
    ----------
    target
        Class index, shape (tiles,).
    probabilities
        Shape (tiles, K).
    slide
        Number of the slide, shape (tiles,).
    """
    tiles, classes = probabilities.shape
    slides = int(slide.max()) + 1
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    cell = (slide * classes + target) * classes + predicted
    cube = np.bincount(cell, minlength=slides * classes**2).reshape(slides, classes, classes)
    own = probabilities[np.arange(tiles), target].astype(float)
    error = (probabilities.astype(float) ** 2).sum(axis=1) - 2 * own + 1
    edge = np.clip(np.ceil(confidence * BINS) - 1, 0, BINS - 1).astype(np.int64)
    kinds = (np.ones(tiles), confidence, predicted == target)
    bins = [_added(slide * BINS + edge, slides * BINS, kind) for kind in kinds]
    steps = np.empty((slides, classes, 2, STEPS))
    for index in range(classes):
        share = probabilities[:, index]
        edges = np.unique(np.quantile(share, np.linspace(0, 1, STEPS + 1)[1:-1]))
        step = np.searchsorted(edges, share, side="right")
        place = (slide * 2 + (target == index)) * STEPS + step
        steps[:, index] = _added(place, slides * 2 * STEPS).reshape(slides, 2, STEPS)
    return Sums(
        cube=cube.astype(float),
        square=_added(slide, slides, error),
        bins=np.stack(bins, axis=-1).reshape(slides, BINS, 3),
        steps=steps,
    )


def _added(
    place: npt.NDArray[np.int64], length: int, weights: npt.ArrayLike | None = None
) -> Floats:
    return np.bincount(place, weights, minlength=length).astype(float)


def measures(found: Sums, names: list[str], ordered: bool = False) -> dict[str, Floats]:
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
    return 1 - (weights * cube).sum(axis=(-2, -1)) / (weights * by_chance).sum(axis=(-2, -1))


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


@dataclass(frozen=True)
class Figure:
    """A figure and its 95 % interval; not a number where it is not defined."""

    value: float
    low: float
    high: float


def figures(
    target: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float32],
    slide: npt.NDArray[np.int64],
    names: list[str],
    ordered: bool = False,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Figure]:
    """Return every figure of `measures` with its interval, the slides resampled.

    Areas under curves are exact; their intervals come from `STEPS` steps of the probability. A
    resample repeats slides, and so looks less well calibrated than the whole: the calibration error
    may lie at the lower end of its interval, or below. Parameters as in `sums` and `measures`.
    """
    found = sums(target, probabilities, slide)
    slides = len(found.cube)
    value = measures(found.total(np.ones(slides)), names, ordered)
    value |= exact_areas(target, probabilities, names)

    def drawn(counts: Floats) -> Floats:
        return np.stack(list(measures(found.total(counts), names, ordered).values()))

    low, high = interval(slides, drawn, seed, resamples)
    return {
        name: Figure(float(value[name]), float(low[place]), float(high[place]))
        for place, name in enumerate(value)
    }


def differences(
    target: npt.NDArray[np.int64],
    one: npt.NDArray[np.float32],
    other: npt.NDArray[np.float32],
    slide: npt.NDArray[np.int64],
    names: list[str],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Figure]:
    """Return by how much each figure of ``other`` is above that of ``one``, on the same tiles.

    A resample draws slides for both: what makes a slide hard for both cancels.
    """
    pair = [sums(target, shares, slide) for shares in (one, other)]
    slides = len(pair[0].cube)

    def drawn(counts: Floats) -> Floats:
        first, second = (measures(own.total(counts), names) for own in pair)
        return np.stack([second[name] - first[name] for name in first])

    value = drawn(np.ones((1, slides)))[:, 0]
    low, high = interval(slides, drawn, seed, resamples)
    kinds = measures(pair[0].total(np.ones(slides)), names)
    return {
        name: Figure(float(value[place]), float(low[place]), float(high[place]))
        for place, name in enumerate(kinds)
    }


def interval(
    slides: int, drawn: Callable[[Floats], Floats], seed: int, resamples: int
) -> tuple[Floats, Floats]:
    """Return both ends of 95 % percentile intervals, not a number with fewer than two slides.

    Parameters
    ----------
    drawn
        Given how often each slide is drawn, shape (R, slides), returns figures of shape (M, R).
    """

    def statistic(number: npt.NDArray[np.int64], axis: int) -> Floats:
        number = np.moveaxis(number, axis, -1).reshape(-1, slides)
        place = number + slides * np.arange(len(number))[:, None]
        counts = np.bincount(place.ravel(), minlength=number.size).reshape(-1, slides)
        return drawn(counts.astype(float))

    if slides < 2:
        none = np.full(len(drawn(np.ones((1, slides)))), np.nan)
        return none, none
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of figures that are not defined, which stay so
        found = bootstrap(
            (np.arange(slides),), statistic, vectorized=True, n_resamples=resamples,
            method="percentile", batch=AT_ONCE, rng=np.random.default_rng(seed),
        ).bootstrap_distribution  # fmt: skip
        low, high = np.nanpercentile(found, [2.5, 97.5], axis=-1)
    return low, high


def mcnemar(
    target: npt.NDArray[np.int64], one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]
) -> tuple[int, int, float]:
    """Return tiles that only one is right on, that only the other is, and McNemar's exact p.

    It takes tiles as independent, which those of a slide are not: where it and the interval over
    slides disagree, believe the interval.
    """
    mine, theirs = one == target, other == target
    alone, others = int((mine & ~theirs).sum()), int((theirs & ~mine).sum())
    if not alone + others:
        return 0, 0, 1.0
    return alone, others, float(binomtest(alone, alone + others).pvalue)


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


def confusions(cube: Floats, names: list[str], most: int = 10) -> dict[str, list[object]]:
    """Return the classes that are taken for others most often: a table, the worst first."""
    wrong = cube * (1 - np.eye(len(cube)))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    rows, columns = np.unravel_index(order, wrong.shape)
    kept = [(i, j) for i, j in zip(rows, columns, strict=True) if wrong[i, j] > 0]
    return {
        "true": [names[i] for i, _ in kept],
        "predicted": [names[j] for _, j in kept],
        "tiles": [int(wrong[i, j]) for i, j in kept],
        "share_of_true": [float(wrong[i, j] / cube[i].sum()) for i, j in kept],
    }


def calibration_error(
    probabilities: npt.NDArray[np.float32], target: npt.NDArray[np.int64]
) -> float:
    """Return the expected calibration error: of `BINS` bins of confidence, all slides together."""
    one = sums(target, probabilities, np.zeros_like(target)).bins[0]
    return float(np.abs(one[:, 1] - one[:, 2]).sum() / one[:, 0].sum())


def _mean(values: Floats) -> Floats:
    """Return the mean of what is a number, along the last axis."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.where(known.any(axis=-1), total / np.maximum(known.sum(axis=-1), 1), np.nan)
