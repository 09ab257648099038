"""Embeddings into a memory-mapped matrix: every type of list, any number of files; bad values."""

import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.embeddings import convert as embeddings_convert
from featurestore.embeddings import layout
from featurestore.embeddings.batches import as_matrix, as_vectors, embedding_batches, row_groups
from featurestore.embeddings.matrix import EmbeddingMatrix
from featurestore.errors import ArtifactError, EmbeddingError
from featurestore.io import parquet

VALUES = np.arange(24, dtype=np.float32).reshape(8, 3) / 4
KEYS = pa.table({"slide_id": [f"s{n % 2}" for n in range(8)], "x": list(range(8)), "y": [7] * 8})
FLAT = pa.array(VALUES.ravel())
TYPES = {
    "list<double>": pa.list_(pa.float64()),
    "list<float>": pa.list_(pa.float32()),
    "large_list<double>": pa.large_list(pa.float64()),
    "list<halffloat>": pa.list_(pa.float16()),
    "fixed_size_list<float>": pa.list_(pa.float32(), 3),
    "fixed_size_list<double>": pa.list_(pa.float64(), 3),
}


def write(path: Path, column: pa.Array, rows: list[int] | None = None) -> Path:
    table = KEYS.append_column("embedding", column)
    pq.write_table(table.take(pa.array(rows)) if rows else table, path, row_group_size=3)
    return path


def convert(
    files: list[Path], folder: Path, storage: str = "float32", **more: int
) -> EmbeddingMatrix:
    """Convert into a new folder; every row is told to the progress once."""
    folder.mkdir()
    told: list[int] = []
    fragments = [f for file in files for f in parquet.dataset(str(file)).fragments]
    embeddings_convert.convert(fragments, 3, storage, folder, told.append, **more)  # type: ignore[arg-type]
    made = EmbeddingMatrix.open(folder)
    assert sum(told) == made.rows
    return made


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_of_list_arrives_as_float32(kind: str, tmp_path: Path):
    column = pa.FixedSizeListArray.from_arrays(FLAT, 3).cast(TYPES[kind])
    made = convert([write(tmp_path / "e.parquet", column)], tmp_path / "m")
    assert (made.rows, made.dim, made.storage) == (8, 3, "float32")
    assert made.values.dtype == np.float32
    np.testing.assert_array_equal(made.values, VALUES)


LISTS = pa.array(VALUES.astype(float).tolist())


@pytest.mark.parametrize(("storage", "error"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_half_the_bytes_on_request_within_rounding(storage: str, error: float, tmp_path: Path):
    lists = pa.array((VALUES.astype(float) + 0.1).tolist())
    made = convert([write(tmp_path / "e.parquet", lists)], tmp_path / "m", storage)
    assert made.values.dtype.itemsize == 2
    np.testing.assert_allclose(made.read_rows(np.arange(8)), VALUES + 0.1, rtol=error)


def test_values_are_mapped_not_read_and_cannot_be_written(tmp_path: Path):
    made = convert([write(tmp_path / "e.parquet", LISTS)], tmp_path / "m")
    assert isinstance(made.values.base, np.memmap) or isinstance(made.values, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        made.values[0, 0] = 1


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
)
def test_keys_are_the_same_in_every_string_type(kind: pa.DataType, tmp_path: Path):
    keys = KEYS.set_column(0, "slide_id", KEYS["slide_id"].combine_chunks().cast(kind))
    pq.write_table(keys.append_column("embedding", LISTS), tmp_path / "e.parquet")
    made = convert([tmp_path / "e.parquet"], tmp_path / "m")
    assert pq.read_table(made.keys).select(KEYS.column_names).to_pylist() == KEYS.to_pylist()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_rows_of_all_files_in_order_however_many_threads(threads: int, tmp_path: Path):
    files = [
        write(tmp_path / "b.parquet", LISTS, [7, 0, 4]),
        write(tmp_path / "a.parquet", LISTS, [3, 6]),
        write(tmp_path / "c.parquet", LISTS, [5, 1, 2]),
    ]
    made = convert(files, tmp_path / "m", threads=threads)
    order = [7, 0, 4, 3, 6, 5, 1, 2]
    np.testing.assert_array_equal(made.values, VALUES[order])
    keys = pq.read_table(made.keys)
    assert keys["x"].to_pylist() == order
    assert keys["row"].to_pylist() == list(range(8))


@settings(deadline=None, max_examples=30)
@given(data=st.data(), block=st.integers(1, 9))
def test_gather_is_indexing(data: st.DataObject, block: int, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gather")
    made = convert([write(folder / "e.parquet", LISTS)], folder / "m")
    rows = np.array(data.draw(st.lists(st.integers(0, 7), unique=True)), dtype=np.int64)
    positions = np.array(data.draw(st.permutations(range(len(rows)))), dtype=np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "BLOCK_BYTES", 4 * 3 * block)
        np.testing.assert_array_equal(made.read_rows(rows), VALUES[rows])
        placed = made.read_rows(rows, positions)
    np.testing.assert_array_equal(placed[positions], VALUES[rows])


def test_batches_are_views_of_their_arrow_buffers(tmp_path: Path):
    file = write(tmp_path / "e.parquet", pa.FixedSizeListArray.from_arrays(FLAT, 3))
    seen = 0
    for piece in row_groups([file]):
        for column in embedding_batches(piece, 3):
            block = as_matrix(column, 3)
            assert not block.flags.owndata
            np.testing.assert_array_equal(block, VALUES[seen : seen + len(block)])
            again = as_vectors(block)
            assert again.values.buffers()[1].address == block.ctypes.data
            seen += len(block)
    assert seen == 8


def test_slices_and_nulls_inside_a_list():
    lists = pa.array([[1.0, 2.0], [3.0, 4.0], [None, 6.0]])
    np.testing.assert_array_equal(as_matrix(lists.slice(1), 2), [[3.0, 4.0], [math.nan, 6.0]])


BAD = {
    # name: (row 4 of the lists, words)
    "NaN": ([math.nan, 0.0, 0.0], ["1 of 8 rows", "NaN"]),
    "infinite": ([0.0, -math.inf, 0.0], ["1 of 8 rows", "infinite"]),
    "null element": ([0.0, None, 0.0], ["1 of 8 rows", "null"]),
    "too large for float32": ([1e300, 0.0, 0.0], ["1 of 8 rows", "infinite (in float32)"]),
    "short": ([0.0], ["1 of 8 rows", "not all of one length (3", "length 1"]),
    "empty": ([], ["1 of 8 rows", "not all of one length (3", "length 0"]),
    "null": (None, ["1 of 8 rows", "not all of one length (3", "length 0"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_embeddings_are_refused_with_count_and_first_key(name: str, tmp_path: Path):
    row, words = BAD[name]
    lists = [*VALUES.astype(float).tolist()[:4], row, *VALUES.astype(float).tolist()[5:]]
    file = write(tmp_path / "e.parquet", pa.array(lists, pa.list_(pa.float64())))
    with pytest.raises(EmbeddingError) as refusal:
        convert([file], tmp_path / "m")
    for word in [*words, "slide_id='s0', x=4, y=7"]:
        assert word in str(refusal.value)


def test_all_bad_rows_are_counted_over_files_and_the_first_by_key_is_named(tmp_path: Path):
    lists = VALUES.astype(float)
    lists[[2, 3, 7], 1] = math.nan
    column = pa.array(lists.tolist())
    files = [write(tmp_path / f"{n}.parquet", column, rows)
             for n, rows in enumerate([[7, 6, 5, 4], [3, 2, 1, 0]])]  # fmt: skip
    with pytest.raises(EmbeddingError, match=r"3 of 8 rows.* at slide_id='s0', x=2"):
        convert(files, tmp_path / "m")


@pytest.mark.parametrize("storage", ["float16", "bfloat16"])
def test_values_too_large_for_the_storage_are_refused(storage: str, tmp_path: Path):
    lists = VALUES.astype(float)
    lists[4, 0] = 3.4e38
    file = write(tmp_path / "e.parquet", pa.array(lists.tolist()))
    np.testing.assert_array_equal(convert([file], tmp_path / "whole").values, lists.astype("f4"))
    with pytest.raises(EmbeddingError, match=rf"infinite \(in {storage}\)"):
        convert([file], tmp_path / "half", storage)


def test_large_finite_values_whose_sum_overflows_are_accepted(tmp_path: Path):
    lists = [[3e38, 3e38, 3e38]] * 8
    made = convert([write(tmp_path / "e.parquet", pa.array(lists))], tmp_path / "m")
    np.testing.assert_array_equal(made.values, np.array(lists, dtype=np.float32))


def test_too_little_room_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = write(tmp_path / "e.parquet", LISTS)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=95))
    with pytest.raises(ArtifactError, match="too little room"):
        convert([file], tmp_path / "m")
    assert list((tmp_path / "m").iterdir()) == []


@pytest.mark.slow
def test_memory_is_a_few_batches_whatever_the_size_of_a_row_group(tmp_path: Path):
    """80 MB in a single row group are converted with less than 60 MB above the imports."""
    code = """
import resource, sys
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
from pathlib import Path
from featurestore.embeddings import convert
from featurestore.io import parquet
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
file, folder = Path(sys.argv[1]), Path(sys.argv[2])
before = peak()
fragments = parquet.dataset(str(file)).fragments
convert.convert(fragments, 500, "float32", folder, lambda rows: None, threads=1)
print(peak() - before)
"""
    rows = 40_000
    values = pa.array(np.random.default_rng(0).random(rows * 500, dtype=np.float32))
    keys = {"slide_id": ["s"] * rows, "x": np.arange(rows), "y": np.arange(rows)}
    table = pa.table({**keys, "embedding": pa.FixedSizeListArray.from_arrays(values, 500)})
    pq.write_table(table, tmp_path / "e.parquet", row_group_size=rows, use_dictionary=False)
    (tmp_path / "m").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "e.parquet"), str(tmp_path / "m")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) < 60e6
