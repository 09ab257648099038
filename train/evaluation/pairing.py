"""Predictions of two runs brought together: for the tiles that both have, in one order."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from featurestore.errors import EmptyViewError, SchemaError
from train.predictions.table import KEYS, PROBABILITY, Predictions, classes_of


@dataclass(frozen=True)
class Pair:
    """Predictions of two runs for the tiles that both have, in the same order.

    Parameters
    ----------
    one, other
        Every tile with its label.
    left_out
        Tiles that only one has.
    """

    one: Predictions
    other: Predictions
    left_out: int


def paired(one: pa.Table, other: pa.Table, resample: str = "slide_id") -> Pair:
    """Return the predictions for the tiles that both have and that have a label.

    Raises
    ------
    SchemaError
        They are of other classes, disagree about the label of a tile, or lack the column that
        intervals are over.
    EmptyViewError
        They have no tile in common.
    """
    classes, others = classes_of(one), classes_of(other)
    if classes != others:
        raise SchemaError(
            "The runs know other classes", found=f"{', '.join(classes)}; {', '.join(others)}",
            fix="compare runs of the same classes",
        )  # fmt: skip
    if resample not in one.column_names:
        columns = [name for name in one.column_names if not name.startswith(PROBABILITY)]
        raise SchemaError(
            f"The predictions have no column {resample!r} for intervals to be over",
            found=", ".join(columns),
            fix="name one of them, or fit again with it in evidence.resample or evidence.groups",
        )
    first = one.select([*KEYS, "target"]).append_column("one", pa.array(np.arange(len(one))))
    second = other.select([*KEYS, "target"]).append_column("other", pa.array(np.arange(len(other))))
    both = first.join(second, list(KEYS), join_type="inner", right_suffix="_other").sort_by(
        [(key, "ascending") for key in KEYS]
    )
    both = both.filter(pa.compute.is_valid(both["target"]))
    if not len(both):
        raise EmptyViewError(
            "The runs have no labelled tile in common",
            found=f"{len(one):,} and {len(other):,} tiles",
            fix="compare runs that validated on the same fold, or were tested on the same tiles",
        )
    unlike = pa.compute.sum(pa.compute.not_equal(both["target"], both["target_other"])).as_py()
    if unlike:
        raise SchemaError(
            "The runs disagree about labels", found=f"{unlike:,} of {len(both):,} tiles",
            fix="compare runs under the same rules",
        )  # fmt: skip
    left_out = len(one) + len(other) - 2 * len(both)
    return Pair(
        Predictions.from_table(one.take(both["one"]), classes, resample),
        Predictions.from_table(other.take(both["other"]), classes, resample),
        left_out,
    )
