"""The engine: the one file that names DuckDB."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow as pa
from ibis.backends.duckdb import Backend

from featurestore.errors import QueryError


def connect(
    threads: int | None = None, memory_limit: str | None = None, temp_folder: str | None = None
) -> Backend:
    """Open an in-memory DuckDB through Ibis.

    Parameters
    ----------
    threads
        Number of threads; every core by default.
    memory_limit
        For example ``"4GB"``; DuckDB's own default (80 % of the memory) otherwise.
    temp_folder
        Where DuckDB spills; the system's temporary folder otherwise.
    """
    settings: dict[str, object] = {"threads": threads, "memory_limit": memory_limit}
    settings["temp_directory"] = temp_folder
    with translated():
        return ibis.duckdb.connect(**{k: v for k, v in settings.items() if v is not None})


def read_parquet(connection: Backend, files: Sequence[Path]) -> ir.Table:
    """Return the rows of some Parquet files as a lazy table."""
    with translated():
        return connection.read_parquet([str(file) for file in files])


def register(connection: Backend, name: str, table: pa.Table) -> ir.Table:
    """Make an Arrow table a table of the engine, without a copy."""
    with translated():
        connection.con.register(name, table)
        return connection.table(name)


def create_view(connection: Backend, name: str, view: ir.Table) -> ir.Table:
    """Name a view, so that SQL can ask of it; return the named view."""
    with translated():
        connection.create_view(name, view, overwrite=True)
        return connection.table(name)


def select(connection: Backend, query: str) -> ir.Table:
    """Return one SELECT statement as a lazy table.

    Raises
    ------
    QueryError
        The text is not exactly one SELECT, or the engine refuses it.
    """
    with translated():
        statements = connection.con.extract_statements(query)
        kinds = [statement.type.name for statement in statements]
        if kinds != ["SELECT"]:
            raise QueryError(
                "Only one SELECT statement is asked of the views",
                found=f"{len(kinds)} statements: {', '.join(kinds) or 'none'}",
                fix="write a single select ... or with ... select",
            )
        return connection.sql(query)


def columns(connection: Backend) -> list[tuple[str, str]]:
    """Return the names of the views and tables that SQL can ask, with their columns."""
    names = sorted(n for n in connection.list_tables() if not n.startswith("ibis_"))
    return [(name, ", ".join(connection.table(name).columns)) for name in names]


@contextmanager
def translated() -> Iterator[None]:
    """Turn the engine's exceptions into a `QueryError` that keeps what the engine said."""
    try:
        yield
    except duckdb.Error as error:
        said = [line for line in str(error).splitlines() if line.strip()]
        raise QueryError(
            "DuckDB could not run the query",
            found=" ".join(said[:2]) if said else type(error).__name__,
            fix=_advice(error),
        ) from error


def _advice(error: duckdb.Error) -> str:
    if isinstance(error, duckdb.OutOfMemoryException):
        return "give it more memory (memory_limit=...) or fewer threads"
    if isinstance(error, duckdb.CatalogException | duckdb.BinderException):
        return "`featurestore views` lists the views and their columns"
    if isinstance(error, duckdb.IOException):
        return "check that the files are whole and that the disk has room"
    return "correct the query or the data that it reads"
