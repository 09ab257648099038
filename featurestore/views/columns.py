"""More columns of chosen tiles: the tiles' own pass through, those of their slides are joined.

Figures are told by them, and intervals are over their values; no rule reads them.
"""

from collections.abc import Iterable, Sequence

import ibis.expr.types as ir

from featurestore.errors import SchemaError
from featurestore.spec.typed import nearest
from featurestore.views.classes import COVERAGE
from featurestore.views.joins import look_up

# What views and predictions call their own columns.
TAKEN = {
    "slide_id", "x", "y", "embedding", "tissue_prop", "dominant", "label", "target", "dropped_by",
    "fold", "split", "row", "pred", "confidence",
}  # fmt: skip
PREFIXES = (COVERAGE, "prob_")
FIGURES = "to tell figures by"


def passed(columns: Iterable[str]) -> list[str]:
    """Return those columns of an artifact that no rule reads."""
    folded = ((name, name.casefold()) for name in columns)  # SQL knows no case
    return [name for name, key in folded if key not in TAKEN and not key.startswith(PREFIXES)]


def of_slides(
    tiles: ir.Table, slides: ir.Table | None, names: Sequence[str], purpose: str = FIGURES
) -> list[str]:
    """Return which columns are the slides': those that the tiles do not have.

    Parameters
    ----------
    purpose
        What they are asked for, for the message.

    Raises
    ------
    SchemaError
        Neither has one of them, or its values are lists or the like.
    """
    ours, theirs = passed(tiles.columns), passed(slides.columns) if slides is not None else []
    for name in names:
        if name not in ours and name not in theirs:
            raise SchemaError(
                f"Neither tiles nor slides have a column {name!r} {purpose}",
                found=f"tiles: {', '.join(ours) or 'none'}; "
                f"slides: {', '.join(theirs) or ('none' if slides is not None else 'no artifact')}"
                + nearest(name, [*ours, *theirs]),
                fix="name one of them or slide_id, or add it to the tiles or to the slides",
            )
        if name not in ours and name.casefold() in {column.casefold() for column in tiles.columns}:
            raise SchemaError(
                f"Tiles and slides have columns that differ from {name!r} in case alone",
                found=f"tiles: {', '.join(tiles.columns)}",
                fix="rename one of them",
            )
        kind = (tiles if name in ours else slides).schema()[name]  # type: ignore[union-attr]  # has it
        if kind.is_nested() or kind.is_binary():
            raise SchemaError(
                f"Values of column {name!r} cannot be told apart by name",
                found=f"{kind}",
                fix="name a column of strings, numbers, booleans or dates",
            )
    return [name for name in names if name not in ours]


def with_columns(
    tiles: ir.Table, slides: ir.Table | None, names: Sequence[str], purpose: str = FIGURES
) -> ir.Table:
    """Add columns of their slides to tiles; null for a slide that is not among the slides.

    Parameters
    ----------
    purpose
        As of `of_slides`.

    Raises
    ------
    SchemaError
        As `of_slides`.
    """
    wanted = of_slides(tiles, slides, names, purpose)
    if not wanted or slides is None:
        return tiles
    theirs = slides.select(*wanted, slide_id=slides.id.cast("string"))
    kept = tiles.drop(*(name for name in wanted if name in tiles.columns))
    return look_up(kept, theirs, ["slide_id"], *wanted)
