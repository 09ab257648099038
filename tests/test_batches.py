"""Embeddings into a matrix: every type of list, any order, any number of files; bad values."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import backend
from featurestore.batches import as_vectors, embedding_batches, embedding_matrix
from featurestore.errors import EmbeddingError

VALUES = np.arange(24, dtype=np.float32).reshape(8, 3) / 4
KEYS = pa.table({"slide_id": [f"s{n % 2}" for n in range(8)], "x": list(range(8)), "y": [7] * 8})
FLAT = pa.array(VALUES.ravel())
TYPES = {
    "list<double>": pa.list_(pa.float64()),
    "list<float>": pa.list_(pa.float32()),
    "list<halffloat>": pa.list_(pa.float16()),
    "fixed_size_list<float>": pa.list_(pa.float32(), 3),
    "fixed_size_list<double>": pa.list_(pa.float64(), 3),
}


def write(path: Path, column: pa.Array, rows: list[int] | None = None) -> Path:
    table = KEYS.append_column("embedding", column)
    pq.write_table(table.take(pa.array(rows)) if rows else table, path, row_group_size=3)
    return path


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_of_list_arrives_as_float32(kind: str, tmp_path: Path):
    column = pa.FixedSizeListArray.from_arrays(FLAT, 3).cast(TYPES[kind])
    matrix = embedding_matrix(KEYS, [write(tmp_path / "e.parquet", column)], 3)
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, VALUES)


LISTS = pa.array(VALUES.astype(float).tolist())


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
)
def test_keys_are_the_same_in_every_string_type(kind: pa.DataType, tmp_path: Path):
    keys = KEYS.set_column(0, "slide_id", KEYS["slide_id"].combine_chunks().cast(kind))
    pq.write_table(keys.append_column("embedding", LISTS), tmp_path / "e.parquet")
    np.testing.assert_array_equal(embedding_matrix(KEYS, [tmp_path / "e.parquet"], 3), VALUES)


def test_files_and_rows_in_any_order(tmp_path: Path):
    files = [
        write(tmp_path / "b.parquet", LISTS, [7, 0, 4]),
        write(tmp_path / "a.parquet", LISTS, [3, 6]),
        write(tmp_path / "c.parquet", LISTS, [5, 1, 2]),
    ]
    for threads in (1, 2, 5):
        np.testing.assert_array_equal(embedding_matrix(KEYS, files, 3, threads=threads), VALUES)


def test_only_the_wanted_keys_at_their_positions(tmp_path: Path):
    file = write(tmp_path / "e.parquet", LISTS)
    wanted = KEYS.take(pa.array([5, 2, 6]))
    matrix = embedding_matrix(wanted, [file], 3, positions=np.array([1, 2, 0]))
    np.testing.assert_array_equal(matrix, VALUES[[6, 5, 2]])


def test_keys_may_be_slices_of_larger_tables(tmp_path: Path):
    file = write(tmp_path / "e.parquet", LISTS)
    np.testing.assert_array_equal(embedding_matrix(KEYS.slice(3, 4), [file], 3), VALUES[3:7])


def test_no_keys_no_rows(tmp_path: Path):
    assert embedding_matrix(KEYS.slice(0, 0), [write(tmp_path / "e.parquet", LISTS)], 3).shape == (
        0,
        3,
    )


def test_batches_are_views_of_their_arrow_buffers(tmp_path: Path):
    connection = backend.connect(threads=1)
    table = backend.read_parquet(connection, [write(tmp_path / "e.parquet", LISTS)])
    for batch, matrix in embedding_batches(as_vectors(table, 3), 3):
        assert not matrix.flags.owndata
        address = batch.column("embedding").values.buffers()[1].address
        assert matrix.__array_interface__["data"][0] == address


BAD = {
    # name: (row 4 of the lists, words)
    "NaN": ([math.nan, 0.0, 0.0], ["1 of 8 rows", "NaN"]),
    "infinite": ([0.0, -math.inf, 0.0], ["1 of 8 rows", "infinite"]),
    "null element": ([0.0, None, 0.0], ["1 of 8 rows", "null"]),
    "too large for float32": ([1e300, 0.0, 0.0], ["1 of 8 rows", "infinite (in float32)"]),
    "short": ([0.0], ["1 of 8 rows", "not all of one length (3", "length 1"]),
    "empty": ([], ["1 of 8 rows", "not all of one length (3", "length 0"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_embeddings_are_refused_with_count_and_first_key(name: str, tmp_path: Path):
    row, words = BAD[name]
    lists = [*VALUES.astype(float).tolist()[:4], row, *VALUES.astype(float).tolist()[5:]]
    file = write(tmp_path / "e.parquet", pa.array(lists, pa.list_(pa.float64())))
    with pytest.raises(EmbeddingError) as refusal:
        embedding_matrix(KEYS, [file], 3)
    for word in [*words, "slide_id='s0', x=4, y=7"]:
        assert word in str(refusal.value)


def test_large_finite_values_whose_sum_overflows_are_accepted(tmp_path: Path):
    lists = [[3e38, 3e38, 3e38]] * 8
    matrix = embedding_matrix(KEYS, [write(tmp_path / "e.parquet", pa.array(lists))], 3)
    np.testing.assert_array_equal(matrix, np.array(lists, dtype=np.float32))


def test_a_key_without_an_embedding_is_refused(tmp_path: Path):
    file = write(tmp_path / "e.parquet", LISTS, [0, 1, 2])
    with pytest.raises(EmbeddingError, match="3 rows for 8 keys"):
        embedding_matrix(KEYS, [file], 3)
