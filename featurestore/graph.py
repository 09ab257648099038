"""Views by name: which artifacts and other views each is made of, and that it is made once."""

import warnings
import weakref
from collections.abc import Collection
from functools import cached_property
from pathlib import Path

import ibis.expr.types as ir

from featurestore.backend import engine, errors, query
from featurestore.contract import predictions as run_predictions
from featurestore.contract import rules, violation
from featurestore.contract.artifacts import Artifacts
from featurestore.errors import FeatureStoreWarning, about
from featurestore.folds import artifact, growth
from featurestore.folds.artifact import Wanted
from featurestore.folds.assign import check_hashed
from featurestore.folds.assignment import GONE, Assignment
from featurestore.folds.units import fold_units
from featurestore.io.parquet import Dataset
from featurestore.views.classes import ClassSpec, class_names, class_specs, class_view
from featurestore.views.fates import distribution_view, fate_view, funnel_view, possible_fates
from featurestore.views.folds import KEY, fold_view, hashed_fold_view
from featurestore.views.joins import common_keys
from featurestore.views.labels import coverage_view, label_view
from featurestore.views.predictions import error_view, prediction_view
from featurestore.views.summaries import slide_class_view, tile_classes
from featurestore.views.thresholds import threshold_view

CACHED = ("thresholds", "fates")
"""Views that many questions are asked of, and that Spark computes once."""
MANY_FILES = 64


class ViewGraph:
    """The views of one cohort, lazy tables that the engine knows by name.

    Those of the held-out tiles bear the prefix ``test_``.

    Parameters
    ----------
    artifacts
        What they are made of, and by which rules.
    database
        The file that they are views in, if they are to outlive this process.
    remember, logged_folds
        As ``remember`` and ``folds`` of `featurestore.store.FeatureStore`.

    Attributes
    ----------
    definitions
        The expressions that the names stand for.
    runs
        Whose predictions are views as well.
    fold_file
        The file of the folds that a view in `database` reads.
    """

    def __init__(
        self,
        artifacts: Artifacts,
        database: Path | None,
        *,
        remember: bool,
        logged_folds: Collection[str],
    ) -> None:
        self.artifacts, self.database = artifacts, database
        self.spec, self.sources = artifacts.spec, artifacts.sources
        self.connection = artifacts.connection
        self.remember, self.logged_folds = remember, logged_folds
        self.runs: tuple[str, ...] = ()
        self.fold_file: Path | None = None
        self.definitions: dict[str, ir.Table] = {}
        self._covered: set[str] = set()
        self._kept: dict[str, ir.Table] = {}
        self._keys: dict[str, ir.Table] = {}
        self._keys_of: dict[str, ir.Table] = {}
        self._views: dict[str, ir.Table] = {}
        self._cached: list[str] = []
        weakref.finalize(self, engine.uncache, self.connection, self._cached)

    def view(self, name: str) -> ir.Table:
        """Return a view by name, checked and made on its first use; no embedding is fetched."""
        if name not in self._views:
            prefix = "test_" if name.startswith("test_") else ""
            view = self._make(name.removeprefix(prefix), prefix)
            self.definitions[name] = view
            self._views[name] = engine.create_view(self.connection, name, view)
            if name.removeprefix(prefix) in CACHED:
                engine.cache(self.connection, name)
                self._cached.append(name)
        return self._views[name]

    def _make(self, name: str, prefix: str) -> ir.Table:
        match name:
            case "tiles":
                return self.artifacts.tiles(prefix + "tiles")
            case "embeddings" if self.spec.encoders and self.spec.encoder is None:
                return self.embedding_keys(prefix)
            case "embeddings":
                return self.artifacts.embeddings(prefix + "embeddings")
            case "slides":
                return self.artifacts.slides()
            case "assigned_folds" if self.assigned is not None:
                return self.assigned
            case "predictions":
                return prediction_view(run_predictions.tables(self.connection, self.predictions))
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
        if self.brings_folds or self.spec.fold_rule == "hash":
            return None
        spec = self.spec
        slides = self.sources.dataset("slides") if spec.where and spec.slides else None
        logged = tuple(self.logged_folds)
        wanted = Wanted(spec, self.sources.dataset("tiles"), self.remember, logged, slides)
        return growth.assignment(wanted, lambda: fold_units(self.survivors(""), self.spec))

    @property
    def brings_folds(self) -> bool:
        """Whether the tiles have folds of their own."""
        return "fold" in self.sources.dataset("tiles").columns

    @cached_property
    def assigned(self) -> ir.Table | None:
        """The assigned folds of what is in the cohort, or None, as `assignment`."""
        if self.assignment is None:
            return None
        if self.database is None:
            return engine.register(self.connection, "assigned_folds", self.assignment.present)
        self.fold_file = artifact.keep(self.assignment)
        kept = engine.read_parquet(self.connection, [self.fold_file])
        present = kept.filter(~kept[GONE]).drop(GONE)
        return engine.create_view(self.connection, "assigned_folds", present)

    def _folds(self) -> ir.Table:
        """Return the threshold view with the folds of its tiles."""
        thresholds, spec = self.view("thresholds"), self.spec
        if self.brings_folds:
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
            embeddings = self.view(artifact) if named else self.artifacts.embeddings(artifact)
            keys = embeddings.select(*KEY)
            many = len(self.sources.dataset(artifact).files) > MANY_FILES
            if many and self.database is None and self.spec.backend == "duckdb":
                keys = engine.keep(keys)
            self._keys_of[artifact] = keys
        return self._keys_of[artifact]

    def add_runs(self, *runs: str) -> None:
        """Add runs whose predictions are views; what is of all runs is made anew."""
        self.runs = (*self.runs, *runs)
        for name in (*query.OF_RUNS, "slide_classes"):
            self._views.pop(name, None)
        self.__dict__.pop("predictions", None)

    @cached_property
    def predictions(self) -> list[tuple[str, str, Dataset]]:
        """Name, part and files of the predictions of the runs."""
        return list(run_predictions.datasets(self.runs))

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
