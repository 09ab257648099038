"""The label view: coverages -> tissue_prop, dominant, label, target."""

import operator
from collections.abc import Sequence
from functools import reduce

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from featurestore.spec.literals import LabelRule
from featurestore.views import precision
from featurestore.views.classes import BACKGROUND, ClassSpec


def coverage(tiles: ir.Table, spec: ClassSpec) -> ir.FloatingValue:
    """Return the coverage of one class as a double; a sum is 1 where it would be more."""
    shares = [precision.exact(tiles[column]) for column in spec.columns]
    return ibis.least(reduce(operator.add, shares), 1.0) if len(shares) > 1 else shares[0]


def kinds_of(tiles: ir.Table, spec: ClassSpec) -> list[dt.DataType]:
    """Return the types of the columns that the coverage of one class is read from."""
    return [tiles[column].type() for column in spec.columns]


def passes(tiles: ir.Table, spec: ClassSpec) -> ir.BooleanValue:
    """Return whether a class reaches its threshold; a coverage of 0.0 never does."""
    share = coverage(tiles, spec)
    return (share > 0) & (share >= precision.reached_at(spec.threshold, kinds_of(tiles, spec)))


def highest(shares: Sequence[ir.FloatingValue]) -> ir.FloatingValue:
    """Return the row-wise maximum (DuckDB's and Spark's ``greatest`` want two arguments)."""
    return ibis.greatest(*shares) if len(shares) > 1 else shares[0]


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
    shares = [coverage(tiles, spec) for spec in classes]
    dominant = _first_highest(shares, classes)
    label = dominant
    if rule == "any_passing":
        passing = [ibis.ifelse(passes(tiles, spec), coverage(tiles, spec), 0.0) for spec in classes]
        label = _first_highest(passing, classes).fill_null(dominant)
    index = ibis.cases(
        *((label == spec.name, spec.index) for spec in classes if spec.index is not None),
        else_=ibis.null("int64"),
    )
    return tiles.mutate(
        tissue_prop=reduce(operator.add, shares),
        dominant=dominant,
        label=label.fill_null(BACKGROUND),
        target=index.cast("int64"),
    )


def _first_highest(
    shares: Sequence[ir.FloatingValue], classes: Sequence[ClassSpec]
) -> ir.StringValue:
    top = highest(shares)
    return ibis.cases(
        (top == 0, ibis.null("string")),
        *((share == top, spec.name) for share, spec in zip(shares, classes, strict=True)),
        else_=ibis.null("string"),
    )


def coverage_view(tiles: ir.Table, classes: Sequence[ClassSpec]) -> ir.Table:
    """Return the coverages in long form: one row per tile and class.

    Columns ``slide_id, x, y, class, coverage, precision``: what ad-hoc SQL asks thresholds of,
    without spelling out a column per class. A threshold is rounded to the ``precision``
    (``float32`` or ``float64``) before a coverage is compared with it.
    """
    long = [
        tiles.select(
            "slide_id",
            "x",
            "y",
            ibis.literal(spec.name, "string").name("class"),
            coverage(tiles, spec).name("coverage"),
            ibis.literal(precision.precision(*kinds_of(tiles, spec)), "string").name("precision"),
        )
        for spec in classes
    ]
    return ibis.union(*long) if len(long) > 1 else long[0]
