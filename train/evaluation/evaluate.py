"""How good predictions are: pure, from `Predictions` to an `Evaluation`."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from train.config.sections import Evidence
from train.evaluation.calibration import risk_coverage
from train.evaluation.confusion import absent_classes, confusions, slide_accuracy, slide_summary
from train.evaluation.curves import Curve
from train.evaluation.estimates import Estimate, estimate
from train.evaluation.groups import Group, as_metrics, by_group, by_slide
from train.evaluation.jackknife import Floats
from train.evaluation.metrics import confusion_metrics, one_against_others
from train.evaluation.unit_sums import ConfusionCells, Counts, confidence_bins, confusion_cells
from train.predictions.table import Predictions, lone_slides
from train.tracking.names import encode_name


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How good predictions are.

    Parameters
    ----------
    predictions
        Of what; every tile with its label.
    settings
        What intervals leave out, by which columns there are groups.
    metrics
        Metrics with 95 % intervals, by the names of `train.evaluation.metrics.METRICS`.
    scores
        Those of the confusion matrix and of its slides, without an interval.
    slide_confusion
        Tiles by slide, true and predicted class.
    slides
        A table of the slides, the worst first.
    groups
        The groups of the columns that are asked for.
    confusions
        A table of the classes taken for others most often.
    lone_slides
        Slides without a value in the column of units, each of which is a unit of its own.
    loss
        The mean cross entropy, each tile weighted by its class; None where nobody has told it.
    """

    predictions: Predictions
    settings: Evidence
    metrics: dict[str, Estimate]
    scores: dict[str, float]
    slide_confusion: ConfusionCells
    slides: dict[str, list[Any]]
    groups: Sequence[Group]
    confusions: dict[str, list[Any]]
    lone_slides: int
    loss: float | None = None

    @cached_property
    def confusion(self) -> Counts:
        """Tiles by true and predicted class, shape (K, K)."""
        return self.slide_confusion.matrix()

    @property
    def absent_classes(self) -> list[str]:
        """The classes in neither truth nor prediction, which macro means leave out."""
        return absent_classes(self.confusion, self.predictions.classes)

    # What pictures show is computed if one is drawn.

    @cached_property
    def bins(self) -> Floats:
        """Tiles, sums of confidence and hits by bin of confidence, shape (BINS, 3)."""
        return confidence_bins(self.predictions.probabilities, self.predictions.target)

    @cached_property
    def curves(self) -> dict[str, Curve]:
        """The curves of each class that some tiles have and others do not."""
        return {
            name: Curve.of(of_class, probability)
            for name, of_class, probability in one_against_others(self.predictions)
            if of_class.any() and not of_class.all()
        }

    @cached_property
    def risk_coverage(self) -> dict[str, list[float]]:
        """How many errors are left if only the surest predictions are given."""
        return risk_coverage(self.predictions.probabilities, self.predictions.target)


def evaluate(predictions: Predictions, settings: Evidence, loss: float | None = None) -> Evaluation:
    """Return how good predictions are.

    Parameters
    ----------
    predictions
        Every tile with its label.
    settings
        The configuration's ``evidence``.
    loss
        The mean cross entropy that whoever made the predictions has computed.

    Examples
    --------
    >>> import pyarrow as pa
    >>> table = pa.table({
    ...     "slide_id": ["a", "a", "b"], "x": [0, 1, 0], "y": [0, 0, 0], "target": [0, 1, 1],
    ...     "prob_Fat": [0.9, 0.6, 0.2], "prob_Muscle": [0.1, 0.4, 0.8],
    ... })
    >>> evaluation = evaluate(Predictions.from_table(table, ["Fat", "Muscle"]), Evidence())
    >>> evaluation.confusion.tolist(), evaluation.slides["slide_id"]
    ([[1, 0], [1, 1]], ['a', 'b'])
    >>> evaluation.metrics["f1_macro"].value == evaluation.scores["f1_macro"]
    True
    """
    target, predicted, classes = predictions.target, predictions.predicted, predictions.classes
    slide_confusion = confusion_cells(
        predictions.slide, len(predictions.slides), predicted, target, len(classes)
    )
    slides = slide_accuracy(slide_confusion, predictions.slides)
    scores = confusion_metrics(confusion := slide_confusion.matrix(), classes)
    return Evaluation(
        predictions=predictions,
        settings=settings,
        metrics=estimate(predictions, settings.ordered),
        scores=scores | slide_summary(slides["accuracy"]),
        slide_confusion=slide_confusion,
        slides={**by_slide(predictions.keys, settings.groups, slides["slide_id"]), **slides},
        groups=by_group(predictions, settings.groups),
        confusions=confusions(predictions, confusion),
        lone_slides=lone_slides(predictions.keys, predictions.cluster_column),
        loss=loss,
    )


def evaluation_metrics(evaluation: Evaluation, split: str) -> dict[str, float]:
    """Return all figures of an evaluation by the names that they have in MLflow.

    Parameters
    ----------
    split
        What was evaluated: ``validation``, ``test``, ``oof`` or ``predict``.

    Returns
    -------
    dict
        ``best/<split>/accuracy``, ``best/<split>/f1_low/<class>``,
        ``best/<split>/group/<column>/<value>/f1_macro`` and so on; of intervals what is a number.
    """
    prefix = f"best/{split}"
    values = {} if evaluation.loss is None else {f"{prefix}/loss": evaluation.loss}
    values |= encode_metrics(evaluation.scores, prefix)
    values |= encode_metrics(with_ends(evaluation.metrics), prefix)
    groups = [group for group in evaluation.groups if group.is_shown]
    return values | as_metrics(groups, f"{prefix}/group")


def with_ends(metrics: dict[str, Estimate]) -> dict[str, float]:
    """Return metrics and the ends of their intervals by name, what is a number.

    Examples
    --------
    >>> with_ends({"f1/Fat": Estimate(0.5, 0.4, float("nan"))})
    {'f1/Fat': 0.5, 'f1_low/Fat': 0.4}
    """
    values = {}
    for name, metric in metrics.items():
        kind, slash, of_class = name.partition("/")
        for end, value in zip(("", "_low", "_high"), metric.ends, strict=True):
            if np.isfinite(value):
                values[f"{kind}{end}{slash}{of_class}"] = value
    return values


def encode_metrics(metrics: dict[str, float], prefix: str) -> dict[str, float]:
    """Prefix the names of metrics, the class in them spelled as MLflow takes it.

    Examples
    --------
    >>> encode_metrics({"f1/a b": 0.5}, "best/test")
    {'best/test/f1/a.20b': 0.5}
    """
    values = {}
    for name, value in metrics.items():
        kind, slash, of_class = name.partition("/")
        values[f"{prefix}/{kind}{slash}{encode_name(of_class)}"] = value
    return values
