"""The label view: coverages -> tissue_prop, dominant, label, target.

Classes are entries of lists, not columns: what is asked of each of them is written once, and the
text of a query grows with the number of classes, not with its square.
"""

import operator
from collections.abc import Sequence
from functools import reduce

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from featurestore.spec.literals import LabelRule
from featurestore.views import precision
from featurestore.views.classes import BACKGROUND, ClassSpec
from featurestore.views.joins import unused


def coverage(tiles: ir.Table, spec: ClassSpec) -> ir.FloatingValue:
    """Return the coverage of one class as a double; a sum is 1 where it would be more."""
    shares = [precision.exact(tiles[column]) for column in spec.columns]
    return ibis.least(reduce(operator.add, shares), 1.0) if len(shares) > 1 else shares[0]


def coverages(tiles: ir.Table, classes: Sequence[ClassSpec]) -> ir.ArrayValue:
    """Return the coverages of all classes as a list of doubles, in their order."""
    return ibis.array([coverage(tiles, spec) for spec in classes])


def kinds_of(tiles: ir.Table, spec: ClassSpec) -> list[dt.DataType]:
    """Return the types of the columns that the coverage of one class is read from."""
    return [tiles[column].type() for column in spec.columns]


def reached_at(tiles: ir.Table, classes: Sequence[ClassSpec]) -> ir.ArrayValue:
    """Return what the coverage of each class must reach, and be above 0, as a list of doubles."""
    least = [precision.reached_at(spec.threshold, kinds_of(tiles, spec)) for spec in classes]
    return doubles(least)


def doubles(values: Sequence[float]) -> ir.ArrayValue:
    """Return a list of doubles."""
    return ibis.literal(list(map(float, values)), "array<float64>")


def passing(shares: ir.ArrayValue, least: ir.ArrayValue) -> ir.ArrayValue:
    """Return the coverages that are above 0 and reach what they must; 0 in place of others."""
    pairs = shares.zip(least)
    return pairs.map(lambda pair: ibis.ifelse((pair.f1 > 0) & (pair.f1 >= pair.f2), pair.f1, 0.0))


def label_view(
    tiles: ir.Table, classes: Sequence[ClassSpec], rule: LabelRule = "dominant"
) -> ir.Table:
    """Add the label of each tile.

    Parameters
    ----------
    tiles
        One row per tile with the coverage columns of the classes, in [0, 1].
    classes
        The classes in column order: the first of equal coverages is dominant.
    rule
        ``dominant`` labels a tile with its largest coverage; ``any_passing`` with the largest
        among the classes that reach their threshold (or the dominant one where none does, to be
        dropped by ``class_threshold``).

    Returns
    -------
    ir.Table
        The columns of ``tiles`` and ``tissue_prop`` (sum of the coverages), ``dominant`` (null
        without any coverage), ``label`` (``background`` without any) and ``target`` (the label's
        index, null for ``background`` and for a class that is dropped).

    Examples
    --------
    >>> import ibis
    >>> from featurestore.views.classes import ClassSpec
    >>> classes = [ClassSpec("Fat", index=0, threshold=0.5), ClassSpec("Nerve", 1, 0.1)]
    >>> tiles = ibis.memtable(
    ...     {"roi_coverage_Fat": [0.9, 0.4, 0.0], "roi_coverage_Nerve": [0.0, 0.2, 0.0]}
    ... )
    >>> label_view(tiles, classes).label.to_pyarrow().to_pylist()
    ['Fat', 'Fat', 'background']
    >>> label_view(tiles, classes, "any_passing").label.to_pyarrow().to_pylist()
    ['Fat', 'Nerve', 'background']
    """
    shares, highest, place, labelled = (
        unused(tiles, name) for name in ("shares", "highest", "place", "labelled")
    )
    view = tiles.mutate(coverages(tiles, classes).name(shares))
    view = view.mutate(view[shares].maxs().name(highest))
    view = view.mutate(place_in(view[shares], view[highest]).name(place))
    if rule == "any_passing":
        best = passing(view[shares], reached_at(tiles, classes))
        chosen = ibis.ifelse(best.maxs() > 0, place_in(best, best.maxs()), view[place])
    else:
        chosen = view[place]
    view = view.mutate(chosen.name(labelled))
    # No list is asked for an unknown place: Spark believes that what comes out cannot be null.
    covered = view[highest] > 0
    names = ibis.array([spec.name for spec in classes])
    indices = ibis.literal([spec.index for spec in classes], "array<int64>")
    return view.select(
        *tiles.columns,
        tissue_prop=view[shares].sums(),
        dominant=ibis.ifelse(covered, names[view[place]], ibis.null("string")),
        label=ibis.ifelse(covered, names[view[labelled]], BACKGROUND),
        target=ibis.ifelse(covered, indices[view[labelled]], ibis.null("int64")),
    )


def place_in(values: ir.ArrayValue, value: ir.Value) -> ir.IntegerValue:
    """Return the place of a value in a list, from 0; Spark takes places of 32 bits alone."""
    return values.index(value).cast("int32")


def coverage_view(tiles: ir.Table, classes: Sequence[ClassSpec]) -> ir.Table:
    """Return the coverages in long form: one row per tile and class.

    Columns ``slide_id, x, y, class, coverage, precision``: what ad-hoc SQL asks thresholds of,
    without spelling out a column per class. A threshold is rounded to the ``precision``
    (``float32`` or ``float64``) before a coverage is compared with it.
    """
    of_class = ibis.array([
        ibis.struct({
            "class": ibis.literal(spec.name, "string"),
            "coverage": coverage(tiles, spec),
            "precision": ibis.literal(precision.precision(*kinds_of(tiles, spec)), "string"),
        })
        for spec in classes
    ])  # fmt: skip
    return tiles.select("slide_id", "x", "y", of_class=of_class.unnest()).unpack("of_class")
