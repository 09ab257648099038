"""Snapshots: a training set on disk, named by all that determines it.

A snapshot holds the fate of every tile (``fates.parquet``, ``test_fates.parquet``: labels, folds,
reasons, and the row of each embedding), the slides, the assigned folds and a manifest. The
embeddings lie beside it in parts (`featurestore.embeddings.part`), which snapshots share: it lists
those that are its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from featurestore.backend import engine, errors
from featurestore.errors import EmptyViewError
from featurestore.folds import artifact
from featurestore.folds.origin import Origin
from featurestore.io import cache, digests
from featurestore.snapshots.layout import FATES, SLIDES, Matrices
from featurestore.snapshots.leakage import Finding, findings_of
from featurestore.snapshots.tile_set import TileSet
from featurestore.spec.rules import LabelRules, field_names
from featurestore.spec.store_spec import not_configured
from featurestore.views import columns, leakage
from featurestore.views.classes import ClassSpec, class_names, class_specs
from featurestore.views.folds import KEY, check_fold, shared_groups, split_view


@dataclass(frozen=True)
class Snapshot:
    """A training set that is whole, and that nobody removes as long as this object lives.

    Parameters
    ----------
    entry
        Its folder.
    manifest
        What determined it and what it holds, see `featurestore.snapshots.build.write`.
    matrices
        Embeddings of the training and of the test tiles, by prefix: ``""`` and ``"test_"``.
    new_folds
        Whether its folds were assigned when it was asked for, and not before.
    """

    entry: cache.CacheEntry
    manifest: dict[str, Any]
    matrices: Matrices
    new_folds: bool = False

    @property
    def digest(self) -> str:
        """SHA-256 of all that determines the content."""
        return self.manifest["digest"]

    @property
    def content(self) -> str:
        """SHA-256 of the fates: equal where the rows are, however they came about."""
        return digests.of_values(
            {name: part["content"] for name, part in self.manifest["cohorts"].items()}
        )

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.entry.folder

    def files(self, prefix: str = "") -> list[Path]:
        """Return the Parquet files with the fates of the training or test tiles, in order."""
        return sorted(self.folder.glob(f"{prefix}{FATES}*.parquet"))

    def fates(self, prefix: str = "") -> ir.Table:
        """Return the fates of the training or test tiles, each with its ``row``."""
        self._need(prefix)
        return engine.read_parquet(engine.connect(), self.files(prefix))

    @property
    def classes(self) -> tuple[ClassSpec, ...]:
        """The classes of the training tiles, in the order of their columns."""
        rules = self.manifest["rules"]
        recorded = {name: rules[name] for name in field_names(LabelRules) if name in rules}
        names = class_names(self.fates().columns)
        return class_specs(names, LabelRules(**recorded))

    def _need(self, prefix: str) -> None:
        if prefix not in self.matrices:
            raise not_configured(prefix + "tiles")

    def fit_set(self, fold: int, more: Sequence[str] = ()) -> TileSet:
        """Return the training and validation tiles of a fold, with more columns.

        Raises
        ------
        FoldError
            There is no such fold.
        EmptyViewError
            One of the two sides has no tile.
        SchemaError
            Neither tiles nor slides have a column that is asked for.
        """
        view = self.split(fold)
        tiles = self._tile_set("", view.filter(view.dropped_by.isnull()), more)
        sides = tiles.keys["split"].value_counts().to_pylist()
        if len(sides) < 2:
            raise EmptyViewError(
                f"Fold {fold} leaves one side of the split without a tile",
                found=", ".join(f"{side['counts']:,} {side['values']}" for side in sides) or "none",
                fix="choose another fold, or loosen the thresholds",
            )
        return tiles

    def split(self, fold: int) -> ir.Table:
        """Return the fates with ``split``: train or validation (null for a dropped tile)."""
        fates = self.fates()
        check_fold(fold, self.manifest["folds"])
        return split_view(fates, fold)

    def fold_set(self, more: Sequence[str] = ()) -> TileSet:
        """Return all kept training tiles, each with its ``fold`` (``split`` is ``train``)."""
        kept = leakage.kept_tiles(self.fates()).mutate(split=ibis.literal("train"))
        return self._tile_set("", kept, more, "fold")

    def test_set(self, more: Sequence[str] = ()) -> TileSet:
        """Return the held-out tiles that survive the same rules (``split`` is ``test``)."""
        kept = leakage.kept_tiles(self.fates("test_"))
        return self._tile_set("test_", kept.mutate(split=ibis.literal("test")), more)

    def _tile_set(
        self, prefix: str, view: ir.Table, more: Sequence[str], *required: str
    ) -> TileSet:
        file = self.folder / SLIDES
        slides = engine.read_parquet(view.get_backend(), [file]) if file.exists() else None
        view = columns.with_columns(view, slides, more)
        return TileSet(_chosen(view, *required, *more), self.matrices[prefix])

    def shared(self, fold: int) -> dict[str, int]:
        """Count the slides, and the fold groups, on both sides of a fold's split."""
        split = self.split(fold)
        groups = dict.fromkeys(["slide_id", self.manifest["rules"]["kfold_group"]])
        with errors.translated():
            return {
                group: int(shared_groups(split, group).count().to_pyarrow().as_py())
                for group in groups
                if group in split.columns
            }

    @property
    def findings(self) -> list[Finding]:
        """What the checks for leakage found when the snapshot was written."""
        return findings_of(self.manifest)

    @property
    def lineage(self) -> str | None:
        """Where the assigned folds come from, in a line; None where tiles or a hash tell them."""
        record = self.manifest.get("assignment")
        return Origin.of(record).described(not self.new_folds) if record else None

    def keep_folds(self) -> str | None:
        """Log the assigned folds as an artifact with a run of its own; return its URI.

        None where the tiles bring their folds, or a hash tells them.
        """
        file = self.folder / artifact.FILE
        return artifact.log(file) if file.exists() else None


def _chosen(view: ir.Table, *more: str) -> pa.Table:
    """Return the keys of a tile set, in order."""
    selected = view.select(*KEY, view.target.cast("int64").name("target"), "split", "row", *more)
    with errors.translated():
        return selected.order_by(list(KEY)).to_pyarrow()
