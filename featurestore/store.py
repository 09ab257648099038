"""FeatureStore: artifacts, views by name, what training asks for, and questions in SQL."""

import html
import os
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any, Self

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from featurestore.backend import engine, errors, query, statements
from featurestore.contract import rules, violation
from featurestore.contract.artifacts import Artifacts
from featurestore.errors import QueryError
from featurestore.folds.assignment import Assignment
from featurestore.graph import ViewGraph
from featurestore.io.objects import originals
from featurestore.io.sources import Sources
from featurestore.spec.store_spec import StoreSpec
from featurestore.spec.typed import nearest
from featurestore.views.catalogue import VIEWS, NamedView, describe_view
from featurestore.views.classes import ClassSpec, class_names, class_specs
from featurestore.views.fates import distribution_view
from featurestore.views.filters import filtered
from featurestore.views.labels import label_view

OF_BOTH = ("tiles", "labels", "coverages", "thresholds", "embeddings")
OF_TILES = (*OF_BOTH, "folds", "fates", "funnel", "classes")
OF_TEST_TILES = tuple(f"test_{name}" for name in (*OF_BOTH, "fates", "funnel"))
"""The views that SQL may ask, of training tiles and of held-out ones."""
EMBEDDINGS = ("embeddings", "test_embeddings")


class FeatureStore:
    """The views over one set of artifacts.

    Views are lazy Ibis tables, made when first asked for: ``store.view("labels")``. Those of the
    held-out tiles bear the prefix ``test_``. Files and digests of the artifacts are those of
    ``store.sources`` (`featurestore.io.sources.Sources`). A store belongs to the thread that opened
    it; its tables are joined with others of its own, or with `ibis.memtable` of whatever else.

    Parameters
    ----------
    spec
        Artifacts and rules.
    threads, memory_limit, temp_folder, database
        See `featurestore.backend.engine.connect`.
    remember
        Whether to look for earlier assignments of folds in MLflow too, not on this machine alone.
    folds
        URIs of the assignments that a run has logged which is to be replayed: that of these tiles
        under these rules is read.

    Examples
    --------
    >>> import tempfile
    >>> import pyarrow.parquet as pq
    >>> folder = tempfile.mkdtemp()
    >>> keys = {"slide_id": ["a", "a", "b", "b", "b"], "x": [0, 1, 0, 1, 2], "y": [0] * 5}
    >>> fat, nerve = [0.9, 0.0, 0.8, 0.0, 0.3], [0.0, 0.7, 0.0, 0.6, 0.0]
    >>> tiles = pa.table(keys | {"roi_coverage_Fat": fat, "roi_coverage_Nerve": nerve})
    >>> pq.write_table(tiles, f"{folder}/tiles.parquet")
    >>> embeddings = pa.table(keys | {"embedding": [[0.0, 1.0]] * 5})
    >>> pq.write_table(embeddings, f"{folder}/embeddings.parquet")
    >>> spec = StoreSpec(
    ...     tiles=f"{folder}/tiles.parquet",
    ...     embeddings=f"{folder}/embeddings.parquet",
    ...     class_indices={"Fat": 0, "Nerve": 1},
    ...     thresholds={"Fat": 0.5, "Nerve": 0.5},
    ...     k=2,
    ... )
    >>> store = FeatureStore(spec)
    >>> store.view("thresholds").order_by("slide_id", "x").dropped_by.to_pyarrow().to_pylist()
    [None, None, None, None, 'class_threshold']
    >>> store.folds()
    [0, 1]
    >>> query = "select label, count(*) as tiles from fates group by label order by label"
    >>> store.sql(query).to_pyarrow().to_pylist()
    [{'label': 'Fat', 'tiles': 3}, {'label': 'Nerve', 'tiles': 2}]
    """

    def __init__(
        self,
        spec: StoreSpec,
        threads: int | None = None,
        memory_limit: str | None = None,
        *,
        temp_folder: str | None = None,
        remember: bool = False,
        database: Path | None = None,
        folds: Collection[str] = (),
    ) -> None:
        self.spec, self.logged_folds = spec, folds
        self.sources = Sources(spec, outlined=database is None)  # whose readers fetch nothing
        self.threads, self.memory_limit = threads, memory_limit
        self.database = database
        self.connection = engine.connect(threads, memory_limit, temp_folder, spec.backend, database)
        self.remember = remember
        self.artifacts = Artifacts(spec, self.sources, self.connection)
        self._graph = ViewGraph(self.artifacts, database, remember=remember, logged_folds=folds)
        self._opened_in = os.getpid(), threading.get_ident()

    @property
    def graph(self) -> ViewGraph:
        """What the views are made of.

        Raises
        ------
        QueryError
            This is another thread, or process, than the one that opened the store: engines hang
            there rather than answer.
        """
        if self._opened_in != (os.getpid(), threading.get_ident()):
            raise QueryError(
                "A store is asked by the thread that opened it alone",
                found=f"thread {threading.current_thread().name!r} of process {os.getpid()}",
                fix="open one there: FeatureStore(store.spec)",
            )
        return self._graph

    def __getstate__(self) -> object:
        """Refuse to be pickled: an engine runs in one process."""
        raise QueryError(
            "A store cannot be sent to another process",
            found="an open engine",
            fix="send store.spec, and open it there: FeatureStore(spec)",
        )

    # -- views ---------------------------------------------------------------------------------

    def view(self, name: str) -> ir.Table:
        """Return a view by name, checked and made on its first use.

        Embeddings that lie in an object store are fetched for it.
        """
        keys_alone = bool(self.spec.encoders) and self.spec.encoder is None
        if name.endswith("embeddings") and not keys_alone:
            self.sources.dataset(name).fetch()
        return self.graph.view(name)

    def table(self, name: str) -> ir.Table:
        """Return the rows of an artifact, see `featurestore.contract.artifacts.Artifacts`."""
        return self.artifacts.table(name)

    def classes(self, prefix: str = "") -> tuple[ClassSpec, ...]:
        """Return the classes in the column order of the tiles, their coverages checked."""
        return self.graph.classes(prefix)

    def survivors(self, prefix: str) -> ir.Table:
        """Return the threshold survivors, after making sure that some can be trained on."""
        return self.graph.survivors(prefix)

    def embedding_keys(self, prefix: str = "") -> ir.Table:
        """Return the keys of the embeddings of the training or test tiles."""
        return self.graph.embedding_keys(prefix)

    def keys_of(self, artifact: str) -> ir.Table:
        """Return the keys of one encoder's embeddings; `embedding_keys` are those that all have."""
        return self.graph.keys_of(artifact)

    @property
    def assignment(self) -> Assignment | None:
        """The assignment of folds, kept or made here; None where the tiles or a hash tell them."""
        return self.graph.assignment

    @property
    def runs(self) -> tuple[str, ...]:
        """The runs whose predictions are views."""
        return self.graph.runs

    def add_runs(self, *runs: str) -> Self:
        """Make predictions views: ``predictions``, ``errors``, and a part of ``slide_classes``.

        Parameters
        ----------
        runs
            Whose: ids of runs, ``models:/`` URIs, files or folders.
        """
        self.graph.add_runs(*runs)
        return self

    def __getitem__(self, name: str) -> NamedView:
        """Return a view as an Ibis table, which a notebook shows with its grain and its SQL."""
        if name.removeprefix("test_") not in VIEWS:
            raise QueryError(
                f"There is no view {name!r}",
                found=", ".join(VIEWS) + nearest(name, VIEWS),
                fix="name one of them; test_NAME is that of the held-out tiles",
            )
        if name in query.OF_RUNS and not self.runs:
            raise QueryError(
                f"{name} are of runs",
                found="none is named",
                fix="name some: FeatureStore(spec).add_runs(RUN)",
            )
        table = self.view(name)
        self.sources.confirm()
        return NamedView(name, table, self.graph.definitions[name])

    def __repr__(self) -> str:
        return f"FeatureStore({self.spec})"

    def _repr_html_(self) -> str:
        names = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{html.escape(describe_view(name))}</td>"
            f"<td>{html.escape(', '.join(columns))}</td></tr>"
            for name, columns in self.name_views()
        )
        head = "<tr><th>view</th><th>what it is</th><th>columns</th></tr>"
        return f"<table><thead>{head}</thead><tbody>{names}</tbody></table>"

    # -- what training asks for ----------------------------------------------------------------

    def folds(self) -> list[int]:
        """Return the folds that there are."""
        if not self.graph.brings_folds:
            return list(range(self.spec.k))
        tiles = self.view("tiles")
        with errors.translated():
            return sorted(tiles.select("fold").distinct().to_pyarrow()["fold"].to_pylist())

    def predicted(self) -> ir.Table:
        """Return the tiles to predict, with their labels where they have coverages.

        Those alone for which ``where`` holds, if it is asked; no other rule drops one.
        """
        name = "predict_tiles" if self.spec.predict_tiles else "test_tiles"
        tiles = self.artifacts.tiles(name)
        if class_names(tiles.columns):
            specs = class_specs(class_names(tiles.columns), self.spec)
            violation.raise_first(rules.coverages(tiles, specs, name.replace("_", " ")))
            labels = label_view(tiles, specs, self.spec.label_rule)
        else:
            labels = tiles.mutate(target=ibis.null("int64"))
        if not self.spec.where:
            return labels
        slides = self.view("slides") if self.spec.slides else None
        both, holds = filtered(labels, slides, self.spec.where)
        return both.filter(holds).select(*labels.columns)

    def funnel(self, prefix: str = "") -> list[dict[str, Any]]:
        """Return the rows of a funnel: ``step, reason, tiles``."""
        self.survivors(prefix)
        self.sources.confirm()
        with errors.translated():
            return self.view(prefix + "funnel").to_pyarrow().to_pylist()

    def label_distribution(self) -> pa.Table:
        """Return ``fold, label, tiles, slides`` of the kept tiles."""
        fates = self.view("fates")
        self.sources.confirm()
        with errors.translated():
            return distribution_view(fates).to_pyarrow()

    # -- questions -----------------------------------------------------------------------------

    def sql(self, text: str, external: bool = False) -> ir.Table:
        """Ask one statement of the named views; the answer to a SELECT is lazy.

        DESCRIBE, SUMMARIZE, SHOW, EXPLAIN, PIVOT and UNPIVOT are answered at once.

        Parameters
        ----------
        external
            Whether it may read files and tables that are none of the views.

        Raises
        ------
        QueryError
            It is not a single statement that reads, reads something else, or the engine refuses it.
        ArtifactError
            The artifacts are not those that the views were made of, see
            `featurestore.io.sources.Sources.confirm`.
        """
        self._prepare(text)
        return statements.select(self.connection, text, query.Reach(external, self._absent()))

    def answers(self, text: str, external: bool = False) -> list[pa.Table]:
        """Ask several statements, which semicolons end; raises as `sql`, before any is answered."""
        self._prepare(text)
        return statements.answers(self.connection, text, query.Reach(external, self._absent()))

    def _prepare(self, text: str) -> None:
        """Make the views, and bring embeddings here that lie elsewhere if their values are read."""
        self.name_views()
        for name in statements.read_wholly(self.connection, text, EMBEDDINGS, "embedding"):
            self.view(name)
        self.sources.confirm()

    def _absent(self) -> dict[str, str]:
        """Return the artifact of each view that would be there, were that configured."""
        of_artifact = {"tiles": OF_TILES, "test_tiles": OF_TEST_TILES, "slides": ("slides",)}
        return {
            view: artifact
            for artifact, views in of_artifact.items()
            if not getattr(self.spec, artifact)
            for view in views
        }

    def seal(self) -> None:
        """Let the engine open no file but the artifacts, from now on: this store only answers."""
        self.name_views()
        files = self.files
        statements.seal(self.connection, [*files, *originals.places(files)])

    @property
    def files(self) -> list[Path]:
        """The files that the views read: of artifacts, of runs, and that of folds in a catalog."""
        files = self.sources.files() + [f for *_, one in self.graph.predictions for f in one.files]
        return files if self.graph.fold_file is None else [*files, self.graph.fold_file]

    def name_views(self) -> list[tuple[str, list[str]]]:
        """Create each view that the artifacts allow; return names and columns."""
        if self.spec.tiles:
            self.survivors("")
            for name in OF_TILES:
                self.graph.view(name)
        if self.spec.test_tiles:
            for name in OF_TEST_TILES:
                self.graph.view(name)
        if self.spec.slides:
            self.view("slides")
        if self.runs:
            self.view("errors")
        if self.spec.tiles or self.spec.test_tiles or self.runs:
            self.view("slide_classes")
        return engine.columns(self.connection)
