"""Queries as trees: what kind of statement one is, and what it would read beside the views."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlglot
from sqlglot import exp

from featurestore.errors import QueryError
from featurestore.spec.store_spec import not_configured
from featurestore.spec.typed import nearest

Tree = Any
"""A node of sqlglot, whose base class has other names in other versions."""
PROGRAMS = ("java_method", "reflect", "try_reflect")  # functions of Spark that call any code
OUTSIDE = ("getenv", "secret", "try_secret", "current_setting", "http_request", "ai_query")
"""Functions that bring in what is no data: environment, secrets, settings, other machines."""
MAKERS = {
    "range", "generate_series", "unnest", "json_each", "json_tree", "explode", "explode_outer",
    "posexplode", "posexplode_outer", "inline", "inline_outer", "stack",
}  # fmt: skip
"""Functions that make rows of their arguments alone; any other in place of a table reads some."""
OF_RUNS = ("predictions", "errors")
"""Views that there are of runs alone, which somebody has named."""
TOLD = (exp.Summarize, exp.Describe, exp.Show, exp.Command, exp.Pragma)


@dataclass(frozen=True)
class Reach:
    """What a query may read beside the views.

    Parameters
    ----------
    external
        Files, tables and other machines.
    absent
        By the name of a view that is not there, the artifact that it would be made of.
    """

    external: bool = False
    absent: Mapping[str, str] = field(default_factory=dict)


VIEWS_ALONE = Reach()


def statements(text: str, dialect: str) -> list[Tree]:
    """Return the statements in a text."""
    trees = sqlglot.parse(text, dialect=dialect)
    return [tree for tree in trees if tree is not None and not isinstance(tree, exp.Semicolon)]


def kind(tree: Tree) -> str:
    """Return what kind of statement one is: SELECT, or what else it does."""
    if not isinstance(tree, exp.Query | exp.Values):
        return tree.key.upper()
    if tree.find(exp.QueryTransform):
        return "TRANSFORM"  # a SELECT that starts a program
    called = set(functions(tree))
    return next((name.upper() for name in PROGRAMS if name in called), "SELECT")


def written(tree: Tree, dialect: str) -> str:
    """Return the text of a SELECT: what was looked at is what runs."""
    if isinstance(tree, exp.Subquery):  # Ibis takes no bare parentheses, nor VALUES
        tree = exp.select("*").from_(tree.subquery("asked"))
    if isinstance(tree, exp.Values):
        tree = exp.select("*").from_(tree)
    return str(tree.sql(dialect))


def refuse_outside(
    names: Iterable[str], views: Collection[str], reach: Reach = VIEWS_ALONE
) -> None:
    """Refuse a query that reads more than some views.

    Parameters
    ----------
    names
        What it reads that is none of them: a file, another table, or a function that reads one.
    reach
        What it may read.

    Raises
    ------
    QueryError
        There is one.
    ArtifactError
        It is a view whose artifact is not configured.
    """
    for name in () if reach.external else names:
        if artifact := reach.absent.get(name.casefold()):
            wrong = f"The query reads the view {name}, which is made of the artifact {artifact}"
            raise not_configured(artifact, wrong)
        of_runs = name in OF_RUNS and "name whose they are: runs=RUN; or "
        raise QueryError(
            "The query reads what is none of the views",
            found=name + nearest(name, views),
            fix=f"{of_runs or ''}ask the views alone (`featurestore views` lists them), or allow "
            "the rest: --external, in Python external=True",
        )


def outside(tree: Tree, views: Collection[str]) -> Iterator[str]:
    """Yield what a query reads that is none of some views, their names case-folded."""
    for node in tree.walk():
        if isinstance(node, TOLD):
            yield node.key
        elif isinstance(node, exp.Lateral | exp.Table) and isinstance(node.this, exp.Func):
            if (name := function(node.this)) not in MAKERS:
                yield name
        elif isinstance(node, exp.Table):
            plain = isinstance(node.this, exp.Identifier) and not node.db and not node.catalog
            if not plain or not (node.name.casefold() in views or bound(node)):
                yield ".".join(part.name for part in node.parts)
    yield from (name for name in functions(tree) if name in OUTSIDE)


def read_wholly(tree: Tree, views: Collection[str], column: str) -> list[str]:
    """Return those of some views of which a query may read a column: it names it, or all columns.

    A row is read as a whole where the name of its table stands in place of a column.
    """
    within = [table for table in tree.find_all(exp.Table) if table.name.casefold() in views]
    names = {name.casefold() for table in within for name in (table.name, table.alias)}
    asked = any(node.name.casefold() in {column, *names} for node in tree.find_all(exp.Column))
    everything = any(not isinstance(star.parent, exp.Count) for star in tree.find_all(exp.Star))
    if asked or everything or "columns" in functions(tree):
        return [view for view in views if view in tables(tree)]
    return []


def tables(tree: Tree) -> set[str]:
    """Return the names of the tables that a query names, case-folded."""
    return {table.name.casefold() for table in tree.find_all(exp.Table)}


def bound(table: Tree) -> bool:
    """Return whether a name is that of a query in a WITH, where it stands."""
    name, node = table.name.casefold(), table
    while (above := node.parent) is not None:
        clause, bindings = above.args.get("with_") or above.args.get("with"), []
        if isinstance(above, exp.With):  # within one of its queries, those before it are known
            place = next(n for n, one in enumerate(above.expressions) if one is node)
            bindings = above.expressions[: place + bool(above.recursive)]
        elif clause is not None and clause is not node:
            bindings = clause.expressions
        if name in {one.alias.casefold() for one in bindings}:
            return True
        node = above
    return False


def functions(tree: Tree) -> Iterator[str]:
    """Yield the names of the functions that are called."""
    return map(function, tree.find_all(exp.Func))


def function(node: Tree) -> str:
    """Return the name of a function, in lower case."""
    return (node.name if isinstance(node, exp.Anonymous) else node.sql_name()).lower()
