"""Coverages of some tiles that were annotated anew, put into the tiles that they are of."""

from pathlib import Path

import ibis
import ibis.expr.types as ir

from featurestore.backend import engine, errors
from featurestore.contract import rules, violation
from featurestore.contract.schemas import checked_table
from featurestore.errors import EmptyViewError
from featurestore.io import parquet
from featurestore.io.atomic import fresh_file
from featurestore.views.classes import COVERAGE
from featurestore.views.folds import KEY
from featurestore.views.joins import look_up, unused


def correct(uri: str, covered: Path, to: Path) -> int:
    """Write tiles with the coverages of those that were covered anew; return how many these are.

    Of such a tile, a class that was not asked for covers nothing: what is seen now is all that is
    there.

    Parameters
    ----------
    uri
        Of the tiles artifact.
    covered
        What `featurestore.annotations.cover.cover` has written.
    to
        The Parquet file.

    Raises
    ------
    EmptyViewError
        None of them is among the tiles.
    """
    connection = engine.connect()
    tiles = checked_table(connection, parquet.dataset(uri), "tiles")
    violation.raise_first(rules.key(tiles, "tiles"))
    fresh = checked_table(connection, parquet.dataset(str(covered)), "corrections")
    with errors.translated():
        number = int(tiles.semi_join(fresh, list(KEY)).count().to_pyarrow().as_py())
    if not number:
        raise EmptyViewError(
            f"No tile that was annotated is among those of {uri}", found=f"{covered.name}",
            fix="name the tiles that the list of label issues is of",
        )  # fmt: skip
    with fresh_file(to) as building:
        engine.write_parquet(corrected(tiles, fresh), building)
    return number


def corrected(tiles: ir.Table, fresh: ir.Table) -> ir.Table:
    """Return tiles with the coverages of others that have the same key.

    Parameters
    ----------
    tiles
        With coverages. A class that no tile has a column of gets one, if something covers it.
    fresh
        The key and coverages, which are those of the tiles from now on.
    """
    of_fresh = [name for name in fresh.columns if name.startswith(COVERAGE)]
    mark = unused(tiles, "corrected")
    names = {name: unused(tiles, f"corrected_{place}") for place, name in enumerate(of_fresh)}
    side = fresh.select(
        *KEY, **{new: fresh[old] for old, new in names.items()}, **{mark: ibis.literal(True)}
    )
    both = look_up(tiles, side, KEY, *names.values(), mark)
    is_fresh = both[mark].notnull()
    columns = {}
    for name in (name for name in tiles.columns if name.startswith(COVERAGE)):
        kind = tiles[name].type()
        now = both[names[name]].cast(kind) if name in names else ibis.literal(0.0).cast(kind)
        columns[name] = ibis.ifelse(is_fresh, now, both[name])
    with errors.translated():
        sums = fresh.aggregate(**{name: fresh[name].sum() for name in of_fresh}).to_pyarrow()
    for name in (name for name in of_fresh if name not in tiles.columns):
        if sums[name][0].as_py():
            columns[name] = both[names[name]].fill_null(0.0)
    more = [name for name in columns if name not in tiles.columns]
    return both.mutate(**columns).select(*tiles.columns, *more)
