"""The tiles that a fit, a test or a prediction works on."""

from dataclasses import dataclass

import pyarrow as pa

from featurestore.embeddings.matrix import EmbeddingMatrix


@dataclass(frozen=True)
class TileSet:
    """Tiles chosen for a purpose, and where their embeddings are.

    Parameters
    ----------
    keys
        ``slide_id, x, y, target, split, row``, sorted by key; ``target`` is null where unknown,
        ``row`` is that of the matrix. Behind them, more columns of tiles or slides if asked for.
    matrix
        The embeddings.
    """

    keys: pa.Table
    matrix: EmbeddingMatrix
