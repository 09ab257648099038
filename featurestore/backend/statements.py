"""What an engine is asked in SQL: one SELECT of the views, and nothing else once it is sealed."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from glob import escape
from pathlib import Path

import ibis.expr.types as ir
from ibis.backends.sql import SQLBackend
from sqlglot import exp

from featurestore.backend import query
from featurestore.backend.engine import view_names
from featurestore.backend.errors import translated
from featurestore.errors import QueryError


def select(
    connection: SQLBackend,
    text: str,
    external: bool = False,
    absent: Mapping[str, str] | None = None,
) -> ir.Table:
    """Return one SELECT statement as a lazy table.

    Parameters
    ----------
    external
        Whether it may read what is none of the named views: files, tables, other machines.
    absent
        As of `featurestore.backend.query.refuse_outside`.

    Raises
    ------
    QueryError
        The text is not exactly one SELECT, reads something else, or the engine refuses it.
    """
    with translated():
        kinds, trees = _statements(connection, text)
        if kinds != ["SELECT"]:
            raise QueryError(
                "Only one SELECT statement is asked of the views",
                found=f"{len(kinds)} statements: {', '.join(kinds) or 'none'}",
                fix="write a single select ... or with ... select",
            )
        if not external:
            query.refuse_outside(trees[0], view_names(connection), absent)
        written = query.written(trees[0], _dialect(connection))
        _refuse_unlike(connection, written)
        return connection.sql(written)


def read_wholly(
    connection: SQLBackend, text: str, views: Collection[str], column: str
) -> list[str]:
    """Return those of some views of which one SELECT statement may read a column.

    Raises
    ------
    QueryError
        The text cannot be parsed.
    """
    with translated():
        kinds, trees = _statements(connection, text)
        return query.read_wholly(trees[0], views, column) if kinds == ["SELECT"] else []


def _refuse_unlike(connection: SQLBackend, written: str) -> None:
    """Refuse columns of one name, and strings of bits, of which Ibis would make text."""
    if connection.name == "duckdb":
        rows = connection.raw_sql(f"describe {written}").fetchall()
        names, types = [row[0] for row in rows], [row[1] for row in rows]
    else:
        names, types = connection.session.sql(written).columns, []
    if twice := sorted({name for name, count in Counter(names).items() if count > 1}):
        raise QueryError(
            "Columns of the answer bear one name",
            found=", ".join(map(repr, twice)),
            fix="name them apart: select a.x as a_x, b.x as b_x",
        )
    if bits := [name for name, kind in zip(names, types, strict=False) if kind == "BIT"]:
        raise QueryError(
            "The answer holds strings of bits",
            found=", ".join(map(repr, bits)),
            fix="let the query write them as text: column::text",
        )


def _statements(connection: SQLBackend, text: str) -> tuple[list[str], list[query.Tree]]:
    """Return the kinds of the statements in a text, and the trees if it may be one SELECT."""
    if connection.name == "duckdb":
        kinds = [statement.type.name for statement in connection.con.extract_statements(text)]
        if kinds != ["SELECT"]:
            return kinds, []
    trees = query.statements(text, _dialect(connection))
    return [query.kind(tree) for tree in trees], trees


def _dialect(connection: SQLBackend) -> str:
    return "duckdb" if connection.name == "duckdb" else "spark"


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
