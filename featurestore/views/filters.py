"""``where``: one SQL expression over the columns of tiles and slides.

It is read by sqlglot and built anew in Ibis, piece by piece: nothing that is not in the tables
below reaches an engine, and all engines are asked the same.
"""

import operator
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import ibis
import ibis.expr.operations as ops
import ibis.expr.types as ir
import sqlglot
from ibis.common.annotations import ValidationError
from ibis.common.exceptions import IbisError
from sqlglot import exp
from sqlglot.errors import SqlglotError

from featurestore.errors import ConfigError
from featurestore.spec.typed import nearest
from featurestore.views.columns import passed
from featurestore.views.joins import look_up

EXAMPLE = "where=\"organ = 'colon' and tissue_prop >= 0.5\""
Node = Any  # of sqlglot, whose base class has had several names
Build = Callable[[Node], Any]
COMPARED: Mapping[type, Callable[[Any, Any], Any]] = {
    exp.EQ: operator.eq, exp.NEQ: operator.ne, exp.GT: operator.gt, exp.GTE: operator.ge,
    exp.LT: operator.lt, exp.LTE: operator.le,
}  # fmt: skip
COMBINED: Mapping[type, Callable[[Any, Any], Any]] = {
    exp.And: operator.and_, exp.Or: operator.or_, exp.Add: operator.add, exp.Sub: operator.sub,
    exp.Mul: operator.mul, exp.Div: operator.truediv,
}  # fmt: skip
FUNCTIONS: Mapping[type, Callable[..., Any]] = {
    exp.Neg: operator.neg,
    exp.Paren: lambda value: value,
    exp.Lower: lambda text: text.lower(),
    exp.Upper: lambda text: text.upper(),
    exp.Trim: lambda text: text.strip(),
    exp.Length: lambda text: text.length(),
    exp.StartsWith: lambda text, start: text.startswith(start),
    exp.Contains: lambda text, part: text.contains(part),
    exp.Like: lambda text, pattern: text.like(pattern),
    exp.ILike: lambda text, pattern: text.ilike(pattern),
    exp.Abs: lambda number: number.abs(),
    exp.Coalesce: lambda *values: ibis.coalesce(*values),
}
WORDS = (
    "columns, numbers, texts, true and false; and, or, not; = <> < <= > >=, between, in (...), is "
    "null, like, ilike; + - * /; lower, upper, trim, length, starts_with, contains, abs, coalesce"
)


def filtered(
    labels: ir.Table, slides: ir.Table | None, where: str
) -> tuple[ir.Table, ir.BooleanValue]:
    """Return tiles with the columns of slides that a filter asks for, and whether it holds.

    Parameters
    ----------
    labels
        The label view: a column of it goes before one of the slides.
    slides
        The slides artifact, if there is one.
    where
        The expression. Where it is null it does not hold, as in SQL.

    Raises
    ------
    ConfigError
        It is not one expression of `WORDS` that is true or false, or names a column that neither
        tiles nor slides have, with the nearest one.
    """
    tree = _parsed(where)
    names = [_resolved(column, labels, slides) for column in tree.find_all(exp.Column)]
    wanted = [name for name in dict.fromkeys(names) if name not in labels.columns]
    if wanted and slides is not None:
        theirs = slides.select(*wanted, slide_id=slides.id.cast("string"))
        both = look_up(labels, theirs, ["slide_id"], *wanted)
    else:
        both = labels
    try:
        holds = _built(tree, lambda column: both[_resolved(column, labels, slides)])
    except (IbisError, ValidationError, TypeError, AttributeError) as error:
        raise ConfigError(
            "where compares or computes what does not go together",
            found=" ".join(str(error).split())[:200],
            fix="compare texts with texts in '' and numbers with numbers",
        ) from error
    if not isinstance(holds, ir.BooleanValue):
        raise ConfigError(
            "where is neither true nor false", found=where, fix=f"write for example {EXAMPLE}"
        )
    return both, holds.fill_null(False)


def _parsed(where: str) -> Node:
    try:
        trees = sqlglot.parse(where, dialect="duckdb")
    except SqlglotError as error:
        raise ConfigError(
            "where is not an SQL expression", found=where, fix=f"write for example {EXAMPLE}"
        ) from error
    if len(trees) != 1 or trees[0] is None:
        raise ConfigError(
            f"where is one SQL expression, not {len(list(filter(None, trees)))}",
            found=where or "nothing",
            fix=f"write for example {EXAMPLE}",
        )
    return trees[0]


def _resolved(column: exp.Column, labels: ir.Table, slides: ir.Table | None) -> str:
    """Return a column's name as the tiles or the slides have it; SQL knows no case."""
    ours = [name for name, kind in labels.schema().items() if not kind.is_nested()]
    theirs = passed(slides.columns) if slides is not None else []
    for names in (ours, theirs):
        same = [name for name in names if name.casefold() == column.name.casefold()]
        if same and not column.table:
            return column.name if column.name in same else same[0]
    raise ConfigError(
        f"where asks for a column that there is not: {column.sql()}",
        found=f"tiles: {', '.join(ours)}; slides: "
        + (", ".join(theirs) or ("none" if slides is not None else "no artifact"))
        + nearest(column.name, [*ours, *theirs]),
        fix='name one of them, without its table; "in quotes" what is no plain word',
    )


def _built(node: Node, column: Callable[[exp.Column], ir.Value]) -> Any:
    """Return the Ibis expression of a node, made of those of its parts."""

    def build(part: Node) -> Any:
        return _built(part, column)

    kind = type(node)
    if kind is exp.Column:
        return column(node)
    if kind in (exp.Literal, exp.Boolean):
        return ibis.literal(_value(node))
    if kind in COMPARED:
        return COMPARED[kind](*_at_precision(build(node.this), build(node.expression)))
    if kind in COMBINED:
        return COMBINED[kind](build(node.this), build(node.expression))
    if kind in FUNCTIONS:
        return FUNCTIONS[kind](*map(build, _arguments(node)))
    return _tested(node, build)


def _tested(node: Node, build: Build) -> Any:
    """Return what a node of a form of its own is: a negation, or a test of one value."""
    match node:
        case exp.Not():
            holds = build(node.this)
            if not isinstance(holds, ir.BooleanValue):
                raise TypeError(f"not {node.this.sql()}")
            return ~holds
        case exp.Is(expression=exp.Null()):
            return build(node.this).isnull()
        case exp.Between(args={"low": low, "high": high}):
            value = build(node.this)
            (one, least), (other, most) = (_at_precision(value, build(end)) for end in (low, high))
            return (one >= least) & (other <= most)
        case exp.In(expressions=[_, *_] as items):
            value = build(node.this)
            alike = (_at_precision(value, build(item)) for item in items)
            return reduce(operator.or_, (one == other for one, other in alike))
    raise ConfigError(
        f"where holds what is not taken there: {node.sql(dialect='duckdb')}",
        found=type(node).__name__,
        fix=f"write it with {WORDS}",
    )


def _arguments(node: Node) -> list[Node]:
    """Return the arguments of a function, in their order; a word among them is one too many."""
    if words := [word for word in node.args.values() if isinstance(word, str)]:
        raise TypeError(f"{words[0]} in {node.sql(dialect='duckdb')}")
    values = [part for part in node.args.values() if isinstance(part, exp.Expression | list)]
    return [part for one in values for part in (one if isinstance(one, list) else [one])]


def _value(literal: exp.Literal | exp.Boolean) -> str | int | float | bool:
    if isinstance(literal, exp.Boolean):
        return bool(literal.this)
    text = str(literal.this)
    return text if literal.is_string else int(text) if text.isdecimal() else float(text)


def _at_precision(one: Any, other: Any) -> tuple[Any, Any]:
    """Round a number that is compared with single floats, as thresholds are."""
    if _is_number(other) and one.type().is_float32():
        other = other.cast("float32")
    if _is_number(one) and other.type().is_float32():
        one = one.cast("float32")
    return one, other


def _is_number(value: ir.Value) -> bool:
    return isinstance(value.op(), ops.Literal) and value.type().is_numeric()
