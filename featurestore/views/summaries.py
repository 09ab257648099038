"""The small tables that pictures are drawn from, as views: counts that SQL makes, not pixels."""

import ibis
import ibis.expr.types as ir

from featurestore.views.precision import steps_reached

BINS = 20  # of a histogram of coverages


def survival_view(fates: ir.Table, coverages: ir.Table, steps: int = 50) -> ir.Table:
    """Count, for each class, the tiles whose coverage reaches each threshold.

    Parameters
    ----------
    fates
        With ``dominant`` and ``dropped_by``. Tiles count that are kept, or dropped by the threshold
        of a class or for something after it: what a change of thresholds can touch.
    coverages
        The long form: ``slide_id, x, y, class, coverage, precision``.
    steps
        Number of thresholds above 0.

    Returns
    -------
    ir.Table
        ``class, at_least, tiles``, one row per class and threshold from 0 to 1.
    """
    touched = fates.filter(
        fates.dropped_by.isnull()
        | fates.dropped_by.isin(["class_threshold", "rare_class", "no_embedding"])
    ).select("slide_id", "x", "y", "dominant")
    dominant = coverages.rename(dominant="class").inner_join(
        touched, ["slide_id", "x", "y", "dominant"]
    )
    # Tiles in each step, then a running sum from above: every tile is looked at once.
    binned = dominant.mutate(step=steps_reached(dominant, steps))
    counts = binned.group_by(["dominant", "step"]).aggregate(tiles=binned.count())
    every = ibis.range(steps + 1).unnest().name("step").as_table()
    grid = (
        counts.select("dominant").distinct().cross_join(every.mutate(step=every.step.cast("int64")))
    )
    full = grid.left_join(counts, ["dominant", "step"], rname="{name}_counted")
    window = ibis.window(
        group_by="dominant", order_by=ibis.desc("step"), preceding=None, following=0
    )
    reached = full.tiles.fill_null(0).sum().over(window).cast("int64")
    return full.select(
        full.dominant.name("class"), (full.step / steps).name("at_least"), reached.name("tiles")
    ).order_by(["class", "at_least"])


def slide_view(fates: ir.Table) -> ir.Table:
    """Return ``slide_id, kept, dropped``, the slides with the most tiles first."""
    counts = fates.group_by("slide_id").aggregate(
        kept=fates.count(where=fates.dropped_by.isnull()),
        dropped=fates.count(where=fates.dropped_by.notnull()),
    )
    return counts.order_by([ibis.desc(counts.kept + counts.dropped), "slide_id"])


def histogram_view(coverages: ir.Table, bins: int = BINS) -> ir.Table:
    """Return ``class, low, tiles``: tiles with coverage in [low, low + 1 / bins), none at zero."""
    covered = coverages.filter(coverages.coverage > 0)
    number = ibis.least(steps_reached(covered, bins), bins - 1)
    covered = covered.mutate(low=number / bins)
    counts = covered.group_by(["class", "low"]).aggregate(tiles=covered.count())
    return counts.order_by(["class", "low"])
