"""Spark, where one machine is not enough: its session, and tables as DuckDB sees them."""

import logging
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import gettempdir
from typing import Any
from urllib.parse import unquote, urlsplit

import ibis
import ibis.expr.operations as ops
import ibis.expr.types as ir
import pyarrow as pa
from ibis.backends.sql import SQLBackend

from featurestore.backend.errors import first_line, translated
from featurestore.backend.layout import Layout
from featurestore.errors import ArtifactError, QueryError

CLUSTER = (
    "DATABRICKS_RUNTIME_VERSION",
    "MASTER",
    "PYSPARK_GATEWAY_PORT",  # spark-submit
    "PYSPARK_SUBMIT_ARGS",
    "SPARK_CONF_DIR",
    "SPARK_HOME",
    "SPARK_REMOTE",
)
"""Environment variables that tell Spark what to be; where one is set, nothing is set here."""

CARRIED = (ops.InMemoryTable, ops.ScalarUDF, ops.UnwrapJSONString, ops.UnwrapJSONInt64,
           ops.UnwrapJSONFloat64, ops.UnwrapJSONBoolean)  # fmt: skip
"""What an expression may carry that Spark must be given before it runs: tables and functions."""


def spark_connection(threads: int | None, temp_folder: str | None) -> SQLBackend:
    """Open Spark through Ibis: the session that runs, or one on this machine."""
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise QueryError(
            "backend=pyspark needs PySpark",
            found=str(error),
            fix="pip install 'tissue-probe[spark]'; it wants Java 17",
        ) from error

    for noisy in ("SQLQueryContextLogger", "sqlglot"):  # their pages repeat what is raised anyway
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    session = SparkSession.getActiveSession()
    try:
        if session is None:
            session = _started(SparkSession.builder, threads, temp_folder)
    except PySparkException as error:
        raise QueryError(
            "Spark does not start",
            found=first_line(str(error)),
            fix="install Java 17 and set JAVA_HOME; docs/spark.md tells how a cluster is named",
        ) from error
    with translated():
        return _arrow_backend(_own_views(session))


def _started(builder: Any, threads: int | None, temp_folder: str | None) -> Any:
    """Start Spark as the environment tells, else on this machine without its web page and bars."""
    if any(name in os.environ for name in CLUSTER):
        return builder.getOrCreate()
    settings = {
        "spark.app.name": "featurestore",
        "spark.master": f"local[{threads or '*'}]",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.local.dir": temp_folder,
        # A folder that Spark makes and that nothing is ever written to.
        "spark.sql.warehouse.dir": str(Path(temp_folder or gettempdir()) / "spark-warehouse"),
    }
    for name, value in settings.items():
        if value is not None:
            builder = builder.config(name, value)
    session = builder.getOrCreate()
    # Not ERROR: whatever fails is raised too, and a screen of Java beside it helps nobody.
    session.sparkContext.setLogLevel("FATAL")
    return session


def _own_views(session: Any) -> Any:
    """Return a session on the same cluster with views of its own: stores name theirs alike."""
    from pyspark.sql.classic.dataframe import DataFrame

    if not isinstance(session.range(0), DataFrame):
        return session  # Spark Connect cannot divide a session
    isolated = session.newSession()
    for name, value in session.conf.getAll.items():
        if session.conf.isModifiable(name):
            isolated.conf.set(name, value)
    return isolated


def _arrow_backend(session: Any) -> SQLBackend:
    from ibis.backends.pyspark import Backend
    from ibis.formats.pyarrow import PyArrowData

    class ArrowBackend(Backend):
        """Collects as Arrow: pandas, which Ibis goes through, rounds integers beside nulls."""

        session: Any

        def do_connect(self, session: Any, **kwargs: Any) -> None:
            """Connect to a session, and keep it for what Ibis has no word for."""
            self.session = session
            super().do_connect(session, **kwargs)

        def frame(self, table: ir.Table, params: Any = None, **kwargs: Any) -> Any:
            """Return a table as Spark has it."""
            if table.op().find(CARRIED):  # Ibis registers them before it executes anything
                self.execute(table.limit(0), params=params)
            return self.session.sql(self.compile(table, params=params, **kwargs))

        def to_pyarrow(
            self, expr: ir.Expr, /, *, params: Any = None, limit: Any = None, **kwargs: Any
        ) -> Any:
            table = expr.as_table()
            frame = self.frame(table, params=params, limit=limit, **kwargs)
            rows = PyArrowData.convert_table(frame.toArrow(), table.schema())
            if isinstance(expr, ir.Scalar):
                return PyArrowData.convert_scalar(rows[0][0], expr.type())
            if isinstance(expr, ir.Column):
                return PyArrowData.convert_column(rows[0], expr.type())
            return rows

    ArrowBackend.register_options()
    return ArrowBackend().connect(session)


def spark_table(
    connection: SQLBackend,
    paths: Sequence[str],
    layout: Layout | None,
    content: ir.Table | None = None,
) -> ir.Table:
    """Return Parquet files as a lazy table, laid out as DuckDB reads them.

    Parameters
    ----------
    content
        What the files and the names of their folders say, where Spark cannot read them by itself.
    """
    if content is None:
        rows = connection.session.read.parquet(*map(_spark_path, paths))
        rows = _with_folders(connection.session, rows, paths, layout.partitions if layout else {})
    else:
        rows = connection.frame(content)
    if layout:
        rows = rows.select(
            *(_spark_column(rows, name, layout.written.get(name, name), layout)
              for name in layout.columns),
            *(_spark_column(rows, name, name, layout) for name in layout.partitions),
        )  # fmt: skip
    name = ibis.util.gen_name("parquet")
    rows.createOrReplaceTempView(name)
    return connection.table(name)


def refusing(rows: ir.Table, columns: pa.Schema, reason: str) -> ir.Table:
    """Return a table of Spark with more columns: who asks for their values is refused."""
    from pyspark.sql.functions import lit, raise_error

    connection, name = rows.get_backend(), ibis.util.gen_name("parquet")
    frame = connection.frame(rows)
    for field in spark_type(columns).fields:
        frame = frame.withColumn(field.name, raise_error(lit(reason)).cast(field.dataType))
    frame.createOrReplaceTempView(name)
    return connection.table(name)


def spark_type(schema: pa.Schema) -> Any:
    """Return what Spark calls the types of some columns."""
    from ibis.backends.pyspark.datatypes import PySparkSchema
    from ibis.formats.pyarrow import PyArrowSchema

    return PySparkSchema.from_ibis(PyArrowSchema.to_ibis(schema))


def _with_folders(
    session: Any, rows: Any, paths: Sequence[str], partitions: Mapping[str, Sequence[str | None]]
) -> Any:
    """Add what folders say; Spark's own reading takes 01 for 1, and UTF-8 for Latin letters."""
    from pyspark.sql.functions import broadcast, input_file_name

    if not partitions:
        return rows
    place = ibis.util.gen_name("path")
    rows = rows.withColumn(place, input_file_name())
    spelled = [row[place] for row in rows.select(place).distinct().collect()]
    by_path = dict(zip(paths, zip(*partitions.values(), strict=True), strict=True))
    values = [(uri, *by_path[unquote(urlsplit(uri).path)]) for uri in spelled]
    schema = pa.schema([(name, pa.string()) for name in (place, *partitions)])
    columns = [pa.array(column, pa.string()) for column in zip(*values, strict=True)]
    folders = session.createDataFrame(pa.table(columns, schema=schema))
    return rows.join(broadcast(folders), place)


def _spark_column(rows: Any, name: str, written: str, layout: Layout) -> Any:
    from pyspark.sql.functions import coalesce, create_map, lit, regexp_replace

    column = rows["`" + written.replace("`", "``") + "`"]
    if name not in layout.normal:
        return column.alias(name)
    if texts := unnormalised(rows.select(column.alias(name)), name):
        forms = (lit(form) for text in texts for form in (text, unicodedata.normalize("NFC", text)))
        column = coalesce(create_map(*forms)[column], column)
    if (pattern := layout.pattern(name)) is not None:
        column = regexp_replace(column, pattern, "")
    return column.alias(name)


def unnormalised(rows: Any, name: str) -> list[str]:
    """Return the values of a column of Spark's that are not in Unicode's normal form C.

    Spark has no function for it, and Python on each row would cost more than all else.
    """
    column = rows["`" + name.replace("`", "``") + "`"]
    other = rows.where(column.rlike(r"[^\x00-\x7f]")).select(column.alias("text")).distinct()
    texts = [row["text"] for row in other.collect()]
    return [text for text in texts if not unicodedata.is_normalized("NFC", text)]


def _spark_path(path: str) -> str:
    """Name one file of this machine's file system, whatever a cluster's default is."""
    if Path(path).name.startswith(("_", ".")):
        raise ArtifactError(
            "Spark passes over files whose names begin with _ or .",
            found=path,
            fix="rename the file, or set backend=duckdb",
        )
    return "file://" + re.sub(r"([\\*?{}\[\]])", r"\\\1", path)  # not a pattern


def spark_schema(schema: pa.Schema) -> pa.Schema:
    """Return the narrowest types that Spark has for those that it lacks."""
    lacking = {
        pa.uint8(): pa.int16(),
        pa.uint16(): pa.int32(),
        pa.uint32(): pa.int64(),
        pa.uint64(): pa.decimal128(20),
        pa.float16(): pa.float32(),
        pa.string_view(): pa.string(),
    }
    return pa.schema(
        [field.with_type(lacking.get(field.type, field.type)) for field in schema],
        schema.metadata,
    )
