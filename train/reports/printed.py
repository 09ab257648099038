"""What a run prints of an evaluation."""

from featurestore.console.tables import Column, print_columns
from featurestore.printing import Console
from train.evaluation.estimates import FEW_UNITS, Estimate
from train.evaluation.evaluate import Evaluation
from train.evaluation.metrics import METRICS


def lone_slides(console: Console, evaluation: Evaluation, split: str) -> None:
    """Say how many slides have no value in the column of units."""
    if evaluation.lone_slides:
        column = evaluation.predictions.cluster_column
        console.print(
            f"{split}: {evaluation.lone_slides:,} slides have no {column}; each is a unit of "
            "its own"
        )


def metrics(console: Console, evaluation: Evaluation, split: str) -> None:
    """Print the figures that people compare runs by."""
    values: dict[str, float | Estimate] = {**evaluation.scores, **evaluation.metrics}
    printed = {name: value for name, value in values.items() if is_printed(name)}
    estimates = [each if isinstance(each, Estimate) else None for each in printed.values()]
    figures = [each.value if isinstance(each, Estimate) else each for each in printed.values()]
    intervals = [each.text() if each and each.has_interval else "" for each in estimates]
    columns = [
        Column("metric", list(printed)),
        Column("value", [f"{value:.4f}" for value in figures], True),
        Column(f"95 % over {evaluation.predictions.cluster_name}", intervals, True),
    ]
    print_columns(columns, console, split)


def notes(console: Console, evaluation: Evaluation) -> None:
    """Print what must be known of the figures: of how few units they are, of which classes none."""
    units, over = evaluation.predictions.clusters, evaluation.predictions.cluster_name
    if units < FEW_UNITS:
        console.print(f"of {units} {over}: intervals of fewer than {FEW_UNITS} may be too narrow")
    if absent := evaluation.absent_classes:
        console.print(f"left out of macro means, being absent: {', '.join(absent)}")


def is_printed(name: str) -> bool:
    """Return whether a figure is for the console: those of classes are many, and on the page."""
    if name.startswith("slide_accuracy/"):
        return True
    return name in METRICS and bool({"console", "epoch"} & METRICS[name].shown_in)
