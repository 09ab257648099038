"""What the engines raise, told in this project's words."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import sqlglot

from featurestore.errors import QueryError


@contextmanager
def translated() -> Iterator[None]:
    """Turn the engine's exceptions into a `QueryError` that keeps what the engine said."""
    try:
        yield
    except duckdb.InterruptException as error:
        raise RuntimeError("Query interrupted") from error  # as DuckDB's relations say it
    except duckdb.Error as error:
        raise _refusal("DuckDB could not run the query", error, _advice(error)) from error
    except sqlglot.errors.SqlglotError as error:
        raise _refusal("The SQL could not be parsed", error, "correct the query") from error
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("pyspark", "py4j"):
            raise
        advice = "correct the query or the data that it reads; docs/spark.md tells what must be set"
        raise _refusal("Spark could not run the query", error, advice) from error


def _refusal(wrong: str, error: Exception, advice: str) -> QueryError:
    return QueryError(wrong, found=first_line(str(error)) or type(error).__name__, fix=advice)


def first_line(message: str) -> str:
    """Return the lines of an engine's message that tell the cause: the root of Java's, if any."""
    lines = [re.sub(r"\x1b\[\d*m", "", line) for line in message.splitlines() if line.strip()]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    return causes[-1] if causes else " ".join(lines[:2])


def _advice(error: duckdb.Error) -> str:
    if isinstance(error, duckdb.OutOfMemoryException):
        return "give it more memory (memory_limit=...) or fewer threads"
    if isinstance(error, duckdb.CatalogException | duckdb.BinderException):
        return "`featurestore views` lists the views and their columns"
    if isinstance(error, duckdb.ConnectionException):
        return "open the store again: FeatureStore(store.spec)"
    if isinstance(error, duckdb.IOException):
        return "check that the files are whole and that the disk has room"
    return "correct the query or the data that it reads"
