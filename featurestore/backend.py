"""The engine: the one file that names DuckDB, and Spark where one machine is not enough."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow as pa
import sqlglot
from ibis.backends.sql import SQLBackend
from sqlglot import exp

from featurestore.errors import QueryError

Engine = Literal["duckdb", "pyspark"]
DIALECT = {"duckdb": "duckdb", "pyspark": "spark"}


def connect(
    threads: int | None = None,
    memory_limit: str | None = None,
    temp_folder: str | None = None,
    engine: Engine = "duckdb",
    database: Path | None = None,
) -> SQLBackend:
    """Open an engine through Ibis.

    Parameters
    ----------
    threads
        Number of threads; every core by default. Spark has its own setting.
    memory_limit
        For example ``"4GB"``; DuckDB's own default (80 % of the memory) otherwise.
    temp_folder
        Where DuckDB spills; the system's temporary folder otherwise.
    engine
        ``duckdb`` in this process, or ``pyspark``: the session that is there, else a local one.
    database
        A DuckDB file to hold the views; in memory by default.
    """
    if engine == "pyspark":
        return _spark()
    settings: dict[str, object] = {"threads": threads, "memory_limit": memory_limit}
    settings["temp_directory"] = temp_folder
    with translated():
        return ibis.duckdb.connect(
            ":memory:" if database is None else database,
            **{k: v for k, v in settings.items() if v is not None},
        )


def _spark() -> SQLBackend:
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise QueryError(
            "backend=pyspark needs PySpark",
            found=str(error),
            fix="pip install 'tissue-probe[spark]'; it wants Java 17",
        ) from error

    quiet = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false"}
    building = SparkSession.builder.appName("featurestore")
    if SparkSession.getActiveSession() is None:
        for name, value in quiet.items():
            building = building.config(name, value)
    # A session of its own, on the same cluster: two stores name their views alike.
    session = building.getOrCreate().newSession()
    session.sparkContext.setLogLevel("ERROR")
    logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)  # pages for a typing error
    return ibis.pyspark.connect(session)


def read_parquet(connection: SQLBackend, files: Sequence[Path]) -> ir.Table:
    """Return the rows of some Parquet files as a lazy table."""
    paths = [str(file.absolute()) for file in files]
    with translated():
        if connection.name == "pyspark":
            name = ibis.util.gen_name("parquet")
            connection._session.read.parquet(*paths).createOrReplaceTempView(name)
            return connection.table(name)
        # Ibis would name a temporary view, which no view in a file can be built on.
        function = exp.func("read_parquet", exp.convert(paths), dialect="duckdb")
        return connection.sql(exp.select("*").from_(function).sql("duckdb"))


def register(connection: SQLBackend, name: str, table: pa.Table) -> ir.Table:
    """Make an Arrow table a table of the engine; DuckDB reads it in place."""
    with translated():
        if connection.name == "pyspark":
            connection._session.createDataFrame(table).createOrReplaceTempView(name)
        else:
            connection.con.register(name, table)
        return connection.table(name)


def create_view(connection: SQLBackend, name: str, view: ir.Table) -> ir.Table:
    """Name a view, so that SQL can ask of it; return the named view."""
    with translated():
        connection.create_view(name, view, overwrite=True)
        return connection.table(name)


def comment(connection: SQLBackend, view: str, text: str, columns: Mapping[str, str]) -> None:
    """Document a view and its columns in a DuckDB file."""
    named = exp.to_identifier(view, quoted=True)
    notes = [exp.Comment(this=exp.Table(this=named), kind="VIEW", expression=_text(text))]
    for name, said in columns.items():
        column = exp.Column(this=exp.to_identifier(name, quoted=True), table=named.copy())
        notes.append(exp.Comment(this=column, kind="COLUMN", expression=_text(said)))
    with translated():
        for note in notes:
            connection.raw_sql(note.sql("duckdb"))


def _text(value: str) -> exp.Expression:
    return exp.Literal.string(value)


def select(connection: SQLBackend, query: str) -> ir.Table:
    """Return one SELECT statement as a lazy table.

    Raises
    ------
    QueryError
        The text is not exactly one SELECT, or the engine refuses it.
    """
    with translated():
        kinds = _statements(connection, query)
        if kinds != ["SELECT"]:
            raise QueryError(
                "Only one SELECT statement is asked of the views",
                found=f"{len(kinds)} statements: {', '.join(kinds) or 'none'}",
                fix="write a single select ... or with ... select",
            )
        return connection.sql(query, dialect=DIALECT[connection.name])


def _statements(connection: SQLBackend, query: str) -> list[str]:
    """Return the kinds of the statements in a text."""
    if connection.name == "duckdb":
        return [found.type.name for found in connection.con.extract_statements(query)]
    parsed = [found for found in sqlglot.parse(query, dialect="spark") if found is not None]
    return ["SELECT" if isinstance(found, exp.Query) else found.key.upper() for found in parsed]


def columns(connection: SQLBackend) -> list[tuple[str, str]]:
    """Return the names of the views and tables that SQL can ask, with their columns."""
    made_by_ibis = ("ibis_", "parquet_")
    names = sorted(n for n in connection.list_tables() if not n.startswith(made_by_ibis))
    return [(name, ", ".join(connection.table(name).columns)) for name in names]


def close(connection: SQLBackend) -> None:
    """Close a DuckDB file, everything in it written."""
    connection.disconnect()


@contextmanager
def translated() -> Iterator[None]:
    """Turn the engine's exceptions into a `QueryError` that keeps what the engine said."""
    try:
        yield
    except duckdb.Error as error:
        raise _refusal("DuckDB", error, _advice(error)) from error
    except sqlglot.errors.SqlglotError as error:
        raise _refusal("Spark", error, "correct the query") from error
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("pyspark", "py4j"):
            raise
        advice = "correct the query or the data that it reads; docs/spark.md tells what must be set"
        raise _refusal("Spark", error, advice) from error


def _refusal(engine: str, error: Exception, advice: str) -> QueryError:
    said = [line for line in str(error).splitlines() if line.strip()]
    return QueryError(
        f"{engine} could not run the query",
        found=" ".join(said[:2]) if said else type(error).__name__,
        fix=advice,
    )


def _advice(error: duckdb.Error) -> str:
    if isinstance(error, duckdb.OutOfMemoryException):
        return "give it more memory (memory_limit=...) or fewer threads"
    if isinstance(error, duckdb.CatalogException | duckdb.BinderException):
        return "`featurestore views` lists the views and their columns"
    if isinstance(error, duckdb.IOException):
        return "check that the files are whole and that the disk has room"
    return "correct the query or the data that it reads"

