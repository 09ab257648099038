"""From Arrow to tensors without a copy: which rows a process owns, and the batches of an epoch.

The tiles of a split are put in one order that only the seed decides. A process owns positions
rank, rank + world, rank + 2 world, ... of it, so any window of the order is a slice of each
process's own matrix: the batches of an epoch are the same tiles however many processes share
them, each tile belongs to exactly one process, and no row is ever gathered.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from featurestore.atomic import write_bytes
from featurestore.spec import TileSet
from train.order import Window

UNKNOWN = -1  # target of a tile without a label
NONE = "none"  # what a null is called among the values of a column
EMPTY = "''"  # what an empty string is called there
OWN = ("slide_id", "x", "y", "target", "split", "row", "fold")  # of keys; others are for people


@dataclass(frozen=True)
class Split:
    """One process's share of a split.

    Parameters
    ----------
    x
        Its embeddings, float32, shape (own rows, dim).
    target, slide
        Their class index (`UNKNOWN` without a label) and slide number, shape (own rows,).
    slides
        Number of slides in the whole set.
    order
        Row in the table of keys of every position, own or not, shape (rows,).
    targets
        Class index at every position, shape (rows,).
    rank, world
        Which of how many processes this is.
    """

    x: Tensor
    target: Tensor
    slide: Tensor
    slides: int
    order: npt.NDArray[np.int64]
    targets: Tensor
    rank: int
    world: int

    def __len__(self) -> int:
        return len(self.order)

    def own(self, start: int, stop: int) -> slice:
        """Return where positions start .. stop lie among the own rows."""
        return slice(*((edge - self.rank + self.world - 1) // self.world for edge in (start, stop)))

    def batch(self, window: Window, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the own embeddings and targets of a window: views, unless it wraps around."""
        parts = [self.own(start, stop) for start, stop in window]
        x, target = (
            rows[parts[0]] if len(parts) == 1 else torch.cat([rows[part] for part in parts])
            for rows in (self.x, self.target)
        )
        return x.to(device, non_blocking=True), target.to(device, non_blocking=True)

    def on(self, device: torch.device) -> "Split":
        """Bring the own rows to a device, the embeddings only where they fit.

        What does not fit stays in page-locked memory, from which batches are copied as they come.
        """
        if device.type == "cpu":
            return self
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
        fits = self.x.nbytes < 0.8 * free
        x = self.x.to(device) if fits else self.x.pin_memory()
        return replace(self, x=x, target=self.target.to(device), slide=self.slide.to(device))


def load_splits(
    tiles: TileSet, seed: int, rank: int = 0, world: int = 1, threads: int | None = None
) -> dict[str, Split]:
    """Copy the embeddings that a process owns, once, into its memory.

    Parameters
    ----------
    tiles
        The chosen tiles. Those of split ``train`` are shuffled, others keep the order of keys.
    seed
        Decides the shuffle.
    rank, world
        Which of how many processes this is.
    threads
        See `featurestore.matrix.Matrix.gather`.
    """
    sides = np.asarray(tiles.keys["split"].combine_chunks().dictionary_encode().to_numpy(False))
    orders, own, places, offset = {}, [], [], 0
    for side in sorted(set(sides.tolist())):
        order = np.flatnonzero(sides == side)
        if side == "train":
            order = np.random.default_rng(seed).permutation(order)
        orders[side] = order
        mine = order[rank::world]
        own.append(mine)
        places.append(offset + np.arange(len(mine)))
        offset += len(mine)
    rows = np.concatenate(own)
    lines = tiles.keys["row"].to_numpy()[rows]
    matrix = tiles.matrix.gather(lines, np.concatenate(places), threads)
    target = tiles.keys["target"].fill_null(UNKNOWN).to_numpy()
    slide, names = slide_numbers(tiles.keys)
    splits, start = {}, 0
    for side, mine in zip(orders, own, strict=True):
        splits[side] = Split(
            x=torch.from_numpy(matrix[start : start + len(mine)]),
            target=torch.from_numpy(target[mine]),
            slide=torch.from_numpy(slide[mine]),
            slides=len(names),
            order=orders[side],
            targets=torch.from_numpy(target[orders[side]]),
            rank=rank,
            world=world,
        )
        start += len(mine)
    return splits


def slide_numbers(keys: pa.Table) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Number the slides in the order of their names; return each row's number and the names."""
    coded = keys["slide_id"].combine_chunks().dictionary_encode()
    return coded.indices.to_numpy().astype(np.int64), coded.dictionary.to_pylist()


def numbered(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Number the values of a column of any plain type; return each row's number and their names.

    The order is that of the values. Null comes last, under the name `NONE` unless that is a value.
    """
    values = _decoded(column)
    coded = values.dictionary_encode(null_encoding="encode")
    order = pc.sort_indices(coded.dictionary).to_numpy()  # null at the end
    known = coded.dictionary.take(pa.array(order)).to_pylist()
    names = [str(value) or EMPTY for value in known]
    if known and known[-1] is None:
        names[-1] = NONE if NONE not in names[:-1] else f"({NONE})"
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.arange(len(order))
    return number[coded.indices.to_numpy()], names


def _decoded(column: pa.ChunkedArray) -> pa.Array:
    values = column.combine_chunks()
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def unit_numbers(keys: pa.Table, column: str) -> tuple[npt.NDArray[np.int64], int]:
    """Number what intervals resample; return each row's number, and how many there are.

    These are the values of a column; where it is null, each slide stands for itself.
    """
    slide, names = slide_numbers(keys)
    if column == "slide_id":
        return slide, len(names)
    value, known = numbered(keys[column])
    several = np.where(_unknown(keys[column]), len(known) + slide, value)
    units, number = np.unique(several, return_inverse=True)
    return number.astype(np.int64), len(units)


def lone_slides(keys: pa.Table, column: str) -> int:
    """Count the slides that stand for themselves, having no value in a column."""
    slide, _ = slide_numbers(keys)
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
    chosen = keys.take(pa.array(order[by_key]))
    table = chosen.select(["slide_id", "x", "y", "target"])
    table = table.append_column("pred", pa.array(values.argmax(axis=1)))
    for index, name in enumerate(classes):
        table = table.append_column(f"prob_{name}", pa.array(values[:, index].copy()))
    for name in (name for name in keys.column_names if name not in OWN):
        table = table.append_column(name, chosen[name])
    return table


def plural(column: str) -> str:
    """Return what the values of a column are called."""
    return {"slide_id": "slides", "patient_id": "patients"}.get(column, column)


def as_json(columns: Mapping[str, list[Any]]) -> str:
    """Return a table as MLflow writes it, numbers that are none as null: ``columns``, ``data``."""
    rows = zip(*columns.values(), strict=True)
    data = [[None if value != value else value for value in row] for row in rows]
    return json.dumps({"columns": list(columns), "data": data}, ensure_ascii=False)


def write_json(path: Path, columns: Mapping[str, list[Any]]) -> Path:
    """Write a table, see `as_json`."""
    write_bytes(path, as_json(columns).encode())
    return path


def write_parquet(path: Path, table: pa.Table) -> Path:
    """Write a table by temporary name and rename."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_bytes(path, sink.getvalue().to_pybytes())
    return path


def as_tensor(block: npt.NDArray[np.float32]) -> Tensor:
    """Return a matrix as a tensor without a copy, be it one that must not be written to.

    torch warns of such memory of NumPy's, and not of Arrow's.
    """
    if block.flags.writeable:
        return torch.from_numpy(block)
    flat: Tensor = torch.from_dlpack(pa.array(block.reshape(-1)))
    return flat.view(block.shape)


def count_targets(targets: Tensor, classes: int) -> Tensor:
    """Return the number of tiles per class, shape (classes,)."""
    return torch.bincount(targets[targets != UNKNOWN], minlength=classes)


def has_labels(keys: pa.Table) -> bool:
    """Return whether every tile has a target."""
    return len(keys) > 0 and pc.sum(keys["target"].is_null()).as_py() == 0
