"""The threshold view: the first reason, in a fixed order, for which a tile is dropped."""

import operator
from collections.abc import Sequence
from functools import reduce

import ibis
import ibis.expr.types as ir

from featurestore.spec.literals import LabelRule
from featurestore.views import precision
from featurestore.views.classes import BACKGROUND, ClassSpec
from featurestore.views.labels import coverage, highest, passes

REASONS = (BACKGROUND, "tissue", "multi_class", "class_threshold")


def threshold_view(
    labels: ir.Table,
    classes: Sequence[ClassSpec],
    tissue_prop_min: float,
    single_class: bool = True,
    rule: LabelRule = "dominant",
) -> ir.Table:
    """Add ``dropped_by``: one of `REASONS`, the first that holds, or null for a survivor.

    Parameters
    ----------
    labels
        The label view.
    classes
        The classes in column order.
    tissue_prop_min
        Least sum of coverages, see `featurestore.views.precision.floor`.
    single_class
        Whether a tile with coverage of more than one class is dropped (``multi_class``).
    rule
        The rule that made the labels: under ``dominant`` the dominant class must reach its
        threshold, under ``any_passing`` any class.
    """
    shares = [coverage(labels, spec) for spec in classes]
    kinds = [labels[spec.column].type() for spec in classes]
    present = reduce(operator.add, ((share > 0).cast("int64") for share in shares))
    if rule == "any_passing":
        reached = reduce(operator.or_, (passes(labels, spec) for spec in classes))
    else:
        reached = ibis.cases(
            *((labels.dominant == spec.name, passes(labels, spec)) for spec in classes),
            else_=False,
        )
    tests = {
        BACKGROUND: highest(shares) == 0,
        "tissue": labels.tissue_prop < precision.floor(tissue_prop_min, kinds),
        "multi_class": (present > 1) & single_class,
        "class_threshold": ~reached,
    }
    return labels.mutate(
        dropped_by=ibis.cases(
            *((tests[reason], reason) for reason in REASONS), else_=ibis.null("string")
        )
    )
