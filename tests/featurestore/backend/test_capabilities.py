"""What this project relies on beside the documented interfaces of Ibis, DuckDB, Spark and MLflow.

A release that takes one of these away fails here, with the name of the place that relies on it.
"""

import inspect
from collections.abc import Callable
from typing import Any

import duckdb
import ibis
import ibis.expr.operations as ops
import pyarrow as pa
import pytest
from ibis.backends.pyspark import Backend
from ibis.formats.pyarrow import PyArrowData
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

from featurestore.backend import engine


def parameters(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_ibis_on_duckdb_gives_its_connection():
    """Tables of Arrow, files in a stream and kinds of statements are asked of DuckDB itself."""
    connection = engine.connect()
    where = "featurestore/backend/engine.py and statements.py rely on Backend.con of Ibis on DuckDB"
    assert isinstance(connection.con, duckdb.DuckDBPyConnection), where
    for name in ("register", "sql", "extract_statements"):
        assert callable(getattr(connection.con, name, None)), f"{where}: {name}"
    kinds = [statement.type.name for statement in connection.con.extract_statements("select 1")]
    assert kinds == ["SELECT"], f"{where}: the type of a statement"


def test_ibis_on_duckdb_runs_sql_on_that_connection():
    answer = engine.connect().raw_sql("select 1 as a")
    assert answer.fetchone() == (1,), "featurestore/backend/engine.py reads answers of raw_sql"


def test_ibis_makes_tables_of_names_and_schemas():
    """A view's types are not asked of the engine again."""
    connection = engine.connect()
    connection.raw_sql("create view v as select 1::bigint as a")
    where = "featurestore/backend/engine.py: create_view relies on ops.DatabaseTable"
    assert parameters(ops.DatabaseTable)[:3] == ["name", "schema", "source"], where
    table = ops.DatabaseTable("v", ibis.schema({"a": "int64"}), connection).to_expr()
    assert table.to_pyarrow()["a"].to_pylist() == [1], where


def test_ibis_makes_names():
    names = {ibis.util.gen_name("parquet") for _ in range(2)}
    assert len(names) == 2
    assert all(name.startswith("ibis_parquet_") for name in names), (
        "featurestore/backend/engine.py: columns() leaves out what begins with ibis_"
    )


def test_ibis_connects_to_a_session_of_spark():
    """The session is kept by a subclass: Ibis's own attribute is private."""
    where = "featurestore/backend/spark.py: ArrowBackend extends do_connect and to_pyarrow"
    assert parameters(Backend.do_connect)[:2] == ["self", "session"], where
    assert parameters(Backend.to_pyarrow) == ["self", "expr", "params", "limit", "kwargs"], where


def test_ibis_converts_arrow_to_the_types_of_an_expression():
    where = "featurestore/backend/spark.py: ArrowBackend.to_pyarrow relies on PyArrowData"
    schema = ibis.schema({"a": "int64"})
    table = PyArrowData.convert_table(pa.table({"a": pa.array([1], pa.int32())}), schema)
    assert table.schema.field("a").type == pa.int64(), where
    column = PyArrowData.convert_column(pa.chunked_array([pa.array([1], pa.int32())]), schema["a"])
    assert column.type == pa.int64(), where
    assert PyArrowData.convert_scalar(pa.scalar(1, pa.int32()), schema["a"]).type == pa.int64()


def test_ibis_finds_what_an_expression_carries():
    where = "featurestore/backend/spark.py: CARRIED is looked for by Node.find"
    carried = ibis.memtable({"a": [1]}).limit(1)
    assert carried.op().find((ops.InMemoryTable, ops.ScalarUDF)), where
    assert not ibis.range(3).unnest().name("a").as_table().op().find(ops.InMemoryTable), where


@pytest.mark.parametrize("repository", [HttpArtifactRepository, MlflowArtifactsRepository])
def test_mlflow_names_what_a_file_is_downloaded_by(repository: type):
    """`_host_creds` and the signed URL have a fallback: without them it is downloaded each time."""
    where = "featurestore/io/proxied.py relies on it"
    assert parameters(repository._download_file) == ["self", "remote_file_path", "local_path"], (
        where
    )
    assert isinstance(inspect.getattr_static(repository, "_host_creds"), property), where
    if hasattr(repository, "_is_multipart_download_enabled"):
        assert hasattr(repository, "_get_presigned_download_url"), where
