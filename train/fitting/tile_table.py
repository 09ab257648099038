"""The tiles of a fit, with their classes and folds under every variant of the rules."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from featurestore.embeddings.matrix import EmbeddingMatrix
from featurestore.snapshots.tile_set import TileSet
from train.engine.shard import DROPPED
from train.predictions.table import encode_slides

VARIANT_COLUMNS = ["target", "split", "fold"]  # of keys that are a variant's own
TRAIN, VALIDATION = 0, 1  # the two folds of a single head

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TileTable:
    """The tiles that any variant keeps.

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


def slide_rank(keys: pa.Table, seed: int) -> npt.NDArray[np.float32]:
    """Return each tile's place of its slide in a random order of the slides, in (0, 1]."""
    slide, names = encode_slides(keys)
    order = np.random.default_rng(seed).permutation(len(names)) + 1
    return (order[slide] / len(names)).astype(np.float32)
