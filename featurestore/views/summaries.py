"""The small tables that pictures are drawn from, as views: counts that SQL makes, not pixels."""

from collections.abc import Mapping

import ibis
import ibis.expr.types as ir

from featurestore.views.joins import look_up
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


def tile_classes(fates: Mapping[str, ir.Table], predictions: ir.Table | None = None) -> ir.Table:
    """Return ``source, slide_id, class`` of each tile: its label if it is kept, and predictions.

    Parameters
    ----------
    fates
        Views of fates by their names, which are the sources.
    predictions
        Of runs, which are sources as well: of tiles with a label or without.
    """
    classes = [
        table.filter(table.dropped_by.isnull()).select(
            ibis.literal(name, "string").name("source"), "slide_id", table.label.name("class")
        )
        for name, table in fates.items()
    ]
    if predictions is not None:
        source, of_class = predictions.run.name("source"), predictions.predicted.name("class")
        classes.append(predictions.select(source, "slide_id", of_class))
    return ibis.union(*classes)


def slide_class_view(tiles: ir.Table, slides: ir.Table | None = None) -> ir.Table:
    """Return how much of each slide each class is, in tiles, as a share and in square millimetres.

    Parameters
    ----------
    tiles
        ``source, slide_id, class``, one row a tile and source.
    slides
        The slides artifact. Where tiles overlap, each stands for what lies between it and the next.

    Returns
    -------
    ir.Table
        ``source, slide_id, class, tiles, share, mm2``; ``mm2`` is null where the size of tiles or
        pixels is not known.
    """
    counts = tiles.group_by(["source", "slide_id", "class"]).aggregate(tiles=tiles.count())
    of_slide = ibis.window(group_by=["source", "slide_id"])
    shares = counts.mutate(share=counts.tiles / counts.tiles.sum().over(of_slide).cast("float64"))
    if slides is None:
        return shares.mutate(mm2=ibis.null("float64"))
    areas = slides.select(slides.id.name("slide_id"), tile_area(slides).name("area"))
    joined = look_up(shares, areas, ["slide_id"], "area")
    return joined.mutate(mm2=joined.tiles * joined.area).drop("area")


def tile_area(slides: ir.Table) -> ir.FloatingValue:
    """Return the square millimetres that a tile of each slide stands for; null if not known."""
    sides = []
    for axis in ("x", "y"):
        extent, stride, mpp = (
            slides[name].cast("float64") if name in slides.columns else ibis.null("float64")
            for name in (f"tile_extent_{axis}", f"stride_{axis}", f"mpp_{axis}")
        )
        step = ibis.ifelse(stride < extent, stride, extent)
        sides.append(step * mpp / 1000)
    return sides[0] * sides[1]
