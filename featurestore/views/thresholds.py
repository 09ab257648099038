"""The threshold view: the first reason, in a fixed order, for which a tile is dropped."""

from collections.abc import Sequence

import ibis
import ibis.expr.types as ir

from featurestore.spec.rules import LabelRules
from featurestore.views import precision
from featurestore.views.classes import BACKGROUND, ClassSpec
from featurestore.views.filters import filtered
from featurestore.views.joins import unused
from featurestore.views.labels import coverages, kinds_of, passing, place_in, reached_at

FILTERED, DROPPED_CLASS = "filtered", "dropped_class"
REASONS = (FILTERED, BACKGROUND, DROPPED_CLASS, "tissue", "multi_class", "class_threshold")

ON_REQUEST = (FILTERED, DROPPED_CLASS)
"""Those that no tile is dropped for unless a rule asks for it."""


def possible(rules: LabelRules) -> tuple[str, ...]:
    """Return the reasons that some rules may drop a tile for, in their order."""
    asked = {FILTERED: rules.where, DROPPED_CLASS: rules.drop}
    return tuple(reason for reason in REASONS if asked.get(reason, True))


def threshold_view(
    labels: ir.Table,
    classes: Sequence[ClassSpec],
    rules: LabelRules,
    slides: ir.Table | None = None,
) -> ir.Table:
    """Add ``dropped_by``: one of `REASONS`, the first that holds, or null for a survivor.

    Parameters
    ----------
    labels
        The label view.
    classes
        The classes in column order.
    rules
        Those that the labels were made by: ``tissue_prop_min``, ``single_class`` and
        ``label_rule``. Under ``dominant`` the dominant class must reach its threshold, under
        ``any_passing`` any class. Thresholds are those of ``classes``. What ``where`` does not
        hold for is dropped first.
    slides
        The slides artifact, whose columns ``where`` may name.

    Examples
    --------
    >>> import ibis
    >>> from featurestore.views.classes import ClassSpec
    >>> from featurestore.views.labels import label_view
    >>> classes = [ClassSpec("Fat", index=0, threshold=0.5), ClassSpec("Nerve", 1, 0.1)]
    >>> tiles = ibis.memtable(
    ...     {"roi_coverage_Fat": [0.9, 0.4, 0.0, 0.4], "roi_coverage_Nerve": [0.0, 0.0, 0.1, 0.2]}
    ... )
    >>> labels = label_view(tiles, classes)
    >>> threshold_view(labels, classes, LabelRules()).dropped_by.to_pyarrow().to_pylist()
    [None, 'class_threshold', 'tissue', 'multi_class']
    """
    tiles, holds = filtered(labels, slides, rules.where or "true")
    shares = unused(tiles, "shares")
    tiles = tiles.mutate(coverages(tiles, classes).name(shares))
    listed, least = tiles[shares], reached_at(labels, classes)
    if rules.label_rule == "any_passing":
        reached = passing(listed, least).maxs() > 0
    else:
        place = place_in(listed, listed.maxs())  # of the dominant class
        reached = listed.maxs() >= least[place]
    kinds = [kind for spec in classes for kind in kinds_of(labels, spec)]
    tests = {
        FILTERED: ~holds,
        BACKGROUND: listed.maxs() == 0,
        DROPPED_CLASS: tiles.label.isin([spec.name for spec in classes if spec.index is None]),
        "tissue": tiles.tissue_prop < precision.floor(rules.tissue_prop_min, kinds),
        "multi_class": (listed.filter(lambda share: share > 0).length() > 1) & rules.single_class,
        "class_threshold": ~reached,
    }
    first = ibis.cases(
        *((tests[reason], reason) for reason in possible(rules)), else_=ibis.null("string")
    )
    return tiles.select(*labels.columns, dropped_by=first)
