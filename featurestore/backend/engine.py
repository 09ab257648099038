"""The engine: the one file that names DuckDB, and Spark where one machine is not enough."""

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from glob import escape
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.operations as ops
import ibis.expr.types as ir
import pyarrow as pa
from ibis.backends.sql import SQLBackend
from sqlglot import exp

from featurestore.backend.errors import translated
from featurestore.backend.layout import Layout
from featurestore.backend.spark import spark_connection, spark_schema, spark_table
from featurestore.backend.spark import unnormalised as spark_unnormalised
from featurestore.spec.literals import Engine

INTERNAL = ("ibis_", "parquet_")
"""What begins the names of views that nobody asks for by name."""


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
        Number of threads; every core by default.
    memory_limit
        For example ``"4GB"``; DuckDB's own default (80 % of the memory) otherwise. Spark takes
        its memory from its own settings.
    temp_folder
        Where the engine spills; its default (for Spark the system's temporary folder) otherwise.
    engine
        ``duckdb`` in this process, or ``pyspark``: the session that is there, else what the
        environment tells Spark to be (`featurestore.backend.spark.CLUSTER`), else a local session.
        ``threads`` and ``temp_folder`` are for a local one.
    database
        A DuckDB file to hold the views; in memory by default.

    Raises
    ------
    QueryError
        The engine is not installed, or does not start.
    """
    # One query within another: merged into one, an expression is written out wherever it is used.
    ibis.options.sql.fuse_selects = False
    if engine == "pyspark":
        return spark_connection(threads, temp_folder)
    limits: dict[str, object] = {"threads": threads, "memory_limit": memory_limit}
    limits["temp_directory"] = temp_folder
    # Ibis tells engines apart by the name of their database: without one of its own, a view of one
    # store would be looked up, by its name, in another.
    in_memory = ":memory:" + ibis.util.gen_name("store")
    with translated():
        connection = ibis.duckdb.connect(
            in_memory if database is None else database,
            **{k: v for k, v in limits.items() if v is not None},
        )
        for statement in settings():
            connection.raw_sql(statement)
    return connection


def settings(threads: int | None = None, memory_limit: str | None = None) -> list[str]:
    """Return the statements that set DuckDB up as the views need it, within limits."""
    # Ibis has no name for the type that DuckDB makes of a column of shapes.
    values: dict[str, object] = {"enable_geoparquet_conversion": False}
    values |= {"threads": threads, "memory_limit": memory_limit}
    return [
        f"set {name} = {exp.convert(value).sql('duckdb')}"
        for name, value in values.items()
        if value is not None
    ]


def read_parquet(
    connection: SQLBackend,
    files: Sequence[Path],
    layout: Layout | None = None,
    content: ir.Table | None = None,
) -> ir.Table:
    """Return the rows of some Parquet files of one schema as a lazy table.

    Names of folders mean nothing but what ``layout`` says; without one, every column is read.

    Parameters
    ----------
    content
        What files and folders say, where executors of Spark have read it.

    Raises
    ------
    ArtifactError
        Spark would pass over a file.
    """
    paths = [str(file.absolute()) for file in files]
    with translated():
        if connection.name == "pyspark":
            return spark_table(connection, paths, layout, content)
        query = _duckdb_select(paths, layout).sql("duckdb")
        if connection.raw_sql("select path is null from duckdb_databases() where database_name = "
                              "current_database()").fetchone()[0]:  # fmt: skip
            # A view of the session: its text is not parsed again in each view built on it.
            name = ibis.util.gen_name("parquet")
            connection.raw_sql(f"create temporary view {name} as {query}")
            return connection.table(name)
        # No view in a file can be built on a temporary one.
        return connection.sql(query)


def _duckdb_select(paths: Sequence[str], layout: Layout | None) -> exp.Select:
    literal = [escape(path) for path in paths]  # a name with a * in it is no pattern
    settings = [exp.PropertyEQ(this=exp.to_identifier("hive_partitioning"), expression=exp.false())]
    if layout is None or not layout.partitions:
        function = exp.func("read_parquet", exp.convert(literal), *settings, dialect="duckdb")
        if layout is None:
            return exp.select("*").from_(function)
        return exp.select(*(_read(name, layout) for name in layout.columns)).from_(function)
    place = ibis.util.gen_name("path")
    settings.append(
        exp.PropertyEQ(this=exp.to_identifier("filename"), expression=exp.convert(place))
    )
    function = exp.func("read_parquet", exp.convert(literal), *settings, dialect="duckdb")
    rows = zip(paths, *layout.partitions.values(), strict=True)
    names = [exp.to_identifier(name, quoted=True) for name in (place, *layout.partitions)]
    by_path = exp.Values(
        expressions=[exp.convert(row) for row in rows],
        alias=exp.TableAlias(this=exp.to_identifier("folders"), columns=names),
    )
    given = [_read(name, layout, "folders") for name in layout.partitions]
    return (
        exp.select(*(_read(name, layout, "files") for name in layout.columns), *given)
        .from_(exp.select("*").from_(function).subquery("files"))
        .join(by_path, on=_quoted(place, "files").eq(_quoted(place, "folders")))
    )


def _quoted(name: str, table: str | None = None) -> exp.Column:
    return exp.column(exp.to_identifier(name, quoted=True), table)


def _read(name: str, layout: Layout, table: str | None = None) -> Any:
    given = table == "folders"
    column: Any = _quoted(name if given else layout.written.get(name, name), table)
    if given:  # where all values are null, they have no type
        column = exp.cast(column, "text")
    if name in layout.normal:
        column = exp.func("nfc_normalize", column, dialect="duckdb")
        if (pattern := layout.pattern(name)) is not None:
            ends = [exp.convert(pattern), exp.convert("")]
            column = exp.func("regexp_replace", column, *ends, dialect="duckdb")
    return exp.alias_(column, name, quoted=True)


def unnormalised(
    connection: SQLBackend, files: Sequence[Path], column: str, content: ir.Table | None = None
) -> list[str]:
    """Return the values of a column of text that are not in Unicode's normal form C, sorted.

    Parameters
    ----------
    content
        As of `read_parquet`.
    """
    layout = Layout([column])
    with translated():
        if connection.name == "pyspark":
            rows = connection.frame(read_parquet(connection, files, layout, content))
            texts = spark_unnormalised(rows, column)
        else:
            rows = _duckdb_select([str(file.absolute()) for file in files], layout).subquery("rows")
            text = _quoted(column)
            normal = exp.func("nfc_normalize", text.copy(), dialect="duckdb")
            query = exp.select(text).distinct().from_(rows).where(text.copy().neq(normal))
            texts = [text for (text,) in connection.raw_sql(query.sql("duckdb")).fetchall()]
    return sorted(text for text in texts if not unicodedata.is_normalized("NFC", text))


def write_parquet(rows: ir.Table, path: Path) -> None:
    """Write the rows of a DuckDB table to a Parquet file, in order and in a stream."""
    connection = rows.get_backend()
    with translated():
        connection.con.sql(connection.compile(rows)).write_parquet(str(path), compression="zstd")


def keep(rows: ir.Table, name: str | None = None) -> ir.Table:
    """Compute the rows of a table once, for as long as its connection is open.

    In DuckDB they count towards its limit of memory, beyond which they lie in its temporary folder;
    in Spark they lie with its executors.

    Parameters
    ----------
    name
        What to call it, see `kept`.
    """
    connection, name = rows.get_backend(), name or ibis.util.gen_name("parquet")
    with translated():
        if connection.name == "pyspark":
            connection.frame(rows).persist().createOrReplaceTempView(name)
            return connection.table(name)
        return connection.create_table(name, rows, temp=True)


def kept(connection: SQLBackend, name: str) -> ir.Table | None:
    """Return the table of a name, if it was kept."""
    with translated():
        return connection.table(name) if name in view_names(connection) else None


def release(rows: ir.Table) -> None:
    """Let go of rows that `keep` has computed."""
    connection, name = rows.get_backend(), rows.op().name
    with translated():
        if connection.name == "pyspark":
            connection.session.catalog.uncacheTable(name)
        else:
            named = exp.to_identifier(name, quoted=True).sql("duckdb")
            connection.raw_sql(f"drop table {named}")


def register(connection: SQLBackend, name: str, table: pa.Table) -> ir.Table:
    """Make an Arrow table a table of the engine; DuckDB reads it in place."""
    with translated():
        if connection.name == "pyspark":
            frame = connection.session.createDataFrame(table.cast(spark_schema(table.schema)))
            frame.createOrReplaceTempView(name)
        else:
            connection.con.register(name, table)
        return connection.table(name)


def create_view(connection: SQLBackend, name: str, view: ir.Table) -> ir.Table:
    """Name a view, so that SQL can ask of it; return the named view."""
    with translated():
        if connection.name == "pyspark":
            return connection.create_view(name, view, overwrite=True)
        query = connection.compile(view)
        named = exp.to_identifier(name, quoted=True).sql("duckdb")
        connection.raw_sql(f"create or replace view {named} as {query}")
        # Ibis would ask the engine for the types that it has just told it.
        return ops.DatabaseTable(name, view.schema(), connection).to_expr()


def most_collected(connection: SQLBackend) -> int | None:
    """Return how many bytes Spark lets one question bring to the driver; None for no limit."""
    if connection.name != "pyspark":
        return None
    setting = connection.session.conf.get("spark.driver.maxResultSize", "1g")
    number, unit = re.fullmatch(r"(\d+)([kmgtp]?)b?", setting.lower()).groups()  # type: ignore[union-attr]
    return int(number) * 1024 ** " kmgtp".index(unit or " ") or None


def cache(connection: SQLBackend, view: str) -> None:
    """Let Spark's executors keep the rows of a view once they are computed; DuckDB needs none."""
    if connection.name == "pyspark":
        with translated():
            connection.session.catalog.cacheTable(view)


def uncache(connection: SQLBackend, views: Collection[str]) -> None:
    """Let go of what `cache` keeps."""
    for view in views:
        with suppress(Exception):  # Spark may have ended, and with it what it kept
            connection.session.catalog.uncacheTable(view)


def comment(connection: SQLBackend, view: str, text: str, columns: Mapping[str, str]) -> None:
    """Document a view and its columns in a DuckDB file."""
    named = exp.to_identifier(view, quoted=True)
    notes = [exp.Comment(this=exp.Table(this=named), kind="VIEW", expression=_text(text))]
    for name, note_text in columns.items():
        column = exp.Column(this=exp.to_identifier(name, quoted=True), table=named.copy())
        notes.append(exp.Comment(this=column, kind="COLUMN", expression=_text(note_text)))
    with translated():
        for note in notes:
            connection.raw_sql(note.sql("duckdb"))


def _text(value: str) -> exp.Expression:
    return exp.Literal.string(value)


def columns(connection: SQLBackend) -> list[tuple[str, list[str]]]:
    """Return the names of the views and tables that SQL can ask, with their columns."""
    names = sorted(n for n in view_names(connection) if not n.startswith(INTERNAL))
    return [(name, list(connection.table(name).columns)) for name in names]


def view_names(connection: SQLBackend) -> list[str]:
    """Return the names of all tables and views that SQL can ask, those that Ibis made as well."""
    if connection.name == "duckdb":
        return connection.list_tables()
    views = connection.session.sql("show views").collect()  # a cluster has tables of others too
    return [view.viewName for view in views if view.isTemporary]


def close(connection: SQLBackend) -> None:
    """Close a DuckDB file, everything in it written."""
    connection.disconnect()
