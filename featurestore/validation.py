"""All that is wrong with the artifacts, in one table: what a data team asks before it trains."""

import warnings as python_warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress

import ibis.expr.types as ir
import pyarrow as pa

from featurestore.contract import join, rules, schemas
from featurestore.contract.join import Join
from featurestore.contract.parquet_table import ReadOptions
from featurestore.contract.rules import violations_of
from featurestore.contract.vectors import dimension, null_lists
from featurestore.contract.violation import Violation
from featurestore.embeddings.invalid import find_invalid
from featurestore.errors import (
    EmptyViewError,
    FeatureStoreError,
    FeatureStoreWarning,
    SchemaError,
    UnknownClassError,
)
from featurestore.spec.encoders import encoder_of
from featurestore.store import FeatureStore
from featurestore.views.classes import BACKGROUND, ClassSpec, class_names, class_specs
from featurestore.views.filters import filtered
from featurestore.views.folds import KEY
from featurestore.views.labels import label_view

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


Joined = tuple[str, pa.Table, Violation | None]
"""A cohort, `featurestore.contract.join.Join.matches`, and the refusal of what hardly meets."""


def violations(
    store: FeatureStore, embeddings: bool = True, joined: Iterable[Joined] | None = None
) -> pa.Table:
    """Return every violation of the contract, errors first.

    Parameters
    ----------
    store
        Artifacts and rules.
    embeddings
        Whether to look at every value of the embeddings, which reads them all.
    joined
        What `joins` yields, where that was asked already.

    Returns
    -------
    pa.Table
        ``severity, artifact, wrong, rows, found, to do``; no row where all is well.

    Raises
    ------
    ArtifactError
        No artifact is configured.
    """
    store.spec.check_artifacts()
    tables: dict[str, ir.Table] = {}
    rows = []
    for name in store.spec.uris():
        rows += [row(name, v) for v in _artifact(store, name, embeddings, tables)]
    rows += [row("tiles", v) for v in _where(store, tables)]
    rows += [row("tiles", v) for v in _folds(store)]
    rows += [row(name, v) for name, _, v in (joins(store) if joined is None else joined) if v]
    rows += [row("all", v) for v in across(store, tables)]
    rows.sort(key=lambda row: row["severity"] != "error")
    return pa.Table.from_pylist(rows, COLUMNS)


def join_of(store: FeatureStore, name: str) -> Join:
    """Return tiles and the embeddings that they are to have.

    Parameters
    ----------
    name
        ``tiles`` or ``test_tiles``, of which the survivors are to have one; ``predict_tiles`` for
        all that `featurestore.store.FeatureStore.predicted` returns.

    Raises
    ------
    FeatureStoreError
        The artifacts break the contract, every tile is dropped, or the join is empty.
    """
    if name == "predict_tiles":
        tiles = store.predicted()
        return Join("tiles to predict", tiles, tiles, store.embedding_keys("test_"))
    prefix = name.removesuffix("tiles")
    title = f"surviving {name.replace('_', ' ')}"
    survivors, keys = store.survivors(prefix), store.embedding_keys(prefix)
    return Join(title, store.view(f"{prefix}thresholds"), survivors, keys)


def check_join(store: FeatureStore, name: str) -> pa.Table:
    """Refuse tiles that hardly have embeddings; return `Join.matches` of others.

    Parameters
    ----------
    name
        As of `join_of`.

    Raises
    ------
    FeatureStoreError
        As `join_of` and `featurestore.contract.join.check`.
    """
    return join.check(join_of(store, name), store.spec.allow_missing)


def joins(store: FeatureStore) -> Iterator[Joined]:
    """Yield how each cohort meets its embeddings.

    Cohorts that break the contract are passed over: what is wrong is among `violations`.
    """
    for name in (name for name in TILES if getattr(store.spec, name)):
        try:
            with python_warnings.catch_warnings():  # which `violations` lists
                python_warnings.simplefilter("ignore", FeatureStoreWarning)
                both = join_of(store, name)
                matches, refusal = join.judged(both, both.matches(), store.spec.allow_missing)
        except EmptyViewError as error:
            yield name, join.SLIDES.empty_table(), as_violation(error)
        except FeatureStoreError:
            continue
        else:
            yield name, matches, refusal


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
    title = store.spec.title(name)
    try:
        absent = store.spec.absent_coverage
        files = list(schemas.violations(store.sources.dataset(name), title, absent))
    except FeatureStoreError as error:
        yield as_violation(error)
        return
    yield from files
    if any(violation.severity == "error" for violation in files):
        if name != "slides":
            yield from rules.lacking_key(store.sources.dataset(name).columns, title)
        return  # the rows have no one meaning
    yield from schemas.renamed(store.connection, store.sources.dataset(name), title)
    options = ReadOptions(absent_coverage=absent)
    table = schemas.rows(store.connection, store.sources.dataset(name), title, options)
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
        yield from rules.overfull(tiles, title)
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


def _folds(store: FeatureStore) -> Iterator[Violation]:
    """Find folds that training would refuse or warn of, if there are tiles to be assigned."""
    if not store.spec.tiles:
        return
    refusals = []
    with python_warnings.catch_warnings(record=True) as heard:
        python_warnings.simplefilter("ignore")
        with suppress(FeatureStoreError):  # which the tiles, or how they meet embeddings, have told
            store.survivors("")
            python_warnings.simplefilter("always", FeatureStoreWarning)
            try:
                store.view("folds")
            except FeatureStoreError as error:
                refusals.append(as_violation(error))
    yield from refusals
    for one in heard:
        advice = "set a smaller k, or expect fewer classes"
        yield Violation(str(one.message), f"k={store.spec.k}", advice, severity="warning")


def warnings(store: FeatureStore) -> Iterator[Violation]:
    """Yield what training should know of, of artifacts that broke no rule."""
    spec = store.spec
    tables = {name: store.view(name) for name in (*TILES[:2], "slides") if getattr(spec, name)}
    tables |= {name: store.keys_of(name) for kind in EMBEDDINGS for name in spec.artifacts(kind)}
    for name in TILES[:2]:
        if name in tables:
            yield from rules.overfull(tables[name], name.replace("_", " "))
    if "slides" in tables:
        yield from (v for v in rules.slides(tables["slides"]) if v.severity == "warning")
    yield from across(store, tables)


def _embeddings(
    store: FeatureStore, name: str, table: ir.Table, values: bool
) -> Iterator[Violation]:
    title = store.spec.title(name)
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
    pairs = [
        (name, vectors)
        for name, kind in (("tiles", "embeddings"), ("test_tiles", theirs))
        for vectors in store.spec.artifacts(kind)
    ]
    for name, vectors in pairs:
        if name in tables and vectors in tables:
            yield from violations_of(
                tables[name].anti_join(tables[vectors], list(KEY)),
                f"{name.replace('_', ' ')} without an embedding{_of(store, vectors)}",
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
    if not asked or not all(name in tables for name in asked):
        return
    for vectors in store.spec.artifacts("embeddings"):
        if vectors in tables:
            left = tables[vectors].select(*KEY)
            for name in asked:
                left = left.anti_join(tables[name], list(KEY))
            wrong = f"embeddings{_of(store, vectors)} of no tile"
            yield from violations_of(left, wrong, "nothing, unless tiles were forgotten", "warning")


def _of(store: FeatureStore, embeddings: str) -> str:
    """Return whose embeddings they are, where there are several encoders."""
    encoder = encoder_of(embeddings) or store.spec.encoder
    return f" of {encoder}" if encoder else ""
