"""The input contract: what tiles and embeddings must be before any view is built on them.

Each rule is a generator of violations, found by lazy queries over the key and coverage columns
alone. Reading one raises for the first error (`featurestore.contract.violation.heed`);
`featurestore check` lists them all.
Embeddings' values are looked at where they are read anyway, in `featurestore.embeddings.matrix`.
"""

import operator
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Literal

import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from featurestore.backend.errors import translated
from featurestore.contract import join
from featurestore.contract.violation import FIRST, MOST, Violation, key_text
from featurestore.errors import (
    EmbeddingError,
    EmptyViewError,
)
from featurestore.spec.typed import nearest_name
from featurestore.views.classes import COVERAGE, ClassSpec, class_names
from featurestore.views.fates import funnel_view
from featurestore.views.folds import KEY
from featurestore.views.precision import exact

LOOSER = {
    "filtered": "loosen where",
    "dropped_class": "take classes out of drop",
    "tissue": "lower tissue_prop_min",
    "multi_class": "set single_class=false",
    "class_threshold": "lower thresholds.*",
}
"""What to do about tiles that a reason drops."""
EXTENTS = ("tile_extent_x", "tile_extent_y")
OVERFULL = 1.0001  # a sum of shares above this is no rounding


def violations_of(
    rows: ir.Table,
    wrong: str,
    fix: str,
    severity: Literal["error", "warning"] = "error",
    names: Sequence[str] = KEY,
) -> Iterator[Violation]:
    """Yield a violation with the number of rows and the first of them, if there is any."""
    with translated():
        count = int(rows.count().to_pyarrow().as_py())
        if not count:
            return
        first = rows.select(*names).order_by(list(names)).limit(FIRST).to_pyarrow().to_pylist()
    evidence = f"{count:,} of them, the first at " + "; ".join(key_text(row) for row in first)
    yield Violation(wrong, evidence, fix, count, severity)


def key(table: ir.Table, artifact: str) -> Iterator[Violation]:
    """Find what makes a table other than one row per (slide_id, x, y)."""
    broken = list(_key_columns(table, artifact))
    yield from broken
    if broken:
        return
    large = [table[name] > MOST for name in ("x", "y") if table.schema()[name] == dt.uint64]
    if large:
        with translated():
            count = table.count(where=reduce(operator.or_, large)).to_pyarrow().as_py()
        if count:
            wrong = f"{artifact} have x or y beyond 64-bit integers"
            yield Violation(wrong, f"{count:,} rows", "write pixels of the slide")
            return
    keys = table.group_by(list(KEY)).aggregate(rows=table.count())
    partial = reduce(operator.or_, (keys[name].isnull() for name in KEY))
    twice = keys.rows > 1
    with translated():  # most tables break neither rule: one query says so
        [counts] = keys.aggregate(
            partial=keys.count(where=partial), twice=keys.count(where=twice)
        ).to_pyarrow().to_pylist()  # fmt: skip
    if counts["partial"]:
        missing = table.filter(reduce(operator.or_, (table[name].isnull() for name in KEY)))
        yield from violations_of(
            missing, f"{artifact} have rows without a whole key", "fill slide_id, x and y"
        )
    if counts["twice"]:
        yield from violations_of(
            keys.filter(twice),
            f"{artifact} have keys that stand more than once",
            "keep one row per (slide_id, x, y); duplicates would multiply rows in the join",
        )


def _key_columns(table: ir.Table, artifact: str) -> Iterator[Violation]:
    schema = table.schema()
    yield from lacking_key(schema.names, artifact)
    for name, kind in zip(KEY, (dt.String, dt.Integer, dt.Integer), strict=True):
        if name in schema and not isinstance(schema[name], kind):
            what, pandas = ("a string", "str") if kind is dt.String else ("an integer", "int64")
            yield Violation(
                f"column {name} of the {artifact} has the wrong type",
                str(schema[name]),
                f"write it as {what}, by pandas: .astype({{{name!r}: {pandas!r}}})",
            )


def lacking_key(columns: Sequence[str], artifact: str) -> Iterator[Violation]:
    """Find columns of the key that are not there, and those that may be meant.

    Parameters
    ----------
    columns
        Names of those that are.
    """
    folded = {name.casefold() for name in columns}  # another case is told of as such
    others = [name for name in columns if name.casefold() not in KEY]
    for name in (name for name in KEY if name not in folded):
        yield Violation(
            f"{artifact} lack the key column {name}",
            f"columns {', '.join(columns[:12])}",
            "write slide_id (string), x and y (integers), or say which column it is: "
            f"data.columns.{name}={nearest_name(name, others) or 'COLUMN'}",
        )


def slides(slides: ir.Table) -> Iterator[Violation]:
    """Find what makes a table other than one row per slide with the extent of its tiles."""
    columns = f"columns {', '.join(slides.columns[:12])}"
    if "id" not in slides.columns:
        yield Violation("slides lack the column id", columns, "write one row per slide, by id")
        return
    twice = slides.group_by("id").aggregate(rows=slides.count())
    yield from violations_of(
        twice.filter(twice.rows > 1),
        "slides have ids that stand more than once",
        "keep one row per slide; one that several files have alike counts once",
        names=["id"],
    )
    for name in (name for name in EXTENTS if name in slides.columns):
        if not slides.schema()[name].is_numeric():
            kind = str(slides.schema()[name])
            yield Violation(f"column {name} of the slides is not a number", kind, "write pixels")
            continue
        extent = slides[name].cast("float64")
        yield from violations_of(
            slides.filter(extent.isnull() | extent.isnan() | (extent < 1) | (extent > MOST)),
            f"slides have a {name} that is no number of pixels",
            "write the extent of a slide's tiles, in the units of x and y",
            names=["id"],
        )
    lacking = [name for name in EXTENTS if name not in slides.columns]
    if lacking:
        yield Violation(
            f"slides lack {' and '.join(lacking)}: tiles are taken to fill their grid",
            columns,
            "write the extent of a slide's tiles, in the units of x and y",
            severity="warning",
        )


def coverages(tiles: ir.Table, classes: Sequence[ClassSpec], artifact: str) -> Iterator[Violation]:
    """Find coverages that are not shares."""
    names = [name for spec in classes for name in spec.columns]
    kinds = tiles.schema()
    bad = {name: _no_share(exact(tiles[name])) for name in names if kinds[name].is_numeric()}
    with translated():  # one query for all classes; most have no row that breaks the rule
        counts = [tiles.count(where=rows).name(name) for name, rows in bad.items()]
        [broken] = tiles.aggregate(counts).to_pyarrow().to_pylist() if counts else [{}]
    for name in names:
        if name not in bad:
            yield Violation(
                f"column {name} of the {artifact} is not a number",
                str(kinds[name]),
                "write it as a double in [0, 1]",
            )
        elif broken[name]:
            yield from violations_of(
                tiles.filter(bad[name]),
                f"{artifact} have values of {name} that are NaN, null, negative or above 1",
                "write the covered share of the tile, in [0, 1]",
            )


def merged_coverages(
    tiles: ir.Table, classes: Sequence[ClassSpec], artifact: str
) -> Iterator[Violation]:
    """Find classes that were merged and cover more of a tile than there is; they count as all."""
    for spec in (spec for spec in classes if len(spec.members) > 1):
        total = reduce(operator.add, (exact(tiles[name]) for name in spec.columns))
        yield from violations_of(
            tiles.filter(total > OVERFULL),
            f"{artifact} have coverages of {', '.join(spec.members)} that sum to more than 1, "
            f"which is what they count as: {spec.name}",
            "look whether these classes overlap",
            "warning",
        )


def overfull(tiles: ir.Table, artifact: str) -> Iterator[Violation]:
    """Find tiles of which all classes together cover more than there is."""
    names = [COVERAGE + name for name in class_names(tiles.columns)]
    shares = [exact(tiles[n]) for n in names if tiles.schema()[n].is_numeric()]
    if shares:
        total = reduce(operator.add, shares)
        yield from violations_of(
            tiles.filter((total > OVERFULL) & ~total.isnan()),
            f"{artifact} have coverages that sum to more than 1",
            f"look whether classes overlap, or a {COVERAGE} column is no class",
            "warning",
        )


def _no_share(share: ir.FloatingValue) -> ir.BooleanValue:
    return share.isnull() | share.isnan() | (share < 0) | (share > 1)


def fold_column(tiles: ir.Table) -> Iterator[Violation]:
    """Find a column ``fold`` with a missing, fractional or negative number."""
    kind = tiles.schema()["fold"]
    if not kind.is_integer():
        yield Violation("column fold of the tiles is not an integer", str(kind), "write 0 .. k-1")
        return
    if kind == dt.uint64:
        yield from violations_of(
            tiles.filter(tiles.fold > MOST),
            "tiles have folds beyond 64-bit integers",
            "write 0 .. k-1",
        )
    yield from violations_of(
        tiles.filter(tiles.fold.isnull()),
        "tiles have rows without a fold",
        "give each tile a fold, or drop the column to have folds assigned",
    )
    yield from violations_of(
        tiles.filter(tiles.fold < 0),
        "tiles have rows with a negative fold",
        "write 0 .. k-1; leave out the tiles that belong to no fold",
    )


def embedding_column(embeddings: ir.Table, artifact: str = "embeddings") -> Iterator[Violation]:
    """Find embeddings that are not lists of numbers."""
    kind = embeddings.schema().get("embedding")
    if not (isinstance(kind, dt.Array) and isinstance(kind.value_type, dt.Integer | dt.Floating)):
        yield Violation(
            f"the {artifact} have no column embedding that is a list of numbers",
            ", ".join(f"{n} {t}" for n, t in embeddings.schema().items()),
            "write embedding as list<double>, list<float> or fixed_size_list<float>, or say which "
            "column it is: data.columns.embedding=COLUMN",
            kind=EmbeddingError,
        )


def group(tiles: ir.Table, name: str) -> Iterator[Violation]:
    """Find a grouping of folds by a column that is missing or has nulls."""
    if name not in tiles.columns:
        yield Violation(
            f"the tiles have no column {name} to group folds by",
            f"columns {', '.join(tiles.columns[:12])}",
            "set kfold_group=slide_id, or write the column",
        )
        return
    kind = tiles.schema()[name]
    if kind.is_nested() or kind.is_binary():
        yield Violation(
            f"folds cannot be grouped by {name}", str(kind), "name a column of text or numbers"
        )
        return
    unknown = tiles[name].isnull()
    if kind.is_floating():
        unknown = unknown | tiles[name].isnan()
    yield from violations_of(
        tiles.filter(unknown),
        f"tiles have rows without {name}, by which folds are to be grouped",
        f"fill {name}, or set kfold_group=slide_id",
    )


def check_survivors(tiles: ir.Table, kept: ir.Table, embeddings: ir.Table) -> None:
    """Refuse rules that drop every tile, and embeddings of none of those left.

    Parameters
    ----------
    tiles
        The threshold view.
    kept
        Its survivors.
    embeddings
        Any table with the key.

    Raises
    ------
    EmptyViewError
        With the funnel, or with the first key of both sides.
    """
    with translated():
        if kept.semi_join(embeddings, list(KEY)).count().to_pyarrow().as_py():
            return
        if not kept.count().to_pyarrow().as_py():
            raise every_tile_dropped(tiles)
    raise join.empty(join.Join("surviving tiles", tiles, kept, embeddings))


def every_tile_dropped(tiles: ir.Table) -> EmptyViewError:
    """Return the refusal of rules that drop every tile, with the funnel; or of no tile at all.

    Parameters
    ----------
    tiles
        The threshold view.
    """
    with translated():
        reasons = funnel_view(tiles).to_pyarrow().to_pylist()
    if not reasons[0]["tiles"]:
        return EmptyViewError(
            "There is no tile: the artifact has no rows",
            found="Parquet with 0 rows",
            fix="look at what wrote it, or name other tiles",
        )
    lost = {row["reason"] for row in reasons if row["tiles"]}
    looser = [advice for reason, advice in LOOSER.items() if reason in lost]
    return EmptyViewError(
        "Every tile is dropped",
        found="; ".join(f"{row['reason']} {row['tiles']:,}" for row in reasons),
        fix=", or ".join(looser) or "name tiles that have some coverage",
    )
