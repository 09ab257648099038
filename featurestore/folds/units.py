"""What folds are assigned to: groups, or tiles on their own; numbered by their own order."""

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.backend import engine
from featurestore.backend.errors import translated
from featurestore.errors import FoldError
from featurestore.folds.extend import Codes
from featurestore.spec.rules import FoldRules
from featurestore.views.folds import KEY

BYTES_A_TILE = 32  # x, y, the target and the ends of two texts
TILES = "kept_tiles"
"""Of a group, a slide and a class: how many tiles there are."""


def unit_columns(rules: FoldRules) -> list[str]:
    """Return the columns that name what a fold is of: a tile, or a group and a slide in it."""
    grouped = rules.kfold_strategy == "stratified_group"
    return list(dict.fromkeys([rules.kfold_group, "slide_id"])) if grouped else list(KEY)


def fold_units(survivors: ir.Table, rules: FoldRules) -> pa.Table:
    """Return what folds are assigned to, see `featurestore.folds.assign.assign_folds`.

    Parameters
    ----------
    survivors
        The tiles that survive the thresholds.

    Raises
    ------
    FoldError
        They are tiles on their own, and more than Spark lets through to one machine.
    """
    columns = list(dict.fromkeys([*unit_columns(rules), "label", "target"]))
    with translated():
        if rules.kfold_strategy == "stratified":
            _check_collected(survivors)
            return survivors.select(*columns).order_by(list(KEY)).to_pyarrow()
        counts = survivors.group_by(columns).aggregate(survivors.count().name(TILES))
        return counts.to_pyarrow()


def _check_collected(survivors: ir.Table) -> None:
    most = engine.most_collected(survivors.get_backend())
    if most is None:
        return
    text = survivors.slide_id.length() + survivors.label.length()
    sizes = survivors.aggregate(tiles=survivors.count(), text=text.sum())
    [size] = sizes.to_pyarrow().to_pylist()
    need = size["text"] + size["tiles"] * BYTES_A_TILE
    if need > most:
        raise FoldError(
            "scikit-learn's folds of tiles want every tile on the driver",
            found=f"{size['tiles']:,} tiles, {need / 1e6:,.0f} MB; "
            f"spark.driver.maxResultSize allows {most / 1e6:,.0f} MB",
            fix="set fold_rule=hash, which the executors compute; or "
            "kfold_strategy=stratified_group; or raise spark.driver.maxResultSize",
        )


def group_codes(column: pa.ChunkedArray) -> tuple[Codes, pa.Array]:
    """Number values by their own order, as scikit-learn does, not by that of the rows.

    Returns
    -------
    codes, values
        The number of each row's value; the values in order.
    """
    coded = column.combine_chunks().dictionary_encode()
    order = pc.array_sort_indices(coded.dictionary)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order.to_numpy()] = np.arange(len(rank))
    return rank[coded.indices.to_numpy()], coded.dictionary.take(order)
