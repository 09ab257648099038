"""Statements as DuckDB's own parser takes them: which only read, and what they read.

Where one ends is told by its tokenizer, what it does by its statement types, and what it reads by
the tree that it serialises, which it makes of statements that read alone.
"""

import json
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import duckdb
from sqlglot.errors import SqlglotError

from featurestore.backend import query
from featurestore.backend.query import MAKERS, OUTSIDE
from featurestore.errors import QueryError

Node = Any
"""A dictionary, list or value of the tree."""
WRITES = {
    "COPY": "it reads or writes files",
    "EXPORT": "it writes files",
    "ATTACH": "it opens another database",
    "DETACH": "it closes a database",
    "LOAD": "it installs or loads an extension",
    "SET": "it changes settings",
    "VARIABLE_SET": "it changes settings",
    "PRAGMA": "it changes settings",
    "PRAGMA of a table": "write describe, show or summarize",
    "CALL": "it runs what is no view",
    "TRANSACTION": "it is about changes, and nothing is changed here",
    "PREPARE": "it is for later statements; write the query itself",
    "EXECUTE": "it is for earlier statements; write the query itself",
    "SELECT": "a pivot whose columns the data give is not explained; write pivot ... in (...)",
}
"""Why statements of a type are not for views."""
OTHER = "it changes data or views"
LISTINGS = ('"tables"', "__show_tables_expanded")  # what SHOW TABLES and DESCRIBE alone ask for


@dataclass(frozen=True)
class Statement:
    """A statement that reads.

    Parameters
    ----------
    text
        As it was written.
    tree
        Of the query; of an EXPLAIN that of what is explained. None of a pivot whose columns the
        data give, of which DuckDB makes several statements and serialises none.
    pivot
        The tree of such a pivot, as sqlglot reads it.
    is_plain
        Whether it is a query of tables alone, which can be part of another.
    """

    text: str
    tree: Node = None
    pivot: query.Tree = None
    is_plain: bool = False

    @property
    def lists_tables(self) -> bool:
        """Whether it asks which tables there are."""
        return any(node.get("table_name") in LISTINGS for node, _ in nodes(self.tree))

    def outside(self, views: Collection[str]) -> Iterator[str]:
        """Yield what it reads that is none of some views, their names case-folded."""
        return query.outside(self.pivot, views) if self.pivot else outside(self.tree, views)

    def read_wholly(self, views: Collection[str], column: str) -> list[str]:
        """Return those of some views of which it may read a column."""
        if self.pivot:  # its rows are told apart by all columns
            return [view for view in views if view in query.tables(self.pivot)]
        return read_wholly(self.tree, views, column)


def statements(connection: duckdb.DuckDBPyConnection, text: str) -> list[Statement]:
    """Return the statements in a text, which all read.

    Raises
    ------
    QueryError
        There is none, or one writes, with what it does.
    duckdb.Error
        The text cannot be parsed.
    """
    read = [_statement(connection, piece) for piece in _pieces(text)]
    if not read:
        raise QueryError(
            "Nothing is asked",
            found="no statement",
            fix="write for example select count(*) from fates",
        )
    return read


def _pieces(text: str) -> Iterator[str]:
    """Yield the texts of statements, which semicolons end."""
    content, start = text.encode(), 0
    tokens = [offset for offset, _ in duckdb.tokenize(text)]
    ends = [offset for offset in tokens if content[offset : offset + 1] == b";"]
    for end in [*ends, len(content)]:
        if any(start <= offset < end for offset in tokens):
            yield content[start:end].decode()
        start = end + 1


def _statement(connection: duckdb.DuckDBPyConnection, text: str) -> Statement:
    kinds = _kinds(connection, text)
    if kinds[-1:] == ["SELECT"] and set(kinds[:-1]) == {"CREATE"}:  # a type of the values, then
        return Statement(text, pivot=_pivot(text))
    asked = _explained(connection, text) if "EXPLAIN" in kinds else text
    tree = _tree(connection, asked)
    if tree is None:
        refused = kinds if asked == text else _kinds(connection, asked)
        if refused == ["SELECT"]:  # which the parser has made of a PRAGMA
            refused = ["PRAGMA of a table"]
        raise QueryError(
            "Only what reads the views is answered",
            found="; ".join(f"{kind}: {WRITES.get(kind, OTHER)}" for kind in refused),
            fix="write a select, from, with, values, describe, summarize, show, explain, pivot or "
            "unpivot",
        )
    describes = any(node.get("type") in ("SHOW_REF", "PIVOT") for node, _ in nodes(tree))
    return Statement(text, tree, is_plain=kinds == ["SELECT"] and not describes)


def _pivot(text: str) -> query.Tree:
    try:
        [tree] = query.statements(text, "duckdb")
    except SqlglotError as error:
        raise QueryError(
            "It cannot be told what this pivot reads",
            found=str(error).splitlines()[0],
            fix="put it into a query, from (pivot ...) order by ..., or write the values of its "
            "columns: on label in ('Fat', 'Nerve')",
        ) from error
    return tree


def _kinds(connection: duckdb.DuckDBPyConnection, text: str) -> list[str]:
    return [each.type.name for each in connection.extract_statements(text)]


def _explained(connection: duckdb.DuckDBPyConnection, text: str) -> str:
    """Return what an EXPLAIN is of: what begins with the first token from which it can be parsed.

    Before it stand EXPLAIN itself and its options, which are no statements.
    """
    content = text.encode()
    for offset, _ in duckdb.tokenize(text)[1:]:
        rest = content[offset:].decode()
        with suppress(duckdb.Error):
            if _kinds(connection, rest):
                return rest
    return text


def _tree(connection: duckdb.DuckDBPyConnection, text: str) -> Node | None:
    """Return the tree of a text, None if it does not read alone."""
    answer = connection.execute("select json_serialize_sql(?)", [text]).fetchone()
    return json.loads(answer[0]).get("statements") if answer else None


def nodes(tree: Node) -> Iterator[tuple[dict[str, Any], frozenset[str]]]:
    """Yield the nodes of a tree with the names that WITH gives to queries where they stand."""
    waiting: list[tuple[Node, frozenset[str]]] = [(tree, frozenset())]
    while waiting:
        node, bound = waiting.pop()
        if isinstance(node, list):
            waiting += [(inner, bound) for inner in reversed(node)]
        elif isinstance(node, dict):
            yield node, bound
            if node.get("type") == "RECURSIVE_CTE_NODE":
                bound |= {str(node["cte_name"]).casefold()}
            for named in (node.get("cte_map") or {}).get("map", ()):  # each knows those before it
                waiting.append((named["value"], bound))
                bound |= {named["key"].casefold()}
            inside = [value for key, value in node.items() if key != "cte_map"]
            waiting += [(value, bound) for value in reversed(inside)]


def outside(tree: Node, views: Collection[str]) -> Iterator[str]:
    """Yield what a statement reads that is none of some views, their names case-folded."""
    for node, bound in nodes(tree):
        kind = node.get("type")
        if kind == "BASE_TABLE":
            parts = [node.get(f"{part}_name") for part in ("catalog", "schema", "table")]
            name = ".".join(filter(None, parts))
            if name != node["table_name"] or name.casefold() not in {*views, *bound}:
                yield name
        elif kind == "TABLE_FUNCTION":
            if (name := node["function"]["function_name"].lower()) not in MAKERS:
                yield name
        elif kind == "SHOW_REF" and not node.get("query"):
            if node["table_name"] not in LISTINGS:
                yield f"show {node['table_name']}"
        elif kind == "FUNCTION" and node["function_name"].lower() in OUTSIDE:
            yield node["function_name"].lower()


def read_wholly(tree: Node, views: Collection[str], column: str) -> list[str]:
    """Return those of some views of which a statement may read a column.

    It names it, the row of its table, or all columns; DESCRIBE reads none.
    """
    within = [node for node, _ in nodes(tree)]
    tables = [
        node
        for node in within
        if node.get("type") == "BASE_TABLE" and node["table_name"].casefold() in views
    ]
    names = {str(node[key]).casefold() for node in tables for key in ("table_name", "alias")}
    asked = {column, *names}
    named = any(
        node.get("type") == "COLUMN_REF" and node["column_names"][-1].casefold() in asked
        for node in within
    )
    everything = any(node.get("type") in ("STAR", "PIVOT") for node in within)
    if any(node.get("show_type") == "DESCRIBE" for node in within):
        everything = False
    if named or everything:
        return [view for view in views if view in names]
    return []
