"""How good predictions are by group: by organ, source, scanner, or any other column.

Each group is judged by its own tiles alone; its intervals leave out the clusters that it has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from featurestore.errors import SchemaError
from featurestore.store import FeatureStore
from featurestore.views.columns import of_slides
from train.config.schema import Config
from train.evaluation.confusion import most_confused
from train.evaluation.estimates import Estimate, with_intervals, without_interval
from train.evaluation.metrics import compute_metrics, shown_in
from train.evaluation.unit_sums import Counts, confusion_matrix, leave_one_out, unit_sums
from train.predictions.table import Predictions, encode_column, encode_slides
from train.tracking.names import encode_name

SHOWN = 50  # groups of a column that get intervals, metrics and a bar: those with the most tiles
MOST = 10_000  # values of a column that may still be groups
PRINTED = 10  # groups of a column
LONGEST = 250  # characters of a name that MLflow takes


@dataclass(frozen=True)
class Group:
    """The predictions for the tiles with one value in a column.

    Parameters
    ----------
    column, value
        Which they are; the value as text.
    tiles, slides, clusters
        How many it has; clusters are what its intervals leave out.
    metrics
        Those of `train.evaluation.metrics.METRICS` that groups are given, with intervals where
        the group is shown and has two clusters or more.
    most_confused
        True class, class that it is taken for, and tiles, of its most frequent confusion.
    is_shown
        Whether it is among the `SHOWN` of its column with the most tiles.
    """

    column: str
    value: str
    tiles: int
    slides: int
    clusters: int
    metrics: dict[str, Estimate]
    most_confused: tuple[str, str, int] | None
    is_shown: bool


def check_group_columns(store: FeatureStore, config: Config) -> None:
    """Refuse columns that intervals and groups ask for and that tiles to be judged lack.

    Raises
    ------
    SchemaError
        As `featurestore.views.columns.of_slides`.
    """
    more = config.evidence.columns()
    if not more or config.mode == "predict":  # which looks at its tiles before it writes
        return
    slides = store.view("slides") if store.spec.slides else None
    tested = config.final and config.data.test_tiles is not None
    for name in ["test_tiles"] if config.mode == "test" else ["tiles", *["test_tiles"] * tested]:
        of_slides(store.view(name), slides, more)


def check_group_values(values: Mapping[str, int], tiles: int) -> None:
    """Refuse columns of so many values that they tell no groups apart.

    Parameters
    ----------
    values
        How many each column has.
    tiles
        How many tiles have them.

    Raises
    ------
    SchemaError
        One has more than `MOST`.
    """
    for column, number in values.items():
        if number > MOST:
            raise SchemaError(
                f"Column {column!r} has too many values for groups",
                found=f"{number:,} values among {tiles:,} tiles; at most {MOST:,}",
                fix="name a column of fewer values in evidence.groups, or bin it first",
            )


def by_group(predictions: Predictions, columns: Sequence[str]) -> list[Group]:
    """Return the groups of each column of keys, in the order of its values.

    Parameters
    ----------
    predictions
        Every tile with its label.
    """
    groups = []
    for column in columns:
        number, values = encode_column(predictions.keys[column])
        tiles = np.bincount(number, minlength=len(values))
        largest = set(np.argsort(-tiles, kind="stable")[:SHOWN].tolist())
        by_value = np.split(np.argsort(number, kind="stable"), np.cumsum(tiles)[:-1])
        for index, (value, rows) in enumerate(zip(values, by_value, strict=True)):
            classes = len(predictions.classes)
            target, predicted = predictions.target[rows], predictions.predicted[rows]
            confusion = confusion_matrix(target, predicted, classes)
            group = Group(
                column=column,
                value=value,
                tiles=len(rows),
                slides=len(np.unique(predictions.slide[rows])),
                clusters=len(np.unique(predictions.cluster[rows])),
                metrics=_metrics(predictions, rows, index in largest),
                most_confused=most_confused(confusion, predictions.classes),
                is_shown=index in largest,
            )
            groups.append(group)
    return groups


def _metrics(predictions: Predictions, rows: Counts, with_ends: bool) -> dict[str, Estimate]:
    """Return the metrics of some rows; their intervals cost more than they do."""
    keys, classes = shown_in("groups", ordered=False), predictions.classes
    target, probabilities = predictions.target[rows], predictions.probabilities[rows]
    if with_ends:
        cluster = predictions.cluster[rows]
        sums = leave_one_out(target, probabilities, cluster, with_areas=False)
        return with_intervals(sums, classes, keys)
    total = unit_sums(target, probabilities, np.zeros_like(rows), 1).sum()
    values = compute_metrics(total, classes, keys)
    return {name: without_interval(float(value)) for name, value in values.items()}


def as_table(groups: Sequence[Group]) -> dict[str, list[object]]:
    """Return groups as columns: what they are, their metrics with both ends, their confusion."""
    attributes = {"column": "column", "value": "value", "tiles": "tiles", "slides": "slides",
                  "units": "clusters"}  # fmt: skip
    columns: dict[str, list[object]] = {
        name: [getattr(group, attribute) for group in groups]
        for name, attribute in attributes.items()
    }
    for name in shown_in("groups", ordered=False):
        estimates = [group.metrics[name] for group in groups]
        columns[name] = [estimate.value for estimate in estimates]
        columns[f"{name}_low"] = [estimate.low for estimate in estimates]
        columns[f"{name}_high"] = [estimate.high for estimate in estimates]
    confusions = [group.most_confused or (None, None, 0) for group in groups]
    for place, name in enumerate(("confused_true", "confused_predicted", "confused_tiles")):
        columns[name] = [confusion[place] for confusion in confusions]
    return columns


def as_metrics(groups: Sequence[Group], prefix: str) -> dict[str, float]:
    """Return macro F1 with its ends, and accuracy, by group: what is a number, and can be named."""
    values: dict[str, float] = {}
    for group in groups:
        start = f"{prefix}/{encode_name(group.column)}/{encode_name(group.value)}"
        f1 = group.metrics["f1_macro"]
        values |= {
            f"{start}/f1_macro": f1.value,
            f"{start}/f1_macro_low": f1.low,
            f"{start}/f1_macro_high": f1.high,
            f"{start}/accuracy": group.metrics["accuracy"].value,
        }
    return {
        name: value for name, value in values.items() if np.isfinite(value) and len(name) <= LONGEST
    }


def worst_groups(groups: Sequence[Group]) -> pa.Table:
    """Return what fits a terminal of groups of one column: the worst ones, the worst first."""
    worst = sorted(groups, key=lambda group: group.metrics["f1_macro"].value)[:PRINTED]
    f1 = [group.metrics["f1_macro"] for group in worst]
    confused = [group.most_confused for group in worst]
    return pa.table(
        {
            "value": [group.value for group in worst],
            "tiles": [group.tiles for group in worst],
            "slides": [group.slides for group in worst],
            "macro F1": [f"{estimate.value:.4f}" for estimate in f1],
            "95 %": [estimate.text(2) for estimate in f1],
            "cal. error": [f"{g.metrics['calibration_error'].value:.3f}" for g in worst],
            "most confused": [f"{c[0]} as {c[1]}: {c[2]:,}" if c else "" for c in confused],
        }
    )


def by_slide(keys: pa.Table, columns: Sequence[str], slides: Sequence[str]) -> dict[str, list[str]]:
    """Return each slide's values of some columns, joined by commas where it has several."""
    slide, names = encode_slides(keys)
    by_column = {}
    for column in columns:
        number, values = encode_column(keys[column])
        of_slide: dict[str, list[str]] = {}
        for index, value in np.unique(np.stack([slide, number], axis=1), axis=0).tolist():
            of_slide.setdefault(names[index], []).append(values[value])
        by_column[column] = [", ".join(of_slide[name]) for name in slides]
    return by_column
