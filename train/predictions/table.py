"""From Arrow to tensors without a copy: which rows a process owns, and the batches of an epoch.

The tiles of a split are put in one order that only the seed decides. A process owns positions
rank, rank + world, rank + 2 world, ... of it, so any window of the order is a slice of each
process's own matrix: the batches of an epoch are the same tiles however many processes share
them, each tile belongs to exactly one process, and no row is ever gathered.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

NONE = "none"  # what a null is called among the values of a column
EMPTY = "''"  # what an empty string is called there
OWN = ("slide_id", "x", "y", "target", "split", "row", "fold")  # of keys; others are for people


def encode_slides(keys: pa.Table) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Number the slides in the order of their names; return each row's number and the names."""
    coded = keys["slide_id"].combine_chunks().dictionary_encode()
    return coded.indices.to_numpy().astype(np.int64), coded.dictionary.to_pylist()


def encode_column(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Number the values of a column of any plain type; return each row's number and their names.

    The order is that of the values. Null comes last, under the name `NONE` unless that is a value.
    """
    values = _decoded(column)
    coded = values.dictionary_encode(null_encoding="encode")
    order = pc.sort_indices(coded.dictionary).to_numpy()  # null at the end
    values = coded.dictionary.take(pa.array(order)).to_pylist()
    names = [str(value) or EMPTY for value in values]
    if values and values[-1] is None:
        names[-1] = NONE if NONE not in names[:-1] else f"({NONE})"
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.arange(len(order))
    return number[coded.indices.to_numpy()], names


def _decoded(column: pa.ChunkedArray) -> pa.Array:
    values = column.combine_chunks()
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def encode_clusters(keys: pa.Table, column: str) -> tuple[npt.NDArray[np.int64], int]:
    """Number what intervals resample; return each row's number, and how many there are.

    These are the values of a column; where it is null, each slide stands for itself.
    """
    slide, names = encode_slides(keys)
    if column == "slide_id":
        return slide, len(names)
    value, names = encode_column(keys[column])
    several = np.where(_unknown(keys[column]), len(names) + slide, value)
    units, number = np.unique(several, return_inverse=True)
    return number.astype(np.int64), len(units)


def lone_slides(keys: pa.Table, column: str) -> int:
    """Count the slides that stand for themselves, having no value in a column."""
    slide, _ = encode_slides(keys)
    return 0 if column == "slide_id" else len(np.unique(slide[_unknown(keys[column])]))


def _unknown(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    unknown: npt.NDArray[np.bool_] = _decoded(column).is_null().to_numpy(zero_copy_only=False)
    return unknown


def predictions(
    keys: pa.Table, order: npt.NDArray[np.int64], probabilities: Tensor, classes: list[str]
) -> pa.Table:
    """Return ``slide_id, x, y, target, pred, prob_<class>`` in the order of keys.

    Behind them stand the further columns that keys may have.

    Parameters
    ----------
    keys
        The table that a `TileSet` carries.
    order
        Its rows, as `Split.order`.
    probabilities
        Shape (len(order), K), by position.
    classes
        Class names, by index.
    """
    by_key = np.argsort(order)
    values = probabilities.numpy()[by_key]
    ordered = keys.take(pa.array(order[by_key]))
    table = ordered.select(["slide_id", "x", "y", "target"])
    table = table.append_column("pred", pa.array(values.argmax(axis=1)))
    for index, name in enumerate(classes):
        table = table.append_column(f"prob_{name}", pa.array(values[:, index].copy()))
    for name in (name for name in keys.column_names if name not in OWN):
        table = table.append_column(name, ordered[name])
    return table


def plural(column: str) -> str:
    """Return what the values of a column are called."""
    return {"slide_id": "slides", "patient_id": "patients"}.get(column, column)


def has_labels(keys: pa.Table) -> bool:
    """Return whether every tile has a target."""
    return len(keys) > 0 and pc.sum(keys["target"].is_null()).as_py() == 0
