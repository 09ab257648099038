"""What an engine is asked in SQL: statements that read the views, and nothing else if sealed."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from glob import escape
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa
from ibis.backends.sql import SQLBackend
from sqlglot import errors as sqlglot_errors
from sqlglot import exp

from featurestore.backend import parsed, query
from featurestore.backend.engine import INTERNAL, view_names
from featurestore.backend.errors import translated
from featurestore.backend.parsed import Statement
from featurestore.backend.query import VIEWS_ALONE, Reach
from featurestore.errors import QueryError


def select(connection: SQLBackend, text: str, reach: Reach = VIEWS_ALONE) -> ir.Table:
    """Return the answer to one statement as a table: lazy, if it can be part of another query.

    What DuckDB alone takes (DESCRIBE, SUMMARIZE, SHOW, EXPLAIN, PIVOT) is answered at once.

    Parameters
    ----------
    reach
        What it may read.

    Raises
    ------
    QueryError
        The text is not exactly one statement that reads, it reads something else, or the engine
        refuses it.
    """
    with translated():
        if connection.name != "duckdb":
            return _of_spark(connection, _one(_trees(text)), reach)
        statement = _one(parsed.statements(connection.con, text))
        _check(connection, statement, reach)
        table = _lazy(connection, statement)
        return ibis.memtable(_answer(connection, statement)) if table is None else table


def answers(connection: SQLBackend, text: str, reach: Reach = VIEWS_ALONE) -> list[pa.Table]:
    """Return the answers to all statements in a text, none of which runs unless all read.

    Raises
    ------
    QueryError
        One does not, see `select`.
    """
    with translated():
        if connection.name != "duckdb":
            tables = [_of_spark(connection, tree, reach) for tree in _trees(text)]
            return [table.to_pyarrow() for table in tables]
        statements = parsed.statements(connection.con, text)
        for statement in statements:
            _check(connection, statement, reach)
        return [
            _answer(connection, statement) if table is None else table.to_pyarrow()
            for statement in statements
            for table in [_lazy(connection, statement)]
        ]


def read_wholly(
    connection: SQLBackend, text: str, views: Collection[str], column: str
) -> list[str]:
    """Return those of some views of which a text may read a column.

    Raises
    ------
    QueryError
        The text cannot be parsed, or does not read alone.
    """
    with translated():
        if connection.name == "duckdb":
            asked = [s.read_wholly(views, column) for s in parsed.statements(connection.con, text)]
        else:
            asked = [query.read_wholly(tree, views, column) for tree in _trees(text)]
    return [view for view in views if any(view in names for names in asked)]


def _one(statements: Sequence[Any]) -> Any:
    if len(statements) > 1:
        raise QueryError(
            "Several statements are no one table",
            found=f"{len(statements)} statements",
            fix="ask one, or all of them for their answers: `featurestore sql`, in Python "
            "FeatureStore.answers",
        )
    return statements[0]


def _trees(text: str) -> list[query.Tree]:
    """Return the trees of SELECTs that Spark is asked."""
    trees = query.statements(text, "spark")
    kinds = [query.kind(tree) for tree in trees]
    if set(kinds) != {"SELECT"}:
        raise QueryError(
            "Spark is asked SELECT statements of the views, and nothing else",
            found=f"{len(kinds)} statements: {', '.join(kinds) or 'none'}",
            fix="write select ... or with ... select; backend=duckdb takes describe, summarize, "
            "show, explain and pivot as well",
        )
    return trees


def _of_spark(connection: SQLBackend, tree: query.Tree, reach: Reach) -> ir.Table:
    views = view_names(connection)
    outside = query.outside(tree, {view.casefold() for view in views})
    query.refuse_outside(outside, views, reach)
    written = query.written(tree, "spark")
    _refuse_twins(connection.session.sql(written).columns)
    return connection.sql(written)


def _check(connection: SQLBackend, statement: Statement, reach: Reach) -> None:
    views = view_names(connection)
    outside = statement.outside({view.casefold() for view in views})
    query.refuse_outside(outside, views, reach)


def _lazy(connection: SQLBackend, statement: Statement) -> ir.Table | None:
    """Return the answer as a lazy table, None if it cannot be part of another query of Ibis."""
    if not statement.is_plain:
        return None
    try:
        [tree] = query.statements(statement.text, "duckdb")
    except sqlglot_errors.SqlglotError:  # which DuckDB has understood
        return None
    if query.kind(tree) != "SELECT":
        return None
    written = query.written(tree, "duckdb")
    [again] = parsed.statements(connection.con, written)
    if sorted(again.outside(())) != sorted(statement.outside(())):
        return None  # what was looked at is what runs
    rows = connection.raw_sql(f"describe {written}").fetchall()
    _refuse_twins([row[0] for row in rows])
    _refuse_bits((row[0], row[1]) for row in rows)
    return connection.sql(written)


def _answer(connection: SQLBackend, statement: Statement) -> pa.Table:
    """Return the answer to a statement, which DuckDB itself is given as it was written."""
    done = connection.con.execute(statement.text)
    columns = [(name, str(kind)) for name, kind, *_ in done.description]
    answer = done.to_arrow_table()
    _refuse_twins([name for name, _ in columns])
    _refuse_bits(columns)
    if statement.tree and statement.lists_tables:
        names = answer["name"].to_pylist()
        answer = answer.filter(pa.array([not name.startswith(INTERNAL) for name in names]))
    return answer


def _refuse_twins(names: Iterable[str]) -> None:
    """Refuse columns of one name, of which a reader keeps one."""
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise QueryError(
            "Columns of the answer bear one name",
            found=", ".join(map(repr, twice)),
            fix="name them apart: select a.x as a_x, b.x as b_x",
        )


def _refuse_bits(columns: Iterable[tuple[str, str]]) -> None:
    """Refuse strings of bits, of which Ibis would make text."""
    if bits := [name for name, kind in columns if kind == "BIT"]:
        raise QueryError(
            "The answer holds strings of bits",
            found=", ".join(map(repr, bits)),
            fix="let the query write them as text: column::text",
        )


def seal(connection: SQLBackend, files: Sequence[Path]) -> None:
    """Let DuckDB open these files and no others, load nothing and change no setting, for good.

    Spark has nothing like it; there `select` alone refuses what a query names.
    """
    if connection.name != "duckdb" or _is_sealed(connection):
        return
    with translated():
        for statement in (
            allowed_paths(files), "set python_enable_replacements = false",
            "set enable_external_access = false", "set lock_configuration = true",
        ):  # fmt: skip
            connection.raw_sql(statement)


def allowed_paths(files: Sequence[Path]) -> str:
    """Return the statement that names the files which stay readable without external access."""
    names = [str(file.absolute()) for file in files]
    allowed = exp.convert([*names, *map(escape, names)])  # views name them escaped
    return f"set allowed_paths = {allowed.sql('duckdb')}"


def _is_sealed(connection: SQLBackend) -> bool:
    asked = connection.raw_sql("select current_setting('lock_configuration')")
    return bool(asked.fetchone()[0])
