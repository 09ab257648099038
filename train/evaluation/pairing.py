"""Predictions of two runs brought together: for the tiles that both have, in one order."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.errors import EmptyViewError, SchemaError
from train.predictions.table import KEYS, PROBABILITY, Predictions, classes_of

SHOWN = 3  # slides in a message


@dataclass(frozen=True)
class LeftOut:
    """Tiles of one run that are not compared, and why.

    Parameters
    ----------
    tiles
        How many predictions the run has.
    alone
        Of how many tiles the other run has none.
    slides
        Slides of which the other run has none at all.
    of_slides
        How many tiles these have.
    unlabelled
        Tiles that both have and that have no label.
    compared
        How many are left.
    """

    tiles: int
    alone: int
    slides: list[str]
    of_slides: int
    unlabelled: int
    compared: int

    @property
    def share(self) -> float:
        """The share of the run's predictions that are compared."""
        return self.compared / max(self.tiles, 1)

    def reasons(self, title: str, other: str) -> list[str]:
        """Return in words what is left out of a run, by what the runs are called."""
        words = []
        if self.slides:
            more = ", ..." if len(self.slides) > SHOWN else ""
            words.append(
                f"{self.of_slides:,} tiles of {title}, of {len(self.slides):,} slides that {other} "
                f"has none of: {', '.join(self.slides[:SHOWN])}{more}"
            )
        if rest := self.alone - self.of_slides:
            words.append(f"{rest:,} tiles of {title}, of slides that {other} has in part")
        return words


@dataclass(frozen=True)
class Pair:
    """Predictions of two runs for the tiles that both have, in the same order.

    Parameters
    ----------
    one, other
        Every tile with its label.
    of_one, of_other
        What is left out of each.
    refolded
        Tiles that the runs have in different folds.
    """

    one: Predictions
    other: Predictions
    of_one: LeftOut
    of_other: LeftOut
    refolded: int

    @property
    def left_out(self) -> int:
        """Predictions of either that are not compared."""
        return self.of_one.tiles + self.of_other.tiles - 2 * len(self.one)

    def reasons(self, one: str, other: str) -> list[str]:
        """Return in words why tiles are left out, by what the runs are called."""
        words = self.of_one.reasons(one, other) + self.of_other.reasons(other, one)
        if self.of_one.unlabelled:
            words.append(f"{self.of_one.unlabelled:,} tiles without a label")
        return words


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
    classes = _same_classes(one, other)
    if resample not in one.column_names:
        columns = [name for name in one.column_names if not name.startswith(PROBABILITY)]
        raise SchemaError(
            f"The predictions have no column {resample!r} for intervals to be over",
            found=", ".join(columns),
            fix="name one of them, or fit again with it in evidence.resample or evidence.groups",
        )
    common = _joined(one, other)
    both = common.filter(pc.is_valid(common["target"]))
    of_one, of_other = _left_out(one, other, common, both), _left_out(other, one, common, both)
    if not len(both):
        raise EmptyViewError(
            "The runs have no labelled tile in common",
            found="; ".join([f"{len(one):,} and {len(other):,} tiles",
                             *of_one.reasons("the first", "the second")]),
            fix="compare runs that validated on the same fold, or were tested on the same tiles",
        )  # fmt: skip
    unlike = pc.sum(pc.not_equal(both["target"], both["target_other"])).as_py()
    if unlike:
        raise SchemaError(
            "The runs disagree about labels", found=f"{unlike:,} of {len(both):,} tiles",
            fix="compare runs under the same rules",
        )  # fmt: skip
    return Pair(
        Predictions.from_table(one.take(both["one"]), classes, resample),
        Predictions.from_table(other.take(both["other"]), classes, resample),
        of_one,
        of_other,
        _refolded(one, other, both),
    )


def _same_classes(one: pa.Table, other: pa.Table) -> list[str]:
    classes, others = classes_of(one), classes_of(other)
    if classes != others:
        raise SchemaError(
            "The runs know other classes", found=f"{', '.join(classes)}; {', '.join(others)}",
            fix="compare runs of the same classes",
        )  # fmt: skip
    return classes


def _joined(one: pa.Table, other: pa.Table) -> pa.Table:
    """Return key, both targets, and the rows of the tiles that both have, in the order of keys."""
    first = one.select([*KEYS, "target"]).append_column("one", pa.array(np.arange(len(one))))
    second = other.select([*KEYS, "target"]).append_column("other", pa.array(np.arange(len(other))))
    both = first.join(second, list(KEYS), join_type="inner", right_suffix="_other")
    return both.sort_by([(key, "ascending") for key in KEYS])


def _left_out(table: pa.Table, other: pa.Table, common: pa.Table, both: pa.Table) -> LeftOut:
    elsewhere = pc.invert(pc.is_in(table["slide_id"], pc.unique(other["slide_id"])))
    slides = table["slide_id"].filter(elsewhere)
    return LeftOut(
        tiles=len(table),
        alone=len(table) - len(common),
        slides=sorted(pc.unique(slides).to_pylist()),
        of_slides=len(slides),
        unlabelled=len(common) - len(both),
        compared=len(both),
    )


def _refolded(one: pa.Table, other: pa.Table, both: pa.Table) -> int:
    """Count the tiles of which both runs say the fold, and not the same one."""
    if not {"fold"} <= set(one.column_names) & set(other.column_names):
        return 0
    first, second = one["fold"].take(both["one"]), other["fold"].take(both["other"])
    return int(pc.sum(pc.not_equal(first, second)).as_py() or 0)
