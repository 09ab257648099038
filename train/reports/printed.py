"""What a run prints of an evaluation."""

from rich.table import Table

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
    table = Table(title=split, title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column(f"95 % over {evaluation.predictions.cluster_name}", justify="right")
    values: dict[str, float | Estimate] = {**evaluation.scores, **evaluation.metrics}
    for name, value in values.items():
        if not is_printed(name):
            continue
        if isinstance(value, Estimate):
            table.add_row(name, f"{value.value:.4f}", value.text() if value.has_interval else "")
        else:
            table.add_row(name, f"{value:.4f}", "")
    console.print(table)
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
