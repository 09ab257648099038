"""Work on Spark's executors: what they run of this package, and rows that they read or write.

The executors need this package as the driver has it. What a task refuses (`FeatureStoreError`) it
returns, to be raised on the driver at once; whatever else fails in a task Spark tries again.
"""

import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import ibis
import ibis.expr.types as ir
import pyarrow as pa
from ibis.backends.sql import SQLBackend

from featurestore.backend.errors import translated
from featurestore.backend.spark import spark_type
from featurestore.errors import FeatureStoreError, FeatureStoreWarning

T = TypeVar("T")
R = TypeVar("R")
Batches = Iterator[pa.RecordBatch]

OUTCOME = pa.schema({"number": pa.int64(), "outcome": pa.binary()})
"""What a task returns: the number of its item or partition, and what came of it, pickled."""


def run(connection: SQLBackend, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Do some work on each item, a task each; return the results in order.

    Parameters
    ----------
    connection
        Spark.
    work
        A function that the executors can import, or a `functools.partial` of one.
    items
        Small: they and the results pass through the driver.

    Raises
    ------
    FeatureStoreError
        What the first task refuses that does.
    QueryError
        A task fails again and again.
    """
    if not items:
        return []

    def done(batches: Batches) -> Batches:
        for number, item in _items(batches):
            yield _outcome(number, lambda item=item: work(item))  # type: ignore[misc]

    return _results(connection, _tasks(connection, items).mapInArrow(done, spark_type(OUTCOME)))


def read(
    connection: SQLBackend,
    rows_of: Callable[[T], Iterable[pa.RecordBatch]],
    items: Sequence[T],
    schema: pa.Schema,
) -> ir.Table:
    """Return a lazy table of rows that executors read, a task for each item.

    Parameters
    ----------
    connection, items
        As of `run`.
    rows_of
        Returns the rows of an item; a function as of `run`.
    schema
        Of the rows.
    """

    def rows(batches: Batches) -> Batches:
        for _, item in _items(batches):
            yield from rows_of(item)

    name = ibis.util.gen_name("rows")
    with translated():
        frame = _tasks(connection, items).mapInArrow(rows, spark_type(schema))
        frame.createOrReplaceTempView(name)
        return connection.table(name)


def write(
    connection: SQLBackend,
    work: Callable[[int, Batches], R],
    rows: ir.Table,
    keys: Sequence[str],
) -> list[R]:
    """Give rows, sorted, to some work: a task for each range of keys; return the results.

    Parameters
    ----------
    connection
        Spark.
    work
        Is given the number of the range and its rows; a function as of `run`.
    rows
        What to give.
    keys
        The columns by which the rows are sorted.

    Raises
    ------
    FeatureStoreError, QueryError
        As `run`.
    """
    from pyspark import TaskContext

    def done(batches: Batches) -> Batches:
        number = TaskContext.get().partitionId()
        yield _outcome(number, lambda: work(number, batches))

    with translated():
        ranges = connection.frame(rows).repartitionByRange(*keys).sortWithinPartitions(*keys)
    return _results(connection, ranges.mapInArrow(done, spark_type(OUTCOME)))


def _tasks(connection: SQLBackend, items: Sequence[object]) -> Any:
    """Return items as a table of Spark, as many partitions as there are items."""
    pickled = [pickle.dumps(item) for item in items]
    table = pa.table({"number": range(len(items)), "item": pa.array(pickled, pa.binary())})
    frame = connection.session.createDataFrame(table)
    return frame.repartitionByRange(max(1, len(items)), "number")


def _items(batches: Batches) -> Iterator[tuple[int, Any]]:
    for batch in batches:
        for row in batch.to_pylist():
            yield row["number"], pickle.loads(row["item"])


def _outcome(number: int, work: Callable[[], object]) -> pa.RecordBatch:
    """Return what comes of some work: a result or a refusal, and what was warned of."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", FeatureStoreWarning)
        try:
            result = work()
        except FeatureStoreError as error:
            result = error
    messages = [one.message for one in heard if issubclass(one.category, FeatureStoreWarning)]
    row = {"number": number, "outcome": pickle.dumps((result, messages))}
    return pa.RecordBatch.from_pylist([row], OUTCOME)


def _results(connection: SQLBackend, frame: Any) -> list[Any]:
    with translated():
        outcomes = frame.toArrow().sort_by("number")
    results = []
    for outcome in outcomes["outcome"]:
        result, messages = pickle.loads(outcome.as_py())
        for warning in messages:
            warnings.warn(warning, stacklevel=4)
        if isinstance(result, FeatureStoreError):
            raise result
        results.append(result)
    return results
