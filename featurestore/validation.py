"""All that is wrong with the artifacts, in one table: what a data team asks before it trains."""

import operator
from collections.abc import Iterator
from contextlib import suppress
from functools import reduce

import ibis.expr.types as ir
import pyarrow as pa

from featurestore.contract import rules, schemas
from featurestore.contract.parquet_table import open_table
from featurestore.contract.rules import violations_of
from featurestore.contract.vectors import dimension, null_lists
from featurestore.contract.violation import Violation
from featurestore.embeddings.invalid import find_invalid
from featurestore.errors import FeatureStoreError, SchemaError, UnknownClassError
from featurestore.store import FeatureStore
from featurestore.views.classes import BACKGROUND, COVERAGE, ClassSpec, class_names, class_specs
from featurestore.views.filters import filtered
from featurestore.views.folds import KEY
from featurestore.views.labels import label_view
from featurestore.views.precision import exact

TILES = ("tiles", "test_tiles", "predict_tiles")
EMBEDDINGS = ("embeddings", "test_embeddings")
COLUMNS = pa.schema(
    {
        "severity": pa.string(),
        "artifact": pa.string(),
        "wrong": pa.string(),
        "rows": pa.int64(),
        "found": pa.string(),
        "to do": pa.string(),
    }
)


def violations(store: FeatureStore, embeddings: bool = True) -> pa.Table:
    """Return every violation of the contract, errors first.

    Parameters
    ----------
    store
        Artifacts and rules; no view is built.
    embeddings
        Whether to look at every value of the embeddings, which reads them all.

    Returns
    -------
    pa.Table
        ``severity, artifact, wrong, rows, found, to do``; no row where all is well.
    """
    tables: dict[str, ir.Table] = {}
    rows = []
    for name in [name for name in (*TILES, *EMBEDDINGS, "slides") if getattr(store.spec, name)]:
        rows += [row(name, v) for v in _artifact(store, name, embeddings, tables)]
    rows += [row("tiles", v) for v in _where(store, tables)]
    rows += [row("all", v) for v in across(store, tables)]
    rows.sort(key=lambda row: row["severity"] != "error")
    return pa.Table.from_pylist(rows, COLUMNS)


def row(artifact: str, violation: Violation) -> dict[str, object]:
    """Return a violation as a row of the table."""
    return {
        "severity": violation.severity,
        "artifact": artifact,
        "wrong": violation.wrong,
        "rows": violation.rows,
        "found": violation.found,
        "to do": violation.fix,
    }


def as_violation(error: FeatureStoreError) -> Violation:
    """Return a refusal as a violation."""
    return Violation(error.wrong, error.found, error.fix, kind=type(error))


def _artifact(
    store: FeatureStore, name: str, embeddings: bool, tables: dict[str, ir.Table]
) -> Iterator[Violation]:
    """Yield what is wrong with one artifact; put it among the tables if its keys are sound."""
    title = name.replace("_", " ")
    try:
        absent = store.spec.absent_coverage
        files = list(schemas.violations(store.sources.dataset(name), title, absent))
    except FeatureStoreError as error:
        yield as_violation(error)
        return
    yield from files
    if any(violation.severity == "error" for violation in files):
        return  # the rows have no one meaning
    yield from schemas.renamed(store.connection, store.sources.dataset(name), title)
    table = open_table(store.connection, store.sources.dataset(name), absent=absent)
    if name == "slides":
        yield from rules.slides(table)
        tables[name] = table
        return
    broken = list(rules.key(table, title))
    yield from broken
    if all(violation.rows is not None for violation in broken):
        tables[name] = table
    if name in TILES:
        yield from _tiles(store, name, table)
    else:
        yield from _embeddings(store, name, table, embeddings and name in tables)


def _tiles(store: FeatureStore, name: str, tiles: ir.Table) -> Iterator[Violation]:
    spec, title = store.spec, name.replace("_", " ")
    names = class_names(tiles.columns)
    specs: tuple[ClassSpec, ...] = ()
    if names or name != "predict_tiles":
        try:
            specs = class_specs(names, spec)
        except FeatureStoreError as error:
            yield as_violation(error)
    columns = [ClassSpec(name, 0, 0.0) for name in names if name != BACKGROUND]
    broken = list(rules.coverages(tiles, columns, title))
    yield from broken
    if not broken:
        yield from rules.merged_coverages(tiles, specs, title)
    if set(KEY) <= set(tiles.columns):
        yield from _overfull(tiles, title)
    if name == "tiles" and "fold" in tiles.columns:
        yield from rules.fold_column(tiles)
    if name == "tiles" and spec.kfold_strategy == "stratified_group":
        yield from rules.group(tiles, spec.kfold_group)


def _where(store: FeatureStore, tables: dict[str, ir.Table]) -> Iterator[Violation]:
    """Find a filter that cannot be asked of the tiles, if they and their classes are sound."""
    spec, tiles = store.spec, tables.get("tiles")
    if not spec.where or tiles is None:
        return
    with suppress(UnknownClassError, SchemaError):  # told already
        labels = label_view(tiles, class_specs(class_names(tiles.columns), spec))
        try:
            filtered(labels, tables.get("slides"), spec.where)
        except FeatureStoreError as error:
            yield as_violation(error)


def _overfull(tiles: ir.Table, title: str) -> Iterator[Violation]:
    names = [COVERAGE + name for name in class_names(tiles.columns)]
    shares = [exact(tiles[n]) for n in names if tiles.schema()[n].is_numeric()]
    if shares:
        total = reduce(operator.add, shares)
        yield from violations_of(
            tiles.filter((total > rules.OVERFULL) & ~total.isnan()),
            f"{title} have coverages that sum to more than 1",
            f"look whether classes overlap, or a {COVERAGE} column is no class",
            "warning",
        )


def warnings(store: FeatureStore) -> Iterator[Violation]:
    """Yield what training should know of, of artifacts that broke no rule."""
    names = [name for name in (*TILES[:2], *EMBEDDINGS, "slides") if getattr(store.spec, name)]
    tables = {name: store.view(name) for name in names if name not in EMBEDDINGS}
    tables |= {
        name: store.embedding_keys(name.removesuffix("embeddings"))
        for name in names
        if name in EMBEDDINGS
    }
    for name in TILES[:2]:
        if name in tables:
            yield from _overfull(tables[name], name.replace("_", " "))
    if "slides" in tables:
        yield from (v for v in rules.slides(tables["slides"]) if v.severity == "warning")
    yield from across(store, tables)


def _embeddings(
    store: FeatureStore, name: str, table: ir.Table, values: bool
) -> Iterator[Violation]:
    title = name.replace("_", " ")
    broken = list(rules.embedding_column(table, title))
    dataset = store.sources.dataset(name)
    broken += [] if broken else null_lists(store.connection, dataset, title)
    yield from broken
    if broken or not values:
        return
    try:
        dim = dimension(dataset)
        files = dataset.fetch().filled
        yield from find_invalid(files, dim, store.spec.storage, store.threads)
    except FeatureStoreError as error:
        yield as_violation(error)


def across(store: FeatureStore, tables: dict[str, ir.Table]) -> Iterator[Violation]:
    """Yield what does not fit together, all of it warnings.

    Parameters
    ----------
    store
        Says which artifacts belong together.
    tables
        The artifacts that could be read, by name; the others are left out.
    """
    theirs = "test_embeddings" if store.spec.test_embeddings else "embeddings"
    for name, vectors in (("tiles", "embeddings"), ("test_tiles", theirs)):
        if name in tables and vectors in tables:
            yield from violations_of(
                tables[name].anti_join(tables[vectors], list(KEY)),
                f"{name.replace('_', ' ')} without an embedding",
                "embed them, or expect them to be dropped (no_embedding)",
                "warning",
            )
    yield from _unasked(store, tables)
    if "slides" in tables and "id" in tables["slides"].columns:
        for name in (name for name in ("tiles", "test_tiles") if name in tables):
            listed = tables["slides"].select(slide_id=tables["slides"].id.cast("string"))
            yield from violations_of(
                tables[name].select("slide_id").distinct().anti_join(listed, "slide_id"),
                f"slides of the {name.replace('_', ' ')} that the slides artifact lacks",
                "add them, or expect no geometry for them",
                "warning",
                ["slide_id"],
            )
    if "tiles" in tables and "test_tiles" in tables:
        both = tables["tiles"].select("slide_id").distinct()
        yield from violations_of(
            both.semi_join(tables["test_tiles"], "slide_id"),
            "slides among both tiles and test tiles",
            "hold whole slides out; the guard tells what it means for a run",
            "warning",
            ["slide_id"],
        )


def _unasked(store: FeatureStore, tables: dict[str, ir.Table]) -> Iterator[Violation]:
    """Find embeddings of no tile, where all tiles that share the artifact could be read."""
    asked = ["tiles"] if store.spec.test_embeddings else list(TILES)
    asked = [name for name in asked if getattr(store.spec, name)]
    if "embeddings" in tables and asked and all(name in tables for name in asked):
        left = tables["embeddings"].select(*KEY)
        for name in asked:
            left = left.anti_join(tables[name], list(KEY))
        yield from violations_of(
            left, "embeddings of no tile", "nothing, unless tiles were forgotten", "warning"
        )
