"""Leakage: what would make a validation or test score too good, looked for before training.

Each check is a view that holds its offenders; none of them is a check that passed. All look at kept
tiles alone.
"""

from collections.abc import Sequence

import ibis
import ibis.expr.types as ir


def kept_tiles(fates: ir.Table) -> ir.Table:
    """Return the tiles that are trained or tested on."""
    return fates.filter(fates.dropped_by.isnull())


def group_counts(fates: ir.Table, groups: Sequence[str]) -> ir.Table:
    """Count the kept tiles: the groups, ``fold`` (where there are folds), ``tiles``.

    Parameters
    ----------
    groups
        Names of columns.
    """
    kept = kept_tiles(fates)
    by = [*groups, *(name for name in ["fold"] if name in fates.columns)]
    return kept.group_by(by).aggregate(tiles=kept.count())


def groups_in_several_folds(counts: ir.Table, group: str) -> ir.Table:
    """Return the groups with kept tiles in several folds: the group, ``folds, tiles``.

    Tiles without a group, for example of an unknown patient, are not one group.

    Parameters
    ----------
    counts
        `group_counts`, of this group and others.
    """
    known = counts.filter(lambda rows: rows[group].notnull())
    groups = known.group_by(group).aggregate(folds=known.fold.nunique(), tiles=_total(known.tiles))
    return groups.filter(groups.folds > 1).order_by(group)


def groups_in_train_and_test(counts: ir.Table, test_counts: ir.Table, group: str) -> ir.Table:
    """Return the groups with kept tiles in both artifacts: the group, ``tiles, test_tiles``.

    Parameters
    ----------
    counts, test_counts
        `group_counts` of the artifacts, of this group and others.
    """
    # One artifact may hold a patient's number, the other its text.
    ours, theirs = (
        side.mutate(side[group].cast("string").name(group)) for side in (counts, test_counts)
    )
    left = ours.group_by(group).aggregate(tiles=_total(ours.tiles))
    right = theirs.group_by(group).aggregate(test_tiles=_total(theirs.tiles))
    return left.inner_join(right, group).order_by(group)


def _total(counts: ir.IntegerColumn) -> ir.IntegerScalar:
    # DuckDB's sums are 128 bits wide and reach clients as decimals.
    return counts.sum().cast("int64")


def grid_spacing(tiles: ir.Table) -> ir.Table:
    """Return how far the tiles of a slide lie apart: ``id, tile_extent_x, tile_extent_y``.

    The commonest step (of several, the smallest) between neighbours of a row, and of a column. Of
    a slide whose tiles have no neighbour in one of the two, the other stands for both, as tiles are
    square; a slide without either is left out. This is the tiles' size where the grid has neither
    gaps nor overlaps of its own.

    Parameters
    ----------
    tiles
        ``slide_id, x, y``, all tiles of the slides.
    """
    across, down = _commonest_step(tiles, "x", "y"), _commonest_step(tiles, "y", "x")
    both = across.outer_join(down, across.id_x == down.id_y)
    return both.select(
        id=ibis.coalesce(both.id_x, both.id_y),
        tile_extent_x=ibis.coalesce(both.step_x, both.step_y),
        tile_extent_y=ibis.coalesce(both.step_y, both.step_x),
    ).order_by("id")


def _commonest_step(tiles: ir.Table, along: str, across: str) -> ir.Table:
    """Return ``id_<along>, step_<along>`` of the slides with neighbours in that direction."""
    line = ibis.window(group_by=["slide_id", across], order_by=along)
    position = tiles[along].cast("int64")
    steps = tiles.select("slide_id", step=position - position.lag().over(line))
    counted = (
        steps.filter(steps.step > 0)
        .group_by(["slide_id", "step"])
        .aggregate(number=lambda rows: rows.count())
    )
    order = ibis.window(group_by="slide_id", order_by=[counted.number.desc(), counted.step])
    ranked = counted.mutate(rank=ibis.row_number().over(order))
    first = ranked.filter(ranked["rank"] == 0)
    return first.select(**{f"id_{along}": first.slide_id, f"step_{along}": first.step})


def overlapping_tiles(fates: ir.Table, slides: ir.Table) -> ir.Table:
    """Return pairs of kept tiles of one slide that share area and stand in different folds.

    Columns ``slide_id, x, y, fold, other_x, other_y, other_fold``; the first tile is the one
    further up in the order of keys. Sizes are ``tile_extent_x`` and ``tile_extent_y`` of the
    slides, in the units of x and y; they are compared within cells of that size, not all with all.
    """
    size = slides.select(
        slide_id=slides.id.cast("string"),
        width=slides.tile_extent_x.cast("int64"),
        height=slides.tile_extent_y.cast("int64"),
    )
    tiles = kept_tiles(fates).select("slide_id", "x", "y", "fold").inner_join(size, "slide_id")
    tiles = tiles.anti_join(_on_their_grid(tiles), "slide_id")
    tiles = tiles.mutate(
        column=(tiles.x / tiles.width).floor().cast("int64"),
        line=(tiles.y / tiles.height).floor().cast("int64"),
    )
    steps = ibis.array([-1, 0, 1])
    near = tiles.mutate(step_x=steps.unnest()).mutate(step_y=steps.unnest())
    other = near.select(
        "slide_id",
        column=near.column + near.step_x,
        line=near.line + near.step_y,
        other_x=near.x,
        other_y=near.y,
        other_fold=near.fold,
    )
    pairs = tiles.inner_join(other, ["slide_id", "column", "line"])
    after = (pairs.x < pairs.other_x) | ((pairs.x == pairs.other_x) & (pairs.y < pairs.other_y))
    shared = ((pairs.x - pairs.other_x).abs() < pairs.width) & (
        (pairs.y - pairs.other_y).abs() < pairs.height
    )
    overlapping = pairs.filter(after & shared & (pairs.fold != pairs.other_fold))
    return overlapping.select(
        "slide_id", "x", "y", "fold", "other_x", "other_y", "other_fold"
    ).order_by(["slide_id", "x", "y", "other_x", "other_y"])


def _on_their_grid(tiles: ir.Table) -> ir.Table:
    """Return the slides whose tiles lie a whole number of sizes apart, so that none overlap."""
    across, down = tiles.x % tiles.width, tiles.y % tiles.height
    edges = tiles.group_by("slide_id").aggregate(
        left=across.min(), right=across.max(), top=down.min(), bottom=down.max()
    )
    return edges.filter((edges.left == edges.right) & (edges.top == edges.bottom))


def duplicate_embeddings(sides: ir.Table) -> ir.Table:
    """Return the tiles whose embedding is in one cell with that of a tile on another side.

    Parameters
    ----------
    sides
        ``slide_id, x, y, side, cell``: kept tiles, the fold or ``test``, and a number that
        near embeddings share, see `featurestore.embeddings.near.cells`.

    Returns
    -------
    ir.Table
        Rows of ``sides``, those of one cell together.
    """
    groups = sides.group_by("cell").aggregate(sides=sides.side.nunique())
    shared = groups.filter(groups.sides > 1).drop("sides")
    return sides.semi_join(shared, "cell").order_by(["cell", "slide_id", "x", "y"])
