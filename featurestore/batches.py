"""From chosen tiles to one float32 matrix, the embedding column streamed through Arrow.

DuckDB reads, joins and casts; this file copies each batch to its rows of the result. The list
column becomes ``FLOAT[dim]`` in the engine, so that a batch is a view of its Arrow buffer.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from featurestore import backend
from featurestore.contract import key_text
from featurestore.errors import EmbeddingError, QueryError
from featurestore.folds import KEY

BATCH_BYTES = 16 * 2**20
LARGEST = float(np.finfo(np.float32).max)
ENGINE_VECTOR = 2048  # rows: DuckDB hands out no smaller batches

Matrix = npt.NDArray[np.float32]


def as_vectors(embeddings: ir.Table, dim: int) -> ir.Table:
    """Cast the lists of a lazy table to ``fixed_size_list<float>[dim]``.

    Before a join, not after it: the engine then carries half the bytes through the join, and the
    whole is a fifth quicker.
    """
    vector = dt.Array(dt.float32, length=dim)
    return embeddings.mutate(embedding=embeddings.embedding.cast(vector))


def embedding_batches(vectors: ir.Table, dim: int) -> Iterator[tuple[pa.RecordBatch, Matrix]]:
    """Stream a lazy table of vectors.

    Parameters
    ----------
    vectors
        Made of `as_vectors`.
    dim
        Length of an embedding.

    Yields
    ------
    batch : pa.RecordBatch
        The rows, ``embedding`` as ``fixed_size_list<float>[dim]``.
    matrix : ndarray of float32, shape (rows, dim)
        A view of the batch's embeddings: no copy.
    """
    rows = max(ENGINE_VECTOR, BATCH_BYTES // (4 * dim))
    with backend.translated():
        for batch in vectors.to_pyarrow_batches(chunk_size=rows):
            column = batch.column("embedding")
            # `values` ignores the slice, and an element that is null keeps garbage in the buffer.
            values = column.values.slice(column.offset * dim, len(column) * dim)
            if values.null_count or column.null_count:
                values = column.flatten().fill_null(float("nan"))
            yield batch, values.to_numpy(zero_copy_only=True).reshape(len(batch), dim)


def embedding_matrix(
    keys: pa.Table,
    files: Sequence[Path],
    dim: int,
    positions: npt.NDArray[np.int64] | None = None,
    threads: int | None = None,
) -> Matrix:
    """Return the embeddings of some tiles as one matrix.

    The files are dealt to as many engines as there are threads, since one stream of Arrow batches
    keeps no more than one core busy.

    Parameters
    ----------
    keys
        ``slide_id, x, y``, each key once.
    files
        Parquet files that hold an embedding for each of the keys, in any order.
    dim
        Length of an embedding.
    positions
        The row of each key in the result, a permutation; by default the order of ``keys``.
    threads
        Number of streams; one per core by default.

    Returns
    -------
    ndarray of float32, shape (len(keys), dim)

    Raises
    ------
    EmbeddingError
        A list is not ``dim`` long, a value is not finite, or a key has no embedding.
    """
    order = np.arange(len(keys)) if positions is None else positions
    placed = keys.select(list(KEY)).append_column("position", pa.array(order))
    result = np.empty((len(keys), dim), dtype=np.float32)
    if not len(keys):
        return result
    cores = threads or os.cpu_count() or 1
    shares = _deal(files, cores)
    with ThreadPoolExecutor(len(shares)) as pool:
        streams = [
            pool.submit(_fill, result, placed, share, dim, cores // len(shares)) for share in shares
        ]
        try:
            filled = sum(stream.result() for stream in streams)
        except QueryError as error:
            raise _explained(files, dim) or error from error
    changed = EmbeddingError(
        "The embeddings changed while they were read",
        found=f"{filled:,} rows for {len(keys):,} keys",
        fix="run again once nobody writes to them",
    )
    if filled != len(keys):
        raise changed
    if not _is_finite(result):
        raise _explained(files, dim) or changed
    return result


def _deal(files: Sequence[Path], hands: int) -> list[list[Path]]:
    """Deal files into hands of about equal size, the largest first."""
    dealt: list[list[Path]] = [[] for _ in range(min(hands, len(files)))]
    weights = [0] * len(dealt)
    for file in sorted(files, key=lambda file: -file.stat().st_size):
        lightest = weights.index(min(weights))
        dealt[lightest].append(file)
        weights[lightest] += file.stat().st_size
    return dealt


def _fill(result: Matrix, placed: pa.Table, files: Sequence[Path], dim: int, threads: int) -> int:
    connection = backend.connect(threads=threads)
    embeddings = as_vectors(backend.read_parquet(connection, files), dim)
    wanted = backend.register(connection, "wanted", placed)
    joined = embeddings.inner_join(wanted, list(KEY)).select("position", "embedding")
    filled = 0
    for batch, matrix in embedding_batches(joined, dim):
        result[batch.column("position").to_numpy()] = matrix
        filled += len(batch)
    return filled


def _is_finite(result: Matrix) -> bool:
    # A row's sum is finite if its values are, unless it overflows: five times as fast as looking at
    # each value, and the few suspects are looked at.
    with np.errstate(over="ignore", invalid="ignore"):
        suspects = np.flatnonzero(~np.isfinite(result.sum(axis=1)))
    return bool(np.isfinite(result[suspects]).all())


def _explained(files: Sequence[Path], dim: int) -> EmbeddingError | None:
    """Count what is wrong in all of the files, so that every process says the same."""
    embeddings = backend.read_parquet(backend.connect(), files)
    numbers = embeddings.embedding.cast(dt.Array(dt.float64))
    length = embeddings.embedding.length().fill_null(0)
    wrongs = (
        (
            f"Embeddings are not all of one length ({dim}, as the first one is)",
            length != dim,
            "write one embedding of the same model per tile",
        ),
        (
            "Embeddings hold values that are NaN, null or infinite (in float32)",
            numbers.map(lambda v: v.isnull() | v.isnan() | (v.abs() > LARGEST)).anys(),
            "compute them again, or drop these tiles",
        ),
    )
    for wrong, bad, fix in wrongs:
        with backend.translated():
            rows = embeddings.mutate(length=length).filter(bad).select(*KEY, "length")
            some = rows.order_by(list(KEY)).to_pyarrow()
            total = embeddings.count().to_pyarrow().as_py()
        if len(some):
            first = some.slice(0, 1).to_pylist()[0]
            return EmbeddingError(
                wrong,
                found=f"{len(some):,} of {total:,} rows, the first, of length {first['length']}, "
                f"at {key_text(first)}",
                fix=fix,
            )
    return None
