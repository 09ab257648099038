"""How good predictions are by group: by organ, source, scanner, or any other column.

Each group is judged by its own tiles alone; its intervals resample the units that it has.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from featurestore.errors import SchemaError
from featurestore.store import FeatureStore
from featurestore.views.columns import of_slides
from train.config.schema import Config
from train.evaluation import estimates, metrics
from train.evaluation.estimates import Estimate
from train.predictions.table import encode_column, encode_slides
from train.tracking.names import encode_name

METRICS = ("accuracy", "balanced_accuracy", "f1_macro", "kappa", "calibration_error")
SHOWN = 50  # groups of a column that get intervals, metrics and a bar: those with the most tiles
MOST = 10_000  # values of a column that may still be groups
PRINTED = 10  # groups of a column
LONGEST = 250  # characters of a name that MLflow takes
AT_ONCE = 500  # resamples of a product: a group has few units, and no areas under curves


@dataclass(frozen=True)
class Group:
    """The predictions for the tiles with one value in a column.

    Parameters
    ----------
    column, value
        Which they are; the value as text.
    tiles, slides, units
        How many it has; units are what its intervals resample.
    figures
        Those of `METRICS`, with intervals where the group is shown and has two units or more.
    confused
        True class, class that it is taken for, and tiles, of its most frequent confusion.
    shown
        Whether it is among the `SHOWN` of its column with the most tiles.
    """

    column: str
    value: str
    tiles: int
    slides: int
    units: int
    figures: dict[str, Estimate]
    confused: tuple[str, str, int] | None
    shown: bool


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


def check_group_values(keys: pa.Table, columns: Sequence[str]) -> None:
    """Refuse columns of so many values that they tell no groups apart.

    Raises
    ------
    SchemaError
        One has more than `MOST`.
    """
    for column in columns:
        if (values := len(encode_column(keys[column])[1])) > MOST:
            raise SchemaError(
                f"Column {column!r} has too many values for groups",
                found=f"{values:,} values among {len(keys):,} tiles; at most {MOST:,}",
                fix="name a column of fewer values in evidence.groups, or bin it first",
            )


def by_group(
    table: pa.Table,
    columns: Sequence[str],
    target: npt.NDArray[np.int64],
    shares: npt.NDArray[np.float32],
    unit: npt.NDArray[np.int64],
    names: list[str],
    seed: int = 0,
) -> list[Group]:
    """Return the groups of each column, in the order of its values.

    Parameters
    ----------
    table
        Predictions with the columns.
    target, shares, unit
        Class index, probabilities and number of the unit of each tile, as `evidence.sums` takes
        them.
    names
        The classes, by index.
    """
    slide, _ = encode_slides(table)
    found = []
    for column in columns:
        number, values = encode_column(table[column])
        tiles = np.bincount(number, minlength=len(values))
        shown = set(np.argsort(-tiles, kind="stable")[:SHOWN].tolist())
        by_value = np.split(np.argsort(number, kind="stable"), np.cumsum(tiles)[:-1])
        for place, (value, rows) in enumerate(zip(values, by_value, strict=True)):
            sums = metrics.unit_sums(target[rows], shares[rows], unit[rows], steps=0)
            figures = _figures(sums, names, seed, place in shown)
            wrong = metrics.confused(sums.cube.sum(axis=0), names)
            slides, units = len(np.unique(slide[rows])), len(sums.cube)
            many, told = int(tiles[place]), place in shown
            found.append(Group(column, value, many, slides, units, figures, wrong, told))
    return found


def _figures(
    sums: metrics.UnitSums, names: list[str], seed: int, shown: bool
) -> dict[str, Estimate]:
    value = metrics.compute_metrics(sums.total(np.ones(len(sums.cube))), names)
    if not shown:
        return {name: Estimate(float(value[name]), np.nan, np.nan) for name in METRICS}
    found = estimates.resampled(sums, value, names, seed=seed, at_once=AT_ONCE)
    return {name: found[name] for name in METRICS}


def as_table(found: Sequence[Group]) -> dict[str, list[object]]:
    """Return groups as columns: what they are, their figures with both ends, their confusion."""
    columns: dict[str, list[object]] = {
        name: [getattr(group, name) for group in found]
        for name in ("column", "value", "tiles", "slides", "units")
    }
    for name in METRICS:
        figures = [group.figures[name] for group in found]
        columns[name] = [figure.value for figure in figures]
        columns[f"{name}_low"] = [figure.low for figure in figures]
        columns[f"{name}_high"] = [figure.high for figure in figures]
    confused = [group.confused or (None, None, 0) for group in found]
    for place, name in enumerate(("confused_true", "confused_predicted", "confused_tiles")):
        columns[name] = [wrong[place] for wrong in confused]
    return columns


def as_metrics(found: Sequence[Group], prefix: str) -> dict[str, float]:
    """Return macro F1 with its ends, and accuracy, by group: what is a number, and can be named."""
    values: dict[str, float] = {}
    for group in found:
        start = f"{prefix}/{encode_name(group.column)}/{encode_name(group.value)}"
        f1 = group.figures["f1_macro"]
        values |= {
            f"{start}/f1_macro": f1.value,
            f"{start}/f1_macro_low": f1.low,
            f"{start}/f1_macro_high": f1.high,
            f"{start}/accuracy": group.figures["accuracy"].value,
        }
    return {
        name: value for name, value in values.items() if np.isfinite(value) and len(name) <= LONGEST
    }


def shown(found: Sequence[Group]) -> pa.Table:
    """Return what fits a terminal of groups of one column: the worst ones, the worst first."""
    worst = sorted(found, key=lambda group: group.figures["f1_macro"].value)[:PRINTED]
    f1 = [group.figures["f1_macro"] for group in worst]
    confused = [group.confused for group in worst]
    return pa.table(
        {
            "value": [group.value for group in worst],
            "tiles": [group.tiles for group in worst],
            "slides": [group.slides for group in worst],
            "macro F1": [f"{figure.value:.4f}" for figure in f1],
            "95 %": [
                f"{figure.low:.2f} .. {figure.high:.2f}" if np.isfinite(figure.low) else ""
                for figure in f1
            ],
            "cal. error": [f"{g.figures['calibration_error'].value:.3f}" for g in worst],
            "most confused": [f"{c[0]} as {c[1]}: {c[2]:,}" if c else "" for c in confused],
        }
    )


def by_slide(table: pa.Table, columns: Sequence[str], slides: list[str]) -> dict[str, list[str]]:
    """Return each slide's values of some columns, joined by commas where it has several."""
    slide, names = encode_slides(table)
    found = {}
    for column in columns:
        number, values = encode_column(table[column])
        own: dict[str, list[str]] = {}
        for place, value in np.unique(np.stack([slide, number], axis=1), axis=0).tolist():
            own.setdefault(names[place], []).append(values[value])
        found[column] = [", ".join(own[name]) for name in slides]
    return found
