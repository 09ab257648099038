"""Where tiles and embeddings meet, slide by slide, and where they would if keys were changed."""

import ibis
import ibis.expr.types as ir

from featurestore.views.folds import KEY
from featurestore.views.joins import look_up

FARTHEST = 2**40
"""Pixels: beyond them no slide reaches, and a multiple of them would not fit 64 bits."""


def match_view(tiles: ir.Table, embeddings: ir.Table) -> ir.Table:
    """Count the tiles of each slide, and those of them whose key has no embedding.

    Parameters
    ----------
    tiles, embeddings
        Any tables with the key, unique in each; no other column is read.

    Returns
    -------
    ir.Table
        ``slide_id, tiles, missing``, one row per slide of the tiles.
    """
    keys = embeddings.select(*KEY, embedded=ibis.literal(True))
    joined = look_up(tiles.select(*KEY), keys, KEY, "embedded")
    return joined.group_by("slide_id").aggregate(
        tiles=joined.count(), missing=joined.count(where=joined.embedded.isnull())
    )


def extent_view(keys: ir.Table) -> ir.Table:
    """Return what each slide's tiles span, and how far apart they are.

    Parameters
    ----------
    keys
        Any table with the key; what lies beyond `FARTHEST` is left out.

    Returns
    -------
    ir.Table
        ``slide_id, min_x, max_x, step_x, min_y, max_y, step_y``, one row per slide. A step is the
        least distance of two different values; null where there is one value alone.
    """
    near = _near(keys)
    x, y = _extent(near, "x"), _extent(near, "y")
    return x.inner_join(y, "slide_id").select(
        "slide_id", "min_x", "max_x", "step_x", "min_y", "max_y", "step_y"
    )


def _near(keys: ir.Table) -> ir.Table:
    """Return the keys that are not beyond `FARTHEST`."""
    within = [keys[name].between(-FARTHEST, FARTHEST) for name in ("x", "y")]
    near = keys.filter(within)
    return near.select("slide_id", x=near.x.cast("int64"), y=near.y.cast("int64"))


def _extent(keys: ir.Table, name: str) -> ir.Table:
    values = keys.select("slide_id", value=keys[name]).distinct()
    window = ibis.window(group_by="slide_id", order_by="value")
    values = values.mutate(step=values.value - values.value.lag().over(window))
    return values.group_by("slide_id").aggregate(
        **{
            f"min_{name}": values.value.min(),
            f"max_{name}": values.value.max(),
            f"step_{name}": values.step.min(),
        }
    )


def rekeyed_view(missing: ir.Table, changes: ir.Table, embeddings: ir.Table) -> ir.Table:
    """Count the embeddings that tiles would have if their keys were changed.

    Each embedding counts once, however many tiles would share it.

    Parameters
    ----------
    missing
        Any table with the key, of tiles without an embedding.
    changes
        ``change, slide_id, other_id, swapped, times, over, plus_x, plus_y``: a number for each
        change and, for each slide that it is about, the name that this slide has among the
        embeddings, whether x and y change places, and then by what both are multiplied, divided
        (rounded down) and moved.
    embeddings
        Any table with the key, of those that no tile has.

    Returns
    -------
    ir.Table
        ``change, matched``, one row per change that matches any.
    """
    near = _near(missing)
    keys = near.select("slide_id", tile_x=near.x, tile_y=near.y)
    named = [name for name in changes.columns if name != "slide_id"]
    both = keys.inner_join(changes, "slide_id").select("tile_x", "tile_y", *named)
    x = ibis.ifelse(both.swapped, both.tile_y, both.tile_x)
    y = ibis.ifelse(both.swapped, both.tile_x, both.tile_y)
    changed = both.select(
        "change",
        slide_id=both.other_id,
        x=(x * both.times // both.over).cast("int64") + both.plus_x,
        y=(y * both.times // both.over).cast("int64") + both.plus_y,
    )
    matched = changed.semi_join(embeddings, list(KEY)).distinct()
    return matched.group_by("change").aggregate(matched=matched.count())
