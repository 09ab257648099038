"""Predictions in a file a slide: which rows make a slide up, and how it gets whole onto disk.

A tile's place is its row in the keys, which are sorted: a slide is a range of places, and the file
of a slide is complete as soon as all of them have been added, in whatever order the embeddings lie.
See docs/decisions/015-partitions.md.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from featurestore.backend import engine, errors
from featurestore.contract import rules
from featurestore.embeddings.batches import RowGroup, read_keys, row_groups
from featurestore.errors import ArtifactError, EmptyViewError
from featurestore.io import digests
from featurestore.spec.rules import LABELLING, values_of
from featurestore.store import FeatureStore
from featurestore.views import columns
from featurestore.views.folds import KEY
from featurestore.views.joins import look_up
from train.predictions.partitions import FORMAT

OWN = (*KEY, "target", "row")  # of keys; others are for people

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PredictionSet:
    """Tiles to predict, and the row groups that hold their embeddings.

    Parameters
    ----------
    keys
        ``slide_id, x, y, target, row``, sorted by key; ``row`` is that among all embeddings.
    pieces
        Row groups, in order.
    dim
        Length of an embedding.
    manifest
        What determines the predictions.
    embeddings
        The files of the embeddings by name.
    model
        The name of what predicts, for people.
    """

    keys: pa.Table
    pieces: list[RowGroup]
    dim: int
    manifest: dict[str, Any]
    embeddings: Mapping[str, Path]
    model: str | None = None

    @cached_property
    def _coded(self) -> pa.DictionaryArray:
        return self.keys["slide_id"].combine_chunks().dictionary_encode()

    @cached_property
    def slides(self) -> list[str]:
        """Names, in order: a slide's number is its place here."""
        return self._coded.dictionary.to_pylist()

    @cached_property
    def slide(self) -> npt.NDArray[np.int32]:
        """The slide's number of each place."""
        return self._coded.indices.to_numpy()

    @cached_property
    def starts(self) -> Places:
        """The first place of each slide, and the number of all."""
        return np.searchsorted(self.slide, np.arange(len(self.slides) + 1))

    def places(self, finished: Sequence[int]) -> Places:
        """Return the place of each row of the embeddings, -1 where nobody asks for it.

        Parameters
        ----------
        finished
            Slides that need not be read.
        """
        place = np.full(sum(piece.rows for piece in self.pieces), -1)
        asked = np.flatnonzero(~np.isin(self.slide, finished))
        place[self.keys["row"].to_numpy()[asked]] = asked
        return place

    def share(self, places: Places, rank: int, world: int) -> list[RowGroup]:
        """Return the row groups that one of several processes reads: neighbours, of like size.

        Those that hold no row that is asked for are nobody's.
        """
        work = [p for p in self.pieces if (places[p.start : p.start + p.rows] >= 0).any()]
        rows = np.array([piece.rows for piece in work])
        middle = rows.cumsum() - rows / 2
        owner = middle * world // max(rows.sum(), 1)
        return [
            piece for piece, rank_of_group in zip(work, owner, strict=True) if rank_of_group == rank
        ]


def prediction_set(store: FeatureStore, checkpoint: str, more: Sequence[str] = ()) -> PredictionSet:
    """Return every tile to predict that has an embedding; no embedding is read.

    Parameters
    ----------
    checkpoint
        The digest of what predicts.
    more
        Further columns of tiles or slides that predictions carry.

    Raises
    ------
    EmptyViewError
        There is none.
    ArtifactError
        The artifacts were changed since the store first read them.
    """
    dataset = store.sources.dataset("test_embeddings")
    dim = rules.dimension(store.view("test_embeddings"))
    embedded = read_keys(dataset.filled)
    embedded = embedded.append_column("row", pa.array(np.arange(len(embedded))))
    slides = store.view("slides") if store.spec.slides else None
    asked = columns.with_columns(store.predicted(), slides, more)
    keys = _joined(asked, engine.register(store.connection, "embedded", embedded), more)
    if not len(keys):
        raise EmptyViewError(
            "No tile has an embedding: the join is empty",
            found=f"{len(dataset.files)} embedding files, {len(embedded):,} rows",
            fix="check that both artifacts are of one cohort and spell their keys alike",
        )
    tiles = "predict_tiles" if store.spec.predict_tiles else "test_tiles"
    manifest = {
        "format": FORMAT,
        "checkpoint": checkpoint,
        "tiles": digests.digest(store.sources.dataset(tiles).named, remember=False),
        "embeddings": digests.stamp(dataset.named),
        "columns": list(more),
        **values_of(store.spec, LABELLING),
    }
    store.sources.confirm()
    manifest = json.loads(json.dumps(manifest, default=dict))
    return PredictionSet(keys, row_groups(dataset.filled), dim, manifest, dataset.named)


def _joined(tiles: ir.Table, embedded: ir.Table, more: Sequence[str]) -> pa.Table:
    both = look_up(tiles, embedded, KEY, "row")
    both = both.filter(both.row.notnull())
    rows = both.select(*KEY, both.target.cast("int64").name("target"), "row", *more)
    with errors.translated():
        return rows.order_by(list(KEY)).to_pyarrow()


# -- what is on disk ----------------------------------------------------------------------------


def check_sources(cohort: PredictionSet) -> None:
    """Refuse embeddings that were changed while they were read.

    Raises
    ------
    ArtifactError
        They were: nobody knows of which ones the predictions are.
    """
    exists = all(file.exists() for file in cohort.embeddings.values())
    if not exists or digests.stamp(cohort.embeddings) != cohort.manifest["embeddings"]:
        raise ArtifactError(
            "The embeddings were changed while they were read",
            found="another size, time or file than before",
            fix="run again without resume, once nobody writes there",
        )
