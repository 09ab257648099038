"""The artifacts of a spec as tables of one engine, found to keep the contract."""

import warnings

import ibis.expr.types as ir
from ibis.backends.sql import SQLBackend

from featurestore.contract import rules, violation
from featurestore.contract.parquet_table import NAMES, ReadOptions
from featurestore.contract.schemas import checked_table
from featurestore.contract.vectors import null_lists
from featurestore.errors import FeatureStoreWarning, about
from featurestore.io.sources import Sources
from featurestore.spec.store_spec import StoreSpec
from featurestore.views.folds import KEY

MADE_HERE = (
    "tissue_prop", "dominant", "label", "target", "dropped_by", "split", "row",
)  # fmt: skip
"""Columns of views and snapshots; SQL, which knows no case, would take an artifact's for them."""


class Artifacts:
    """Reads artifacts by the names of their keys in a spec; each is checked as it is read.

    Parameters
    ----------
    spec
        Artifacts and rules.
    sources
        Their files.
    connection
        The engine that reads them.
    """

    def __init__(self, spec: StoreSpec, sources: Sources, connection: SQLBackend) -> None:
        self.spec, self.sources, self.connection = spec, sources, connection

    def table(self, name: str) -> ir.Table:
        """Return the rows of an artifact, whose files have been found to agree.

        Raises
        ------
        SchemaError
            They do not.
        """
        options = ReadOptions({*NAMES, self.spec.kfold_group}, self.spec.absent_coverage)
        dataset, title = self.sources.dataset(name), self.spec.title(name)
        with about(name):
            return checked_table(self.connection, dataset, title, options)

    def tiles(self, name: str) -> ir.Table:
        """Return the rows of tiles, without what the views make themselves, keys checked."""
        tiles, title = self.table(name), name.replace("_", " ")
        with about(name):
            violation.raise_first(rules.key(tiles, title))
        clash = [column for column in tiles.columns if column.casefold() in MADE_HERE]
        if clash:
            warnings.warn(
                f"The {title} bring columns that the views make: {', '.join(clash)}; "
                "the views' own are used",
                FeatureStoreWarning,
                stacklevel=2,
            )
        # An exported training set is tiles and embeddings in one; views never carry vectors.
        return tiles.drop(*clash, *(name for name in ("embedding",) if name in tiles.columns))

    def embeddings(self, name: str) -> ir.Table:
        """Return keys and vectors of embeddings, both checked; NaN is for who reads the values."""
        embeddings, title = self.table(name), self.spec.title(name)
        dataset = self.sources.dataset(name)
        with about(name):
            violation.raise_first(rules.key(embeddings, title))
            violation.raise_first(rules.embedding_column(embeddings, title))
            violation.raise_first(null_lists(self.connection, dataset, title))
        return embeddings.select(*KEY, "embedding")

    def slides(self) -> ir.Table:
        """Return the rows of the slides, checked."""
        slides = self.table("slides")
        violation.raise_first(rules.slides(slides))
        return slides
