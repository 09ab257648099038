"""The tiles of a fit, with their classes and folds under every variant of the rules."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from featurestore.embeddings.matrix import EmbeddingMatrix
from featurestore.snapshots.tile_set import TileSet
from train.engine.lanes import Lanes, owned
from train.engine.shard import DROPPED
from train.predictions.table import encode_clusters, encode_slides

VARIANT_COLUMNS = ["target", "split", "fold"]  # of keys that are a variant's own
TRAIN, VALIDATION = 0, 1  # the two folds of a single head

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TileTable:
    """The tiles that any variant keeps: on the main process; the others know a table of none.

    Parameters
    ----------
    keys
        ``slide_id, x, y, row`` and further columns.
    target, fold
        Under each variant, `DROPPED` where it drops the tile; shape (tiles, variants).
    matrix
        Where the embeddings are.
    """

    keys: pa.Table
    target: Rows
    fold: Rows
    matrix: EmbeddingMatrix

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def union(cls, sets: Sequence[TileSet]) -> "TileTable":
        """Return the tiles of several sets, each with one variant's targets and folds.

        They are in the order of rows of the matrix.
        """
        keys = pa.concat_tables([s.keys.drop_columns(VARIANT_COLUMNS) for s in sets])
        rows, first = np.unique(keys["row"].to_numpy(), return_index=True)
        target, fold = (np.full((len(rows), len(sets)), DROPPED) for _ in range(2))
        for variant, tiles in enumerate(sets):
            place = np.searchsorted(rows, tiles.keys["row"].to_numpy())
            target[place, variant] = tiles.keys["target"].to_numpy()
            fold[place, variant] = tiles.keys["fold"].to_numpy()
        return cls(keys.take(pa.array(first)), target, fold, sets[0].matrix)

    @classmethod
    def of_split(cls, tiles: TileSet) -> "TileTable":
        """Return the tiles of a split in their order: folds `TRAIN` and `VALIDATION`."""
        target = tiles.keys["target"].fill_null(DROPPED).to_numpy()
        fold = np.where(np.asarray(tiles.keys["split"]) == "train", TRAIN, VALIDATION)
        return cls(tiles.keys, target[:, None], fold[:, None], tiles.matrix)

    def without_tiles(self) -> "TileTable":
        """Return the same without a tile, which is soon sent to other processes."""
        keys = self.keys.schema.empty_table()
        return TileTable(keys, self.target[:0].copy(), self.fold[:0].copy(), self.matrix)

    def shares(self, tiles: Rows, cluster_column: str, seed: int, world: int) -> list["TileShare"]:
        """Return what each of several processes owns of some tiles.

        Parameters
        ----------
        tiles
            Which ones, each once.
        cluster_column
            Column of keys whose values are the units of intervals.
        seed
            Decides the random order of slides.
        world
            How many processes there are.
        """
        row = self.keys["row"].to_numpy()
        tiles = tiles[np.argsort(row[tiles])]
        lanes = Lanes.cut(row[tiles], self.matrix.starts)
        cluster, clusters = encode_clusters(self.keys, cluster_column)
        rank = slide_rank(self.keys, seed)
        share = TileShare(
            self.matrix, lanes, clusters, tiles, row[tiles], self.target[tiles], self.fold[tiles],
            cluster[tiles], rank[tiles],
        )  # fmt: skip
        return [share.take(lanes.rows(owned(number, world))) for number in range(world)]


@dataclass(frozen=True)
class TileShare:
    """What one process owns of some tiles: columns of numbers, in the order of the matrix.

    Parameters
    ----------
    matrix
        Where the embeddings are.
    lanes
        Of all these tiles.
    clusters
        Number of units of intervals, over all processes.
    place, row
        Of each own tile in the table of the main process and in the matrix, shape (local rows,).
    target, fold
        As in `TileTable`, shape (local rows, variants).
    cluster, slide_rank
        As in `train.engine.shard.Shard`, shape (local rows,).
    """

    matrix: EmbeddingMatrix
    lanes: Lanes
    clusters: int
    place: Rows
    row: Rows
    target: Rows
    fold: Rows
    cluster: Rows
    slide_rank: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.row)

    def take(self, rows: slice | Rows) -> "TileShare":
        """Return some of the tiles, in another order perhaps."""
        return replace(self, **{name: getattr(self, name)[rows] for name in COLUMNS})

    @classmethod
    def concatenate(cls, shares: Sequence["TileShare"]) -> "TileShare":
        """Return the tiles of several shares, one after another."""
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(share, name) for share in shares]) for name in COLUMNS
        }
        return replace(shares[0], **columns)


COLUMNS = ("place", "row", "target", "fold", "cluster", "slide_rank")  # of a share, by tile


def slide_rank(keys: pa.Table, seed: int) -> npt.NDArray[np.float32]:
    """Return each tile's place of its slide in a random order of the slides, in (0, 1]."""
    slide, names = encode_slides(keys)
    order = np.random.default_rng(seed).permutation(len(names)) + 1
    return (order[slide] / len(names)).astype(np.float32)
