"""What a run says on its page of its model, its metrics and its failures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from train.config import text
from train.config.schema import Config
from train.evaluation.confusion import most_confused
from train.evaluation.estimates import FEW_UNITS
from train.evaluation.evaluate import Evaluation
from train.evaluation.metrics import CLASS, METRICS, shown_in
from train.evaluation.unit_sums import Counts
from train.models.checkpoint import TrainedModel
from train.models.training import Training
from train.reports.html import Headline, Page, Picture, Table, Text
from train.reports.training import add_to_page
from train.tracking.names import decode_name

WORST, MOST_CONFIDENT = 5, 5  # slides and errors that are listed
FOLDED = 12  # classes of which there is a row each, to be opened where there are more
FEW = f" (fewer than {FEW_UNITS}: they may be too narrow)"
PICTURES = {
    "classes": ("good", "F1 by class"),
    "confusion": ("good", "True and predicted classes"),
    "curves": ("good", "Curves of each class against the others"),
    "reliability": ("good", "How sure predictions are, and how often right"),
    "risk_coverage": ("good", "Errors left if only the surest predictions are given"),
    "settings": ("good", "Settings side by side"),
    "few_shot": ("good", "Macro F1 by slides of each class"),
    "slides": ("fails", "Accuracy of every slide"),
}
"""By the names of their files: the section that shows a picture, and what it shows."""
SPLITS = {"oof": "out of fold"}
"""What a split is called for people, if otherwise than in the names of metrics."""
HEADLINES = {"f1_macro": "Macro F1", "accuracy": "Accuracy"}


def add_metrics(page: Page, evaluation: Evaluation, split: str) -> None:
    """Add how good predictions are, overall and by class."""
    predictions, name = evaluation.predictions, SPLITS.get(split, split)
    values, over = evaluation.metrics, predictions.cluster_name
    ends = f"95 % over {over}"
    overall = {METRICS[key].title: values[key] for key in shown_in("page") if key in values}
    page.add("good", Table(f"Figures, {name}", {
        "figure": list(overall),
        "value": [estimate.value for estimate in overall.values()],
        ends: [estimate.text(4) for estimate in overall.values()],
    }, f"{len(predictions):,} tiles of {len(predictions.slides):,} slides. Intervals are those of "
        f"the jackknife over {predictions.clusters:,} {over}, whose tiles resemble each other"
        f"{FEW if predictions.clusters < FEW_UNITS else ''}; of errors (Brier, calibration) less "
        "is better. docs/figures.md defines each.",
        strip=[estimate.ends for estimate in overall.values()]))  # fmt: skip
    classes = predictions.classes
    f1 = [values[f"f1/{each}"] for each in classes]
    others = [key for key in shown_in("page", per_class=True) if key != f"f1/{CLASS}"]
    page.add("good", Table(f"By class, {name}", {
        "class": classes,
        "tiles": np.bincount(predictions.target, minlength=len(classes)).tolist(),
        **{METRICS[key].title: [values[key.replace(CLASS, each)].value for each in classes]
           for key in others},
        "F1": [estimate.value for estimate in f1],
        ends: [estimate.text(4) for estimate in f1],
    }, strip=[estimate.ends for estimate in f1], folded=len(classes) > FOLDED))  # fmt: skip
    page.headlines[:0] = [
        Headline(f"{title}, {name}", f"{values[key].value:.3f}", values[key].text(3))
        for key, title in HEADLINES.items()
    ]


def estimates_table(evaluation: Evaluation) -> dict[str, list[Any]]:
    """Return every metric, its interval, and on how many units it rests, as columns."""
    return {
        "metric": list(evaluation.metrics),
        **{
            name: [getattr(estimate, name) for estimate in evaluation.metrics.values()]
            for name in ("value", "low", "high", "units", "no_interval")
        },
    }


def add_groups(page: Page, title: str, worst: pa.Table) -> None:
    """Add how good predictions are by group, see `train.evaluation.groups.worst_groups`."""
    page.add("fails", Table(title, worst.to_pydict()))


def add_failures(page: Page, evaluation: Evaluation, split: str) -> None:
    """Add the worst slides, the errors with the highest confidence, and the confusions."""
    name = SPLITS.get(split, split)
    page.add(
        "fails", worst_slides(evaluation, name), most_confident_errors(evaluation, name),
        confusions(evaluation, name),
    )  # fmt: skip


def worst_slides(evaluation: Evaluation, name: str) -> Table:
    """Return the slides with the least accuracy, and what is confused on them."""
    predictions = evaluation.predictions
    columns = ("slide_id", "tiles", "accuracy")
    worst = {column: evaluation.slides[column][:WORST] for column in columns}
    number = {slide: place for place, slide in enumerate(predictions.slides)}
    cells = (
        evaluation.slide_confusion.select(number[slide], number[slide] + 1)
        for slide in worst["slide_id"]
    )
    worst["taken for another"] = [confused(each.matrix(), predictions.classes) for each in cells]
    return Table(f"Worst slides, {name}", worst)


def most_confident_errors(evaluation: Evaluation, name: str) -> Table:
    """Return the wrong predictions with the highest probability."""
    predictions = evaluation.predictions
    target, predicted, classes = predictions.target, predictions.predicted, predictions.classes
    probabilities = predictions.probabilities
    wrong = predictions.by_confidence(predicted != target, "descending")
    rows = wrong[:MOST_CONFIDENT]
    keys = predictions.keys.select(["slide_id", "x", "y"]).take(pa.array(rows)).to_pydict()
    keys |= {axis: list(map(str, keys[axis])) for axis in "xy"}  # to be copied: without commas
    return Table(f"Errors that it is surest of, {name}", {
        **keys,
        "true": [classes[index] for index in target[rows]],
        "predicted": [classes[index] for index in predicted[rows]],
        "probability": predictions.confidence[rows].astype(float).tolist(),
        "of the true class": probabilities[rows, target[rows]].astype(float).tolist(),
    }, f"{len(wrong):,} of {len(predictions):,} tiles are predicted wrongly; "
        f"at most {MOST_CONFIDENT} are listed.")  # fmt: skip


def confusions(evaluation: Evaluation, name: str) -> Table:
    """Return the classes that are taken for others most often."""
    most = evaluation.confusions
    ends = zip(most["low"], most["high"], strict=True)
    return Table(f"Taken for another, {name}", {
        **{key: most[key] for key in ("true", "predicted", "tiles", "units")},
        "share of true": [f"{share:.1%}" for share in most["share_of_true"]],
        f"95 % over {evaluation.predictions.cluster_name}": [
            f"{low:.1%} – {high:.1%}" if np.isfinite(low) else "" for low, high in ends
        ],
    }, folded=True)  # fmt: skip


def confused(confusion: Counts, classes: Sequence[str]) -> str:
    """Return what is taken for what most often, for people."""
    most = most_confused(confusion, list(classes))
    return f"{most[0]} for {most[1]} ({most[2]:,})" if most else ""


def add_picture(page: Page, file: Path) -> None:
    """Add a picture that the run has drawn, as it is now."""
    kind = decode_name(file.stem.removeprefix("oof_"))
    section, caption = PICTURES.get(kind, ("good", kind.replace("groups_", "By ")))
    page.add(section, Picture(caption, file.read_bytes()))


def add_model(
    page: Page,
    config: Config,
    trained: TrainedModel | None,
    training: Training | None,
    uri: str | None,
) -> None:
    """Add what was trained, how, and where it is registered.

    Parameters
    ----------
    trained
        The network; None where a fit makes none.
    training
        How it was trained.
    """
    spec, settings = trained.spec if trained else None, training.settings if training else {}
    how = {} if config.mode == "fit" else {"checkpoint": config.checkpoint}
    how |= settings
    if spec:
        how |= {"embedding": f"{spec.dim} numbers", "temperature": f"{spec.temperature:.4g}"}
    how |= {"model": uri or "none registered"}
    page.add("model", Table("How it is made", {
        "what": list(how), "value": [str(value) for value in how.values()]
    }, folded=True))  # fmt: skip
    if training:
        add_to_page(page, training, config.mode)
    classes = spec.classes if spec else config.class_names
    weights = spec.weights if spec else [None] * len(classes)
    # A fit's are those of the tiles that were trained on; else of the tiles that are evaluated.
    rules = training.rules if training and config.mode == "fit" else vars(config)
    page.add("model", Table("Classes", {
        "class": classes,
        "index": list(range(len(classes))),
        "least coverage": [rules["thresholds"].get(name) for name in classes],
        "weight in the loss": list(weights),
    }, f"Least sum of coverages {rules['tissue_prop_min']}; label rule {rules['label_rule']}; "
        f"tiles of several classes {'dropped' if rules['single_class'] else 'kept'}.",
        folded=True))  # fmt: skip
    kind = settings.get("probe", "logistic")
    kind = settings.get("head", "none") if kind == "logistic" else kind
    page.headlines.append(Headline("Model", kind, uri or "none registered"))
    page.add("model", Text(
        text.text(config), "The whole configuration, as it was given", code=True, folded=True
    ))  # fmt: skip
