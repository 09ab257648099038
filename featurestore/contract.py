"""The input contract: what tiles and embeddings must be before any view is built on them.

Each check is one lazy query over the key and coverage columns alone; embeddings are looked at
where they are read anyway, in `featurestore.batches`.
"""

import operator
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import reduce

import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from featurestore.backend import translated
from featurestore.classes import ClassSpec
from featurestore.errors import EmbeddingError, EmptyViewError, SchemaError
from featurestore.folds import KEY
from featurestore.funnel import funnel_view
from featurestore.labels import coverage


def check_names(names: Iterable[str], artifact: str) -> None:
    """Refuse names that differ in case alone: SQL cannot tell such columns apart.

    Raises
    ------
    SchemaError
        Two columns fold to one name.
    """
    for folded, count in Counter(name.casefold() for name in names).items():
        if count > 1:
            clash = [name for name in names if name.casefold() == folded]
            raise SchemaError(
                f"{artifact} has columns that differ in case alone",
                found=", ".join(clash),
                fix="rename all but one of them",
            )


def check_key(table: ir.Table, artifact: str) -> None:
    """Refuse a table that is not one row per (slide_id, x, y).

    Raises
    ------
    SchemaError
        A key column is missing, of the wrong type or null, or a key stands twice.
    """
    schema = table.schema()
    for name, kind in zip(KEY, (dt.String, dt.Integer, dt.Integer), strict=True):
        if name not in schema:
            raise SchemaError(
                f"{artifact} lack the key column {name}",
                found=f"columns {', '.join(schema.names[:12])}",
                fix="write slide_id (string), x and y (integers)",
            )
        if not isinstance(schema[name], kind):
            raise SchemaError(
                f"Column {name} of the {artifact} has the wrong type",
                found=str(schema[name]),
                fix=f"write it as {'a string' if kind is dt.String else 'an integer'}",
            )
    missing = table.filter(reduce(operator.or_, (table[name].isnull() for name in KEY)))
    _refuse(missing, f"{artifact} have rows without a whole key", "fill slide_id, x and y")
    twice = table.group_by(list(KEY)).aggregate(rows=table.count())
    _refuse(
        twice.filter(twice.rows > 1),
        f"{artifact} have keys that stand more than once",
        "keep one row per (slide_id, x, y); duplicates would multiply rows in the join",
    )


def check_coverage(tiles: ir.Table, classes: Sequence[ClassSpec], artifact: str) -> None:
    """Refuse coverages that are not shares.

    Raises
    ------
    SchemaError
        A coverage is not a number, or is null, NaN, negative or above 1.
    """
    for spec in classes:
        kind = tiles.schema()[spec.column]
        if not kind.is_numeric():
            raise SchemaError(
                f"Column {spec.column} of the {artifact} is not a number",
                found=str(kind),
                fix="write it as a double in [0, 1]",
            )
        share = coverage(tiles, spec)
        _refuse(
            tiles.filter(share.isnull() | share.isnan() | (share < 0) | (share > 1)),
            f"{artifact} have values of {spec.column} that are NaN, null, negative or above 1",
            "write the covered share of the tile, in [0, 1]",
        )


def check_fold_column(tiles: ir.Table) -> None:
    """Refuse a column ``fold`` with a missing or fractional number.

    Raises
    ------
    SchemaError
        As above.
    """
    kind = tiles.schema()["fold"]
    if not kind.is_integer():
        raise SchemaError(
            "Column fold of the tiles is not an integer", found=str(kind), fix="write 0 .. k-1"
        )
    _refuse(
        tiles.filter(tiles.fold.isnull()),
        "tiles have rows without a fold",
        "give each tile a fold, or drop the column to have folds assigned",
    )


def check_embedding_column(embeddings: ir.Table) -> None:
    """Refuse embeddings that are not lists of numbers.

    Raises
    ------
    EmbeddingError
        The column is missing or of another type.
    """
    kind = embeddings.schema().get("embedding")
    if not (isinstance(kind, dt.Array) and kind.value_type.is_numeric()):
        raise EmbeddingError(
            "The embeddings have no column embedding that is a list of numbers",
            found=", ".join(f"{n} {t}" for n, t in embeddings.schema().items()),
            fix="write embedding as list<double>, list<float> or fixed_size_list<float>",
        )


def dimension(embeddings: ir.Table) -> int:
    """Return the length of the first embedding that has any.

    Raises
    ------
    EmbeddingError
        None has: the column is empty lists and nulls.
    """
    length = embeddings.embedding.length()
    with translated():
        found = embeddings.filter(length > 0).limit(1).select(dim=length).to_pyarrow()
    if not len(found):
        raise EmbeddingError(
            "No embedding holds a value",
            found="empty lists or nulls alone",
            fix="write one list of numbers per tile",
        )
    return int(found["dim"][0].as_py())


def check_group(tiles: ir.Table, group: str) -> None:
    """Refuse a grouping of folds by a column that is missing or has nulls.

    Raises
    ------
    SchemaError
        As above.
    """
    if group not in tiles.columns:
        raise SchemaError(
            f"The tiles have no column {group} to group folds by",
            found=f"columns {', '.join(tiles.columns[:12])}",
            fix="set kfold_group=slide_id, or write the column",
        )
    _refuse(
        tiles.filter(tiles[group].isnull()),
        f"tiles have rows without {group}, by which folds are to be grouped",
        f"fill {group}, or set kfold_group=slide_id",
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
        if not kept.count().to_pyarrow().as_py():
            reasons = funnel_view(tiles).to_pyarrow().to_pylist()
            raise EmptyViewError(
                "Every tile is dropped",
                found="; ".join(f"{row['reason']} {row['tiles']:,}" for row in reasons),
                fix="lower tissue_prop_min or thresholds.*, or set single_class=false",
            )
        if not kept.semi_join(embeddings, list(KEY)).count().to_pyarrow().as_py():
            ours, theirs = (
                side.select(*KEY).order_by(list(KEY)).limit(1).to_pyarrow().to_pylist()
                for side in (kept, embeddings)
            )
            there = key_text(theirs[0]) if theirs else "nowhere: there is none"
            raise EmptyViewError(
                "No surviving tile has an embedding: the join is empty",
                found=f"the first tile at {key_text(ours[0])}; the first embedding at {there}",
                fix="check that both artifacts are of one cohort and spell their keys alike",
            )


def _refuse(rows: ir.Table, wrong: str, fix: str) -> None:
    """Raise a `SchemaError` with the count and the first key if there is any row."""
    with translated():
        count = rows.count().to_pyarrow().as_py()
        if not count:
            return
        first = rows.select(*KEY).order_by(list(KEY)).limit(1).to_pyarrow().to_pylist()[0]
    raise SchemaError(
        wrong[0].upper() + wrong[1:],
        found=f"{count} of them, the first at {key_text(first)}",
        fix=fix,
    )


def key_text(row: dict[str, object]) -> str:
    """Spell a key for a message."""
    return f"slide_id={row['slide_id']!r}, x={row['x']}, y={row['y']}"
