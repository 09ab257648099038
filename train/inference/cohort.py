"""What is predicted: which tiles have an embedding, and in which files these lie.

The engine joins tiles with the keys of the embeddings. What grows with the tiles stays with it, on
the main process; all processes know the slides. See docs/decisions/037-predictions-in-a-stream.md.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from featurestore.backend import engine, errors
from featurestore.contract.vectors import dimension
from featurestore.embeddings.batches import KEYS, file_keys
from featurestore.errors import ArtifactError
from featurestore.io import digests
from featurestore.io.parquet import Dataset, Fragment
from featurestore.spec.rules import LABELLING, values_of
from featurestore.store import FeatureStore
from featurestore.validation import check_join
from featurestore.views import columns
from featurestore.views.folds import KEY
from featurestore.views.joins import look_up
from train.predictions.partitions import FORMAT

Counts = npt.NDArray[np.int64]

ROW = pa.field("row", pa.int64())


@dataclass(frozen=True)
class PredictionSet:
    """Tiles to predict, and the files that hold their embeddings.

    Parameters
    ----------
    slides
        ``slide_id, tiles, labelled``: how many tiles of each slide have an embedding, and how many
        of these a label; sorted by name. A slide's number is its row here.
    dim
        Length of an embedding.
    manifest
        What determines the predictions.
    fragments
        Those of the embeddings, in order, that have rows.
    embeddings
        All of them by name.
    tiles
        Their ``slide_id, x, y, target, row`` and further columns, as a table of DuckDB on the main
        process; ``row`` is that among all embeddings.
    missing
        ``slide_id, x, y`` of the tiles that were asked for and have none; like ``tiles``.
    model
        The name of what predicts, for people.
    """

    slides: pa.Table
    dim: int
    manifest: dict[str, Any]
    fragments: Sequence[Fragment] = ()
    embeddings: Mapping[str, Path] = field(default_factory=dict)
    tiles: ir.Table | None = None
    missing: ir.Table | None = None
    model: str | None = None

    def __len__(self) -> int:
        return int(self.counts.sum())

    @cached_property
    def names(self) -> list[str]:
        """The names of the slides, by number."""
        return self.slides["slide_id"].to_pylist()

    @cached_property
    def counts(self) -> Counts:
        """The tiles of each slide."""
        return self.slides["tiles"].to_numpy()

    @property
    def labelled(self) -> bool:
        """Whether every tile has a label."""
        return int(self.slides["labelled"].to_numpy().sum()) == len(self)

    def values(self, names: Sequence[str]) -> dict[str, int]:
        """Count the values of some further columns, a null being one; on the main process."""
        assert self.tiles is not None
        with errors.translated():
            return {
                name: self.tiles.select(name).distinct().count().to_pyarrow().as_py()
                for name in names
            }

    def named(self, tiles: pa.Table) -> pa.Table:
        """Return tiles with the names of their slides in place of the numbers."""
        return tiles.set_column(0, "slide_id", self.slides["slide_id"].take(tiles["slide_id"]))

    def without_tiles(self) -> Self:
        """Return what the other processes are given, which does not grow with the tiles."""
        return replace(self, tiles=None, missing=None)


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
    EmptyViewError, JoinError
        There is none; or more than ``allow_missing`` of the tiles, or of a slide, have none.
    ArtifactError
        The artifacts were changed since the store first read them.
    """
    store.sources.confirm()
    check_join(store, "predict_tiles")
    dataset = store.sources.dataset("test_embeddings").fetch()
    dim = dimension(dataset)
    asked = _joined(store, dataset, more)
    tiles, missing = asked.filter(asked.row.notnull()), asked.filter(asked.row.isnull())
    slides = _by_slide(tiles)
    named = "predict_tiles" if store.spec.predict_tiles else "test_tiles"
    manifest = {
        "format": FORMAT,
        "checkpoint": checkpoint,
        "tiles": digests.digest(store.sources.dataset(named).named, remember=False),
        "embeddings": digests.stamp(dataset.named),
        "columns": list(more),
        **values_of(store.spec, LABELLING),
        **_mask(store),
    }
    store.sources.confirm()
    manifest = json.loads(json.dumps(manifest, default=dict))
    return PredictionSet(
        slides, dim, manifest, dataset.filled, dataset.named, tiles, missing.select(*KEY)
    )


def _mask(store: FeatureStore) -> dict[str, str]:
    """Return what determines which tiles are asked for, where not all of them are."""
    if not store.spec.where:
        return {}
    slides = {"slides": store.sources.dataset("slides").digest()} if store.spec.slides else {}
    return {"where": store.spec.where, **slides}


def _joined(store: FeatureStore, dataset: Dataset, more: Sequence[str]) -> ir.Table:
    """Return the tiles that are asked for, computed once; without an embedding, ``row`` is null."""
    slides = store.view("slides") if store.spec.slides else None
    asked = columns.with_columns(store.predicted(), slides, more)
    keys = pa.RecordBatchReader.from_batches(KEYS.append(ROW), _numbered_keys(dataset))
    both = look_up(asked, engine.register(store.connection, "embedded", keys), KEY, ROW.name)
    rows = both.select(*KEY, both.target.cast("int64").name("target"), ROW.name, *more)
    if store.spec.backend == "duckdb":
        return engine.keep(rows)
    with errors.translated():
        return engine.register(engine.connect(), "cohort", rows.to_pyarrow())


def _numbered_keys(dataset: Dataset) -> Iterator[pa.RecordBatch]:
    """Yield the keys of all embeddings with the numbers of their rows, file after file."""
    start = 0
    for fragment in dataset.filled:
        keys = file_keys(fragment)
        keys = keys.append_column(ROW, pa.array(np.arange(start, start + len(keys))))
        start += len(keys)
        yield from keys.to_batches()


def _by_slide(tiles: ir.Table) -> pa.Table:
    counted = tiles.group_by("slide_id").aggregate(
        tiles=tiles.count(), labelled=tiles.target.count()
    )
    with errors.translated():
        return counted.order_by("slide_id").to_pyarrow()


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
