"""The metrics: one list, from which all that is recorded, printed and compared is taken.

To add a metric, write a function of `UnitSums` and give it an entry in `METRICS`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from train.evaluation.jackknife import Floats
from train.evaluation.unit_sums import BINS, Counts, UnitSums, confidence_bins
from train.predictions.table import Predictions

CLASS = "<class>"  # in the key of a metric that each class has
Place = Literal["epoch", "console", "page", "compare", "groups", "gate"]
BIASED = "of few tiles it is too large, however good a model is: no interval holds the true value"
FINAL: frozenset[Place] = frozenset({"console", "page", "compare", "groups", "gate"})
UNGROUPED = FINAL - {"groups"}  # what nobody asks of a group
AREAS: frozenset[Place] = frozenset({"console", "page"})  # of groups nobody asks for them
EPOCH: frozenset[Place] = frozenset({"epoch"})


# -- the functions: of sums of shape (..., ·), further axes in front are kept ---------------------


def accuracy(sums: UnitSums) -> Floats:
    """Return the share of tiles predicted as what they are."""
    hits: Floats = sums.hits.sum(axis=-1)
    return _ratio(hits, sums.tiles)


def recall(sums: UnitSums) -> Floats:
    """Return the recall of each class; not a number without a tile of it."""
    return _ratio(sums.hits, sums.true)


def f1(sums: UnitSums) -> Floats:
    """Return the F1 of each class; not a number if it is in neither truth nor prediction."""
    return _ratio(2 * sums.hits, sums.true + sums.predicted)


def brier(sums: UnitSums) -> Floats:
    """Return the Brier score: squared errors of the probabilities, summed over classes, 0 to 2.

    G. W. Brier (1950), "Verification of forecasts expressed in terms of probability".
    """
    return _ratio(sums.square, sums.tiles)


def expected_calibration_error(sums: UnitSums) -> Floats:
    """Return how far confidence is from accuracy, the mean over the tiles, by bins.

    Confidence is the probability of the predicted class (top label), in `BINS` bins of equal width:
    C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger (2017), "On calibration of modern neural
    networks".
    """
    tiles, confidence, hits = np.moveaxis(sums.bins, -1, 0)
    return _ratio(np.abs(confidence - hits).sum(axis=-1), tiles.sum(axis=-1))


def kappa(sums: UnitSums) -> Floats:
    """Return Cohen's kappa: 1 less disagreements over those by chance; J. Cohen (1960).

    Of one class alone nobody can disagree: not a number.
    """
    by_chance = sums.tiles**2 - (sums.true * sums.predicted).sum(axis=-1)
    observed = sums.tiles - sums.hits.sum(axis=-1)
    return 1 - _ratio(observed * sums.tiles, by_chance)


def quadratic_kappa(sums: UnitSums) -> Floats:
    """Return Cohen's kappa, a disagreement weighted by its squared distance; J. Cohen (1968)."""
    index = np.arange(sums.true.shape[-1])
    true, predicted = sums.true, sums.predicted
    by_chance = sums.tiles * ((true + predicted) * index**2).sum(axis=-1)
    by_chance -= 2 * (true * index).sum(axis=-1) * (predicted * index).sum(axis=-1)
    return 1 - _ratio(sums.distance * sums.tiles, by_chance)


def _ratio(part: Floats, total: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: Floats = part / total
    return ratio


def nan_mean(values: Floats) -> Floats:
    """Return the mean of what is a number, along the last axis."""
    valid = ~np.isnan(values)
    total = np.where(valid, values, 0.0).sum(axis=-1)
    return np.where(valid.any(axis=-1), total / np.maximum(valid.sum(axis=-1), 1), np.nan)


# -- the list -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MetricSpec:
    """A metric.

    Parameters
    ----------
    title
        What it is called for people.
    compute
        Its value from sums of shape (..., ·): shape (...), or (..., K) if each class has one.
    higher_is_better
        Which way is better.
    needs_probabilities
        Whether it takes more than which class is predicted: its last digits then depend on the
        blocks that probabilities were computed in.
    shown_in
        Where it stands: ``epoch`` (recorded of each epoch, fold and split, from the confusion
        matrix alone), and with its interval on the ``console``, on the run's ``page``, in what
        train/compare.py shows, in ``groups.json``, on the page of a promotion (``gate``).
    final
        Whether it is recorded of a whole evaluation, with an interval, not of epochs alone.
    ordered
        Whether it means something only where the order of the classes does.
    limits
        The least and the largest value that it can have.
    no_interval
        Why it has no interval.
    """

    title: str
    compute: Callable[[UnitSums], Floats]
    higher_is_better: bool = True
    needs_probabilities: bool = False
    shown_in: frozenset[Place] = FINAL
    final: bool = True
    ordered: bool = False
    limits: tuple[float, float] = (0.0, 1.0)
    no_interval: str = ""


METRICS: dict[str, MetricSpec] = {
    "accuracy": MetricSpec("accuracy", accuracy, shown_in=FINAL | EPOCH),
    "balanced_accuracy": MetricSpec(
        "balanced accuracy", lambda sums: nan_mean(recall(sums)), shown_in=FINAL | EPOCH
    ),
    "accuracy_macro": MetricSpec(  # balanced accuracy, as it was called first
        "macro accuracy", lambda sums: nan_mean(recall(sums)), shown_in=EPOCH, final=False
    ),
    "f1_macro": MetricSpec("macro F1", lambda sums: nan_mean(f1(sums)), shown_in=FINAL | EPOCH),
    "kappa": MetricSpec("Cohen's kappa", kappa, limits=(-1.0, 1.0)),
    "auroc_macro": MetricSpec(
        "area under ROC, macro", lambda sums: nan_mean(sums.areas[..., 0, :]),
        needs_probabilities=True, shown_in=AREAS,
    ),
    "average_precision_macro": MetricSpec(
        "average precision, macro", lambda sums: nan_mean(sums.areas[..., 1, :]),
        needs_probabilities=True, shown_in=AREAS,
    ),
    "brier": MetricSpec(
        "Brier score, 0 to 2", brier, limits=(0.0, 2.0),
        higher_is_better=False, needs_probabilities=True, shown_in=UNGROUPED,
    ),
    "calibration_error": MetricSpec(
        f"calibration error, top label, {BINS} bins", expected_calibration_error,
        higher_is_better=False, needs_probabilities=True, no_interval=BIASED,
    ),
    "kappa_quadratic": MetricSpec(
        "Cohen's kappa, quadratic", quadratic_kappa,
        shown_in=UNGROUPED - {"gate"}, ordered=True, limits=(-1.0, 1.0),
    ),
    "accuracy/<class>": MetricSpec("recall", recall, shown_in=EPOCH, final=False),
    "recall/<class>": MetricSpec("recall", recall),
    "f1/<class>": MetricSpec("F1", f1, shown_in=FINAL | EPOCH),
    "auroc/<class>": MetricSpec(
        "area under ROC", lambda sums: sums.areas[..., 0, :],
        needs_probabilities=True, shown_in=AREAS,
    ),
    "average_precision/<class>": MetricSpec(
        "average precision", lambda sums: sums.areas[..., 1, :],
        needs_probabilities=True, shown_in=AREAS,
    ),
}  # fmt: skip
"""By the names that they are recorded under, ``best/<split>/`` before them."""


def is_per_class(name: str) -> bool:
    """Return whether each class has the metric of a key, or a metric's name is that of a class."""
    return "/" in name


def spec_of(name: str) -> MetricSpec | None:
    """Return the metric that a name is of, ``recall/Fat`` for example; None if it is of none."""
    kind, slash, _ = name.partition("/")
    return METRICS.get(f"{kind}/{CLASS}" if slash else name)


def is_higher_better(name: str) -> bool:
    """Return whether more of a metric is better; so it is of what is none."""
    spec = spec_of(name)
    return spec is None or spec.higher_is_better


def shown_in(place: Place, *, per_class: bool = False, ordered: bool = True) -> list[str]:
    """Return the keys of the metrics that stand somewhere, in their order."""
    return [
        name
        for name, spec in METRICS.items()
        if place in spec.shown_in
        and is_per_class(name) == per_class
        and (ordered or not spec.ordered)
    ]


def final_metrics(ordered: bool = False) -> list[str]:
    """Return the keys of the metrics that are recorded of a whole evaluation.

    Parameters
    ----------
    ordered
        Whether the order of the classes means something.
    """
    return [key for key, spec in METRICS.items() if spec.final and (ordered or not spec.ordered)]


def needs_probabilities(name: str) -> bool:
    """Return whether probabilities make a recorded figure: a loss, or such a metric.

    Examples
    --------
    >>> needs_probabilities("oof/auroc_low/Fat"), needs_probabilities("f1/Fat")
    (True, False)
    """
    kinds = [key.partition("/")[0] for key, spec in METRICS.items() if spec.needs_probabilities]
    return any(part.startswith(("loss", *kinds)) for part in name.split("/"))


def is_interval_end(name: str) -> bool:
    """Return whether a recorded figure is an end of an interval.

    Examples
    --------
    >>> is_interval_end("best/oof/f1_low/Fat"), is_interval_end("best/oof/f1/Fat")
    (True, False)
    """
    kinds = {key.partition("/")[0] for key in METRICS}
    ends = {f"{kind}_{end}" for kind in kinds for end in ("low", "high")}
    return not ends.isdisjoint(name.split("/"))


# -- their values ---------------------------------------------------------------------------------


def compute_metrics(sums: UnitSums, classes: list[str], keys: Sequence[str]) -> dict[str, Floats]:
    """Return metrics from sums over tiles; axes in front are kept.

    A class in neither truth nor prediction is left out of macro means; an area under a curve is
    not a number for a class that no tile or every tile has.

    Parameters
    ----------
    sums
        Of all tiles, or of all but each unit's.
    classes
        Their names, by index.
    keys
        Of `METRICS`: which ones.

    Examples
    --------
    >>> confusion = np.array([[3.0, 1.0], [0.0, 4.0]])  # true class down, predicted across
    >>> sums = UnitSums.of_confusion(confusion)
    >>> metrics = compute_metrics(sums, ["a", "b"], ["accuracy", "f1/<class>"])
    >>> {name: round(float(value), 3) for name, value in metrics.items()}
    {'accuracy': 0.875, 'f1/a': 0.857, 'f1/b': 0.889}
    """
    values: dict[str, Floats] = {}
    for key in keys:
        value = METRICS[key].compute(sums)
        if is_per_class(key):
            names = [key.replace(CLASS, name) for name in classes]
            values |= {name: value[..., index] for index, name in enumerate(names)}
        else:
            values[key] = value
    return values


def confusion_metrics(confusion: Counts, classes: list[str]) -> dict[str, float]:
    """Return the metrics of an epoch, a fold or a split from its confusion matrix alone.

    Of a class without a tile there is no recall, and no F1 if it is not predicted either.

    Parameters
    ----------
    confusion
        Shape (K, K): true class down, predicted class across.
    classes
        Their names, by index.

    Examples
    --------
    >>> metrics = confusion_metrics(np.array([[2, 1], [0, 0]]), ["a", "b"])
    >>> {name: round(value, 3) for name, value in metrics.items() if "/" not in name}
    {'accuracy': 0.667, 'balanced_accuracy': 0.667, 'accuracy_macro': 0.667, 'f1_macro': 0.4}
    """
    keys = [*shown_in("epoch"), *shown_in("epoch", per_class=True)]
    values = compute_metrics(UnitSums.of_confusion(confusion), classes, keys)
    return {
        name: float(value)
        for name, value in values.items()
        if not (is_per_class(name) and np.isnan(value))
    }


def one_against_others(
    predictions: Predictions,
) -> Iterator[tuple[str, npt.NDArray[np.bool_], npt.NDArray[np.float32]]]:
    """Yield each class: its name, which tiles are of it, and its probabilities."""
    for index, name in enumerate(predictions.classes):
        yield name, predictions.target == index, predictions.probabilities[:, index]


def calibration_error(
    probabilities: npt.NDArray[np.float32], target: npt.NDArray[np.int64]
) -> float:
    """Return the expected calibration error: of bins of confidence, all tiles together."""
    none = np.empty(0)
    bins = confidence_bins(probabilities, target)
    return float(expected_calibration_error(UnitSums(none, none, none, none, bins=bins)))
