"""FeatureStore: reads the artifacts, composes the views and names them for SQL."""

import html
import warnings
import weakref
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from featurestore.backend import engine, errors, query, statements
from featurestore.contract import predictions, rules, violation
from featurestore.contract.parquet_table import NAMES, ReadOptions
from featurestore.contract.schemas import checked_table
from featurestore.contract.vectors import null_lists
from featurestore.errors import FeatureStoreWarning, QueryError, about
from featurestore.folds import artifact, growth
from featurestore.folds.artifact import Wanted
from featurestore.folds.assign import check_hashed
from featurestore.folds.assignment import GONE, Assignment
from featurestore.folds.units import fold_units
from featurestore.io.objects import originals
from featurestore.io.parquet import Dataset
from featurestore.io.sources import Sources
from featurestore.spec.store_spec import StoreSpec
from featurestore.spec.typed import nearest
from featurestore.views.catalogue import VIEWS, NamedView, describe_view
from featurestore.views.classes import ClassSpec, class_names, class_specs, class_view
from featurestore.views.fates import (
    distribution_view,
    fate_view,
    funnel_view,
    possible_fates,
)
from featurestore.views.filters import filtered
from featurestore.views.folds import KEY, fold_view, hashed_fold_view
from featurestore.views.joins import common_keys
from featurestore.views.labels import coverage_view, label_view
from featurestore.views.predictions import error_view, prediction_view
from featurestore.views.summaries import slide_class_view, tile_classes
from featurestore.views.thresholds import threshold_view

MADE_HERE = (
    "tissue_prop", "dominant", "label", "target", "dropped_by", "split", "row",
)  # fmt: skip
"""Columns of views and snapshots; SQL, which knows no case, would take an artifact's for them."""

CACHED = ("thresholds", "fates")
"""Views that many questions are asked of, and that Spark computes once."""
OF_BOTH = ("tiles", "labels", "coverages", "thresholds", "embeddings")
OF_TILES = (*OF_BOTH, "folds", "fates", "funnel", "classes")
OF_TEST_TILES = tuple(f"test_{name}" for name in (*OF_BOTH, "fates", "funnel"))
"""The views that SQL may ask, of training tiles and of held-out ones."""
EMBEDDINGS = ("embeddings", "test_embeddings")
MANY_FILES = 64


class FeatureStore:
    """The views over one set of artifacts.

    Views are lazy Ibis tables, made when first asked for: ``store.view("labels")``. Those of the
    held-out tiles bear the prefix ``test_``. Files and digests of the artifacts are those of
    ``store.sources`` (`featurestore.io.sources.Sources`).

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
        self.runs: tuple[str, ...] = ()
        self.sources = Sources(spec, outlined=database is None)  # whose readers fetch nothing
        self.threads, self.memory_limit = threads, memory_limit
        self.database = database
        self.connection = engine.connect(threads, memory_limit, temp_folder, spec.backend, database)
        self.remember = remember
        self._fold_file: Path | None = None
        self._covered: set[str] = set()
        self._kept: dict[str, ir.Table] = {}
        self._keys: dict[str, ir.Table] = {}
        self._keys_of: dict[str, ir.Table] = {}
        self._views: dict[str, ir.Table] = {}
        self._definitions: dict[str, ir.Table] = {}
        self._cached: list[str] = []
        weakref.finalize(self, engine.uncache, self.connection, self._cached)

    # -- artifacts -----------------------------------------------------------------------------

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

    def _tiles(self, name: str) -> ir.Table:
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

    def _embeddings(self, name: str) -> ir.Table:
        embeddings, title = self.table(name), self.spec.title(name)
        dataset = self.sources.dataset(name)
        with about(name):
            violation.raise_first(rules.key(embeddings, title))
            violation.raise_first(rules.embedding_column(embeddings, title))
            violation.raise_first(null_lists(self.connection, dataset, title))
        return embeddings.select(*KEY, "embedding")

    def embedding_keys(self, prefix: str = "") -> ir.Table:
        """Return the keys of the embeddings of the training or test tiles.

        Of many files they are read once: to open a file costs as much as thousands of keys. A view
        in a file of views reads them anew, as nothing else lies in that file.
        """
        prefix = prefix if self.spec.test_embeddings else ""  # both cohorts share one artifact
        if prefix not in self._keys:
            names = self.spec.artifacts(prefix + "embeddings") or (prefix + "embeddings",)
            self._keys[prefix] = common_keys([self.keys_of(name) for name in names], KEY)
        return self._keys[prefix]

    def keys_of(self, artifact: str) -> ir.Table:
        """Return the keys of one encoder's embeddings; `embedding_keys` are those that all have."""
        if artifact not in self._keys_of:
            named = artifact in ("embeddings", "test_embeddings")
            embeddings = self._view(artifact) if named else self._embeddings(artifact)
            keys = embeddings.select(*KEY)
            many = len(self.sources.dataset(artifact).files) > MANY_FILES
            if many and self.database is None and self.spec.backend == "duckdb":
                keys = engine.keep(keys)
            self._keys_of[artifact] = keys
        return self._keys_of[artifact]

    # -- views ---------------------------------------------------------------------------------

    def view(self, name: str) -> ir.Table:
        """Return a view by name, checked and made on its first use.

        Embeddings that lie in an object store are fetched for it.
        """
        keys_alone = bool(self.spec.encoders) and self.spec.encoder is None
        if name.endswith("embeddings") and not keys_alone:
            self.sources.dataset(name).fetch()
        return self._view(name)

    def _view(self, name: str) -> ir.Table:
        if name not in self._views:
            prefix = "test_" if name.startswith("test_") else ""
            view = self._make(name.removeprefix(prefix), prefix)
            self._definitions[name] = view
            self._views[name] = engine.create_view(self.connection, name, view)
            if name.removeprefix(prefix) in CACHED:
                engine.cache(self.connection, name)
                self._cached.append(name)
        return self._views[name]

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
        return NamedView(name, table, self._definitions[name])

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

    def _make(self, name: str, prefix: str) -> ir.Table:
        match name:
            case "tiles":
                return self._tiles(prefix + "tiles")
            case "embeddings" if self.spec.encoders and self.spec.encoder is None:
                return self.embedding_keys(prefix)
            case "embeddings":
                return self._embeddings(prefix + "embeddings")
            case "slides":
                slides = self.table("slides")
                violation.raise_first(rules.slides(slides))
                return slides
            case "assigned_folds" if self.assigned is not None:
                return self.assigned
            case "predictions":
                return prediction_view(predictions.tables(self.connection, self._predicted))
            case "errors":
                return error_view(self.view("predictions"))
            case "slide_classes":
                return self._slide_classes()
        return self._derive(name, prefix)

    def _derive(self, name: str, prefix: str) -> ir.Table:
        spec, classes = self.spec, self.classes(prefix)
        match name:
            case "classes":
                return class_view(classes)
            case "coverages":
                return coverage_view(self.view(prefix + "tiles"), classes)
            case "labels":
                return label_view(self.view(prefix + "tiles"), classes, spec.label_rule)
            case "thresholds":
                slides = self.view("slides") if spec.where and spec.slides else None
                return threshold_view(self.view(prefix + "labels"), classes, spec, slides)
            case "folds":
                return self._folds()
            case "fates":
                tiles = self.view("test_thresholds" if prefix else "folds")
                return fate_view(tiles, self.embedding_keys(prefix))
            case "funnel":
                return funnel_view(self.view(prefix + "fates"), possible_fates(spec))
        raise KeyError(name)

    def classes(self, prefix: str = "") -> tuple[ClassSpec, ...]:
        """Return the classes in the column order of the tiles, their coverages checked."""
        tiles = self.view(prefix + "tiles")
        with about(prefix + "tiles"):
            return self._checked_classes(tiles, prefix)

    def _checked_classes(self, tiles: ir.Table, prefix: str) -> tuple[ClassSpec, ...]:
        specs = class_specs(class_names(tiles.columns), self.spec)
        if prefix not in self._covered:
            title = (prefix + "tiles").replace("_", " ")
            violation.raise_first(rules.coverages(tiles, specs, title))
            violation.heed(rules.merged_coverages(tiles, specs, title))
            if "fold" in tiles.columns and not prefix:
                violation.raise_first(rules.fold_column(tiles))
            if self.spec.kfold_strategy == "stratified_group" and not prefix:
                violation.raise_first(rules.group(tiles, self.spec.kfold_group))
            self._covered.add(prefix)
        return specs

    @cached_property
    def assignment(self) -> Assignment | None:
        """The assignment of folds, kept or made here; None where the tiles or a hash tell them."""
        if self._brings_folds or self.spec.fold_rule == "hash":
            return None
        spec = self.spec
        slides = self.sources.dataset("slides") if spec.where and spec.slides else None
        logged = tuple(self.logged_folds)
        wanted = Wanted(spec, self.sources.dataset("tiles"), self.remember, logged, slides)
        return growth.assignment(wanted, lambda: fold_units(self.survivors(""), self.spec))

    @property
    def _brings_folds(self) -> bool:
        return "fold" in self.sources.dataset("tiles").columns

    @cached_property
    def assigned(self) -> ir.Table | None:
        """The assigned folds of what is in the cohort, or None, as `assignment`."""
        if self.assignment is None:
            return None
        if self.database is None:
            return engine.register(self.connection, "assigned_folds", self.assignment.present)
        self._fold_file = artifact.keep(self.assignment)
        kept = engine.read_parquet(self.connection, [self._fold_file])
        present = kept.filter(~kept[GONE]).drop(GONE)
        return engine.create_view(self.connection, "assigned_folds", present)

    def _folds(self) -> ir.Table:
        """Return the threshold view with the folds of its tiles."""
        thresholds, spec = self.view("thresholds"), self.spec
        if self._brings_folds:
            return fold_view(thresholds)
        if self.assignment is not None:
            rare = self.assignment.rare
            folds = fold_view(thresholds, self.assigned, rare)
        else:
            hashed = distribution_view(hashed_fold_view(self.survivors(""), spec.k, spec.seed))
            with errors.translated():
                rare = check_hashed(hashed.to_pyarrow(), spec)
            folds = hashed_fold_view(thresholds, spec.k, spec.seed, rare)
        for name, count in rare.items():
            warnings.warn(
                f"Class {name!r} is in {count} of the {spec.k} groups that {spec.k} folds need; "
                "its tiles are dropped (rare_class)",
                FeatureStoreWarning,
                stacklevel=2,
            )
        return folds

    def add_runs(self, *runs: str) -> Self:
        """Make predictions views: ``predictions``, ``errors``, and a part of ``slide_classes``.

        Parameters
        ----------
        runs
            Whose: ids of runs, ``models:/`` URIs, files or folders.
        """
        self.runs = (*self.runs, *runs)
        for name in (*query.OF_RUNS, "slide_classes"):
            self._views.pop(name, None)
        self.__dict__.pop("_predicted", None)
        return self

    @cached_property
    def _predicted(self) -> list[tuple[str, str, Dataset]]:
        return list(predictions.datasets(self.runs))

    def _slide_classes(self) -> ir.Table:
        cohorts = {"fates": self.spec.tiles, "test_fates": self.spec.test_tiles}
        fates = {name: self.view(name) for name, uri in cohorts.items() if uri}
        tiles = tile_classes(fates, self.view("predictions") if self.runs else None)
        return slide_class_view(tiles, self.view("slides") if self.spec.slides else None)

    def survivors(self, prefix: str) -> ir.Table:
        """Return the threshold survivors, after making sure that some can be trained on."""
        if prefix not in self._kept:
            thresholds = self.view(prefix + "thresholds")
            kept = thresholds.filter(thresholds.dropped_by.isnull())
            rules.check_survivors(thresholds, kept, self.embedding_keys(prefix))
            self._kept[prefix] = kept
        return self._kept[prefix]

    # -- what training asks for ----------------------------------------------------------------

    def folds(self) -> list[int]:
        """Return the folds that there are."""
        if not self._brings_folds:
            return list(range(self.spec.k))
        tiles = self.view("tiles")
        with errors.translated():
            return sorted(tiles.select("fold").distinct().to_pyarrow()["fold"].to_pylist())

    def predicted(self) -> ir.Table:
        """Return the tiles to predict, with their labels where they have coverages.

        Those alone for which ``where`` holds, if it is asked; no other rule drops one.
        """
        name = "predict_tiles" if self.spec.predict_tiles else "test_tiles"
        tiles = self._tiles(name)
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
        files = self.sources.files() + [f for *_, one in self._predicted for f in one.files]
        return files if self._fold_file is None else [*files, self._fold_file]

    def name_views(self) -> list[tuple[str, list[str]]]:
        """Create each view that the artifacts allow; return names and columns."""
        if self.spec.tiles:
            self.survivors("")
            for name in OF_TILES:
                self._view(name)
        if self.spec.test_tiles:
            for name in OF_TEST_TILES:
                self._view(name)
        if self.spec.slides:
            self.view("slides")
        if self.runs:
            self.view("errors")
        if self.spec.tiles or self.spec.test_tiles or self.runs:
            self.view("slide_classes")
        return engine.columns(self.connection)
