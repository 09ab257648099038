"""What folds are assigned to: groups, or tiles on their own; numbered by their own order."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.folds.extend import Codes
from featurestore.spec.rules import FoldRules
from featurestore.views.folds import KEY

TILES = "kept_tiles"
"""Of a group, a slide and a class: how many tiles there are."""


def unit_columns(rules: FoldRules) -> list[str]:
    """Return the columns that name what a fold is of: a tile, or a group and a slide in it."""
    grouped = rules.kfold_strategy == "stratified_group"
    return list(dict.fromkeys([rules.kfold_group, "slide_id"])) if grouped else list(KEY)


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
