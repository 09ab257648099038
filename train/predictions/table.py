"""Predictions of tiles, and how their slides, clusters and groups are numbered."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

NONE = "none"  # what a null is called among the values of a column
EMPTY = "''"  # what an empty string is called there
KEYS = ("slide_id", "x", "y")
NOT_KEPT = ("target", "split", "row", "fold")  # of a tile set's keys; the others are for people
UNKNOWN = -1  # the target of a tile without a label
PROBABILITY = "prob_"  # begins the column of a class

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says of some tiles, and what is true; all of it computed once.

    Parameters
    ----------
    keys
        ``slide_id, x, y`` and the further columns that predictions are written with.
    target
        Class index of each tile, shape (tiles,); `UNKNOWN` where it has no label.
    probabilities
        float32, shape (tiles, K).
    classes
        Their names, by index.
    cluster_column
        Column of keys whose values are the units of intervals: ``slide_id``, or ``patient_id``.

    Examples
    --------
    >>> table = pa.table({
    ...     "slide_id": ["a", "b"], "x": [0, 0], "y": [0, 0], "target": [0, None],
    ...     "prob_Fat": [0.9, 0.4], "prob_Muscle": [0.1, 0.6],
    ... })
    >>> predictions = Predictions.from_table(table, ["Fat", "Muscle"])
    >>> predictions.predicted.tolist(), predictions.target.tolist(), predictions.labelled
    ([0, 1], [0, -1], False)
    >>> predictions.table().column_names
    ['slide_id', 'x', 'y', 'target', 'pred', 'prob_Fat', 'prob_Muscle']
    """

    keys: pa.Table
    target: Ints
    probabilities: npt.NDArray[np.float32]
    classes: list[str]
    cluster_column: str = "slide_id"

    @classmethod
    def of(
        cls,
        keys: pa.Table,
        probabilities: npt.NDArray[np.float32],
        classes: list[str],
        cluster_column: str = "slide_id",
    ) -> "Predictions":
        """Return the predictions of tiles.

        Parameters
        ----------
        keys
            The table that a `featurestore.snapshots.tile_set.TileSet` carries.
        probabilities
            Shape (tiles, K).
        """
        further = [name for name in keys.column_names if name not in (*KEYS, *NOT_KEPT)]
        return cls(
            keys.select([*KEYS, *further]),
            _as_target(keys["target"]),
            probabilities,
            classes,
            cluster_column,
        )

    @classmethod
    def from_table(
        cls, table: pa.Table, classes: list[str], cluster_column: str = "slide_id"
    ) -> "Predictions":
        """Return predictions that `table` has written."""
        columns = [f"{PROBABILITY}{name}" for name in classes]
        others = {*KEYS, "target", "pred", "predicted", *columns}
        further = [name for name in table.column_names if name not in others]
        probabilities = np.stack([table[name].to_numpy() for name in columns], axis=1)
        return cls(
            table.select([*KEYS, *further]),
            _as_target(table["target"]),
            probabilities.astype(np.float32, copy=False),
            classes,
            cluster_column,
        )

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def predicted(self) -> Ints:
        """The most probable class of each tile, shape (tiles,)."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def confidence(self) -> npt.NDArray[np.float32]:
        """Its probability, shape (tiles,)."""
        confidence: npt.NDArray[np.float32] = self.probabilities.max(axis=1)
        return confidence

    def by_confidence(
        self,
        mask: npt.NDArray[np.bool_],
        order: Literal["ascending", "descending"] = "ascending",
    ) -> Ints:
        """Return the tiles of a mask, the least sure first or last; of equals their keys decide."""
        tiles = np.flatnonzero(mask)
        table = self.keys.select(KEYS).take(pa.array(tiles))
        table = table.append_column("confidence", pa.array(self.confidence[tiles]))
        by = [("confidence", order), *((name, "ascending") for name in KEYS)]
        ordered: Ints = tiles[pc.sort_indices(table, sort_keys=by).to_numpy()]
        return ordered

    @cached_property
    def labelled(self) -> bool:
        """Whether every tile has a label."""
        return len(self) > 0 and bool((self.target != UNKNOWN).all())

    @cached_property
    def slide(self) -> Ints:
        """The number of each tile's slide, an index of `slides`, shape (tiles,)."""
        return self._slides[0]

    @property
    def slides(self) -> list[str]:
        """The names of the slides, by number."""
        return self._slides[1]

    @cached_property
    def _slides(self) -> tuple[Ints, list[str]]:
        return encode_slides(self.keys)

    @cached_property
    def cluster(self) -> Ints:
        """The number of the unit of intervals, slide or patient, of each tile, shape (tiles,)."""
        return encode_clusters(self.keys, self.cluster_column)[0]

    @property
    def clusters(self) -> int:
        """How many of them there are."""
        return int(self.cluster.max()) + 1 if len(self) else 0

    @property
    def cluster_name(self) -> str:
        """What they are called: slides, patients."""
        return plural(self.cluster_column)

    def by_key(self) -> "Predictions":
        """Return the same in the order of their keys; slides and clusters are numbered anew."""
        by = [(name, "ascending") for name in KEYS]
        order = pc.sort_indices(self.keys.select(KEYS), sort_keys=by)
        rows = order.to_numpy()
        return Predictions(
            self.keys.take(order),
            self.target[rows],
            self.probabilities[rows],
            self.classes,
            self.cluster_column,
        )

    def select(self, mask: npt.NDArray[np.bool_]) -> "Predictions":
        """Return those of some tiles; slides and clusters are numbered anew."""
        return Predictions(
            self.keys.filter(pa.array(mask)),
            self.target[mask],
            self.probabilities[mask],
            self.classes,
            self.cluster_column,
        )

    def with_column(self, name: str, values: npt.ArrayLike) -> "Predictions":
        """Return the same with one more column of keys, the last: the fold of each tile."""
        return Predictions(
            self.keys.append_column(name, pa.array(values)),
            self.target,
            self.probabilities,
            self.classes,
            self.cluster_column,
        )

    def table(self) -> pa.Table:
        """Return ``slide_id, x, y, target, pred, prob_<class>``, then the further columns."""
        table = self.keys.select(KEYS)
        target = pa.array(self.target, mask=self.target == UNKNOWN)
        table = table.append_column("target", target)
        table = table.append_column("pred", pa.array(self.predicted))
        for index, name in enumerate(self.classes):
            column = pa.array(self.probabilities[:, index].copy())
            table = table.append_column(f"{PROBABILITY}{name}", column)
        for name in self.keys.column_names[len(KEYS) :]:
            table = table.append_column(self.keys.field(name), self.keys[name])
        return table


def _as_target(column: pa.ChunkedArray) -> Ints:
    target: Ints = column.cast(pa.int64()).fill_null(UNKNOWN).to_numpy()
    return target


def classes_of(table: pa.Table) -> list[str]:
    """Return the classes that a table of predictions has probabilities of."""
    names = [name for name in table.column_names if name.startswith(PROBABILITY)]
    return [name.removeprefix(PROBABILITY) for name in names]


def encode_slides(keys: pa.Table) -> tuple[Ints, list[str]]:
    """Number the slides in the order of their names; return each row's number and the names."""
    coded = keys["slide_id"].combine_chunks().dictionary_encode()
    return coded.indices.to_numpy().astype(np.int64), coded.dictionary.to_pylist()


def encode_column(column: pa.ChunkedArray) -> tuple[Ints, list[str]]:
    """Number the values of a column of any plain type; return each row's number and their names.

    The order is that of the values. Null comes last, under the name `NONE` unless that is a value.
    """
    values = _decoded(column)
    coded = values.dictionary_encode(null_encoding="encode")
    order = pc.sort_indices(coded.dictionary).to_numpy()  # null at the end
    ordered = coded.dictionary.take(pa.array(order)).to_pylist()
    names = [str(value) or EMPTY for value in ordered]
    if ordered and ordered[-1] is None:
        names[-1] = NONE if NONE not in names[:-1] else f"({NONE})"
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.arange(len(order))
    return number[coded.indices.to_numpy()], names


def _decoded(column: pa.ChunkedArray) -> pa.Array:
    values = column.combine_chunks()
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def encode_clusters(keys: pa.Table, column: str) -> tuple[Ints, int]:
    """Number the units of intervals; return each row's number, and how many there are.

    These are the values of a column; where it is null, each slide stands for itself.
    """
    slide, names = encode_slides(keys)
    if column == "slide_id":
        return slide, len(names)
    value, values = encode_column(keys[column])
    by_tile = np.where(_unknown(keys[column]), len(values) + slide, value)
    clusters, number = np.unique(by_tile, return_inverse=True)
    return number.astype(np.int64), len(clusters)


def lone_slides(keys: pa.Table, column: str) -> int:
    """Count the slides that stand for themselves, having no value in a column."""
    slide, _ = encode_slides(keys)
    return 0 if column == "slide_id" else len(np.unique(slide[_unknown(keys[column])]))


def _unknown(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    unknown: npt.NDArray[np.bool_] = _decoded(column).is_null().to_numpy(zero_copy_only=False)
    return unknown


def plural(column: str) -> str:
    """Return what the values of a column are called."""
    return {"slide_id": "slides", "patient_id": "patients"}.get(column, column)


def count_by_slide(keys: pa.Table) -> pa.Table:
    """Return ``slide_id, tiles, labelled`` of the slides of some tiles.

    Parameters
    ----------
    keys
        ``slide_id``; those of a split ``train`` do not count, and without a ``target`` all have a
        label.
    """
    if "split" in keys.column_names:
        keys = keys.filter(pc.not_equal(keys["split"], "train"))
    labelled = keys["target" if "target" in keys.column_names else "slide_id"].is_valid()
    slide = keys["slide_id"].cast(pa.string())
    tiles = pa.table({"slide_id": slide, "labelled": labelled.cast(pa.int64())})
    counts = tiles.group_by("slide_id").aggregate([("labelled", "count"), ("labelled", "sum")])
    return counts.rename_columns(["slide_id", "tiles", "labelled"])


def count_values(column: pa.ChunkedArray) -> int:
    """Count the values of a column of any plain type, a null being one."""
    return len(encode_column(column)[1])
