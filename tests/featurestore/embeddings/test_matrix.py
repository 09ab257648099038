"""Embeddings into parts: every type of list, any number of files; bad values; growth."""

import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.backend import engine
from featurestore.embeddings import convert as convert_module
from featurestore.embeddings import matrix as embedding_matrix
from featurestore.embeddings import part
from featurestore.embeddings.batches import as_matrix, as_vectors, embedding_batches, row_groups
from featurestore.embeddings.conversion import Conversion
from featurestore.embeddings.convert import Target
from featurestore.embeddings.matrix import EmbeddingMatrix
from featurestore.errors import ArtifactError, EmbeddingError
from featurestore.io import digests, parquet
from featurestore.io.progress import Rows
from featurestore.spec.literals import Storage

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


class Told(Rows):
    """Counts the rows that are shown."""

    def __init__(self) -> None:
        self.total, self.told = 0, []

    @contextmanager
    def counting(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        self.total += total
        yield self.told.append


def convert(folder: Path | str, storage: Storage = "float32", **more: int) -> EmbeddingMatrix:
    """Convert the files of a folder; every row is told to the progress once."""
    dataset, told = parquet.dataset(str(folder)), Told()
    work = Conversion(dataset, Target(3, storage), digests.sums(dataset.files), **more)
    work.run(told)
    assert sum(told.told) == told.total
    return work.matrix


def values(matrix: EmbeddingMatrix) -> np.ndarray:
    return matrix.read_rows(np.arange(matrix.rows))


def by_x(matrix: EmbeddingMatrix) -> np.ndarray:
    """Return the embeddings in the order of their keys' x."""
    keys = matrix.keys(engine.connect()).order_by("x").to_pyarrow()
    return matrix.read_rows(keys["row"].to_numpy())


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_of_list_arrives_as_float32(kind: str, tmp_path: Path):
    column = pa.FixedSizeListArray.from_arrays(FLAT, 3).cast(TYPES[kind])
    made = convert(write(tmp_path / "e.parquet", column))
    assert (made.rows, made.dim, made.storage) == (8, 3, "float32")
    np.testing.assert_array_equal(values(made), VALUES)


LISTS = pa.array(VALUES.astype(float).tolist())


@pytest.mark.parametrize(("storage", "error"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_half_the_bytes_on_request_within_rounding(storage: Storage, error: float, tmp_path: Path):
    lists = pa.array((VALUES.astype(float) + 0.1).tolist())
    made = convert(write(tmp_path / "e.parquet", lists), storage)
    assert made.parts[0].mapped(0, 8).dtype.itemsize == 2
    np.testing.assert_allclose(made.read_rows(np.arange(8)), VALUES + 0.1, rtol=error)


def test_values_are_mapped_not_read_and_cannot_be_written(tmp_path: Path):
    mapped = convert(write(tmp_path / "e.parquet", LISTS)).parts[0].mapped(2, 4)
    assert isinstance(mapped, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        mapped[0, 0] = 1


def test_numpy_reads_a_part_by_itself(tmp_path: Path):
    (part,) = convert(write(tmp_path / "e.parquet", LISTS)).parts
    np.testing.assert_array_equal(np.load(part.values, mmap_mode="r"), VALUES)


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
)
def test_keys_are_the_same_in_every_string_type(kind: pa.DataType, tmp_path: Path):
    keys = KEYS.set_column(0, "slide_id", KEYS["slide_id"].combine_chunks().cast(kind))
    pq.write_table(keys.append_column("embedding", LISTS), tmp_path / "e.parquet")
    (part,) = convert(tmp_path / "e.parquet").parts
    assert pq.read_table(part.keys).select(KEYS.column_names).to_pylist() == KEYS.to_pylist()


FILES = {"b": [7, 0, 4], "a": [3, 6], "c": [5, 1, 2]}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a folder of three files."""
    folder = tmp_path / "embeddings"
    folder.mkdir()
    for name, rows in FILES.items():
        write(folder / f"{name}.parquet", LISTS, rows)
    return folder


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_row_is_its_keys_own_however_many_threads(threads: int, files: Path):
    made = convert(files, threads=threads)
    assert sorted(part.rows for part in made.parts) == [2, 3, 3]
    np.testing.assert_array_equal(by_x(made), VALUES)


def files_of_parts() -> dict[str, int]:
    """Return what tells whether a file of a part was written again."""
    return {file.name: file.stat().st_ino for file in Path(".featurestore/parts").glob("[!.]*.npy")}


def test_only_what_is_new_is_converted(files: Path, tmp_path: Path):
    """A file more, one renamed, one taken away, one corrected; and what comes from scratch."""
    before, parts = convert(files), files_of_parts()
    write(files / "d.parquet", LISTS, [1, 2])
    (files / "a.parquet").rename(files / "e.parquet")
    (files / "b.parquet").unlink()
    grown, now = convert(files), files_of_parts()
    assert len(now) == len(parts) + 1
    assert now.items() > parts.items()
    assert {part.name for part in grown.parts} - {part.name for part in before.parts} == {
        Path(*now.keys() - parts.keys()).stem
    }
    write(files / "d.parquet", LISTS, [4, 7, 0])
    corrected = convert(files)
    assert corrected.digest != grown.digest
    assert len(files_of_parts()) == len(now) + 1
    shutil.rmtree(".featurestore")
    scratch = convert(files)
    assert (scratch.digest, scratch.parts) == (corrected.digest, corrected.parts)
    np.testing.assert_array_equal(by_x(scratch), VALUES)


def test_a_folder_that_names_the_slide_makes_another_part(tmp_path: Path):
    """Two equal files in folders of two slides are two parts, each with its own keys."""
    for slide in ("a", "b"):
        folder = tmp_path / "embeddings" / f"slide_id={slide}"
        folder.mkdir(parents=True)
        table = KEYS.append_column("embedding", LISTS).drop_columns(["slide_id"])
        pq.write_table(table, folder / "part.parquet")
    made = convert(tmp_path / "embeddings")
    slides = made.keys(engine.connect()).slide_id.value_counts().to_pyarrow().to_pylist()
    assert sorted(tuple(row.values()) for row in slides) == [("a", 8), ("b", 8)]


def test_a_large_file_is_several_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = write(tmp_path / "e.parquet", LISTS)  # row groups of 3, 3 and 2 rows
    monkeypatch.setattr(convert_module, "SLICE_BYTES", 1)
    made = convert(file)
    assert sorted(part.rows for part in made.parts) == [2, 3, 3]
    np.testing.assert_array_equal(by_x(made), VALUES)


def test_a_file_is_hashed_while_it_is_converted(files: Path):
    """As where it is too large to be read twice; the parts are those of one hashed before."""
    dataset = parquet.dataset(str(files))
    work = Conversion(dataset, Target(3, "float32"), {})
    work.run(Rows(None))
    assert len(work.new) == 3
    assert convert(files).digest == work.matrix.digest
    assert len(files_of_parts()) == 3


def test_parts_of_another_length_are_counted(files: Path, tmp_path: Path):
    """Sound by themselves, they do not fit the artifact that they are to be part of."""
    wide = pa.array(np.ones((2, 4)).tolist())
    table = KEYS.slice(0, 2).append_column("embedding", wide)
    (tmp_path / "wide").mkdir()
    pq.write_table(table, tmp_path / "wide" / "w.parquet")
    dataset = parquet.dataset(str(tmp_path / "wide"))
    Conversion(dataset, Target(4, "float32"), digests.sums(dataset.files)).run(Rows(None))
    shutil.copy(tmp_path / "wide" / "w.parquet", files)
    with pytest.raises(EmbeddingError, match=r"2 of 10 rows, the first, of length 4"):
        convert(files)


@settings(deadline=None, max_examples=30)
@given(data=st.data(), block=st.integers(1, 9))
def test_gather_is_indexing(data: st.DataObject, block: int, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gather")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert_module, "SLICE_BYTES", data.draw(st.sampled_from([1, 10**9])))
        storage = data.draw(st.sampled_from(["float32", "float16"]))  # which holds these exactly
        made = convert(write(folder / "e.parquet", LISTS), storage)
    order = np.concatenate([pq.read_table(one.keys)["x"].to_numpy() for one in made.parts])
    expected = VALUES[order]
    rows = np.array(data.draw(st.lists(st.integers(0, 7), unique=True)), dtype=np.int64)
    positions = np.array(data.draw(st.permutations(range(len(rows)))), dtype=np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding_matrix, "BLOCK_BYTES", 4 * 3 * block)
        patch.setattr(part, "GAP", data.draw(st.integers(1, 4)))
        np.testing.assert_array_equal(made.read_rows(rows), expected[rows])
        placed = made.read_rows(rows, positions)
    np.testing.assert_array_equal(placed[positions], expected[rows])


def test_batches_are_views_of_their_arrow_buffers(tmp_path: Path):
    file = write(tmp_path / "e.parquet", pa.FixedSizeListArray.from_arrays(FLAT, 3))
    seen = 0
    for piece in row_groups(parquet.dataset(str(file)).filled):
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
        convert(file)
    for word in [*words, "slide_id='s0', x=4, y=7"]:
        assert word in str(refusal.value)


def test_all_bad_rows_are_counted_over_files_and_the_first_by_key_is_named(tmp_path: Path):
    lists = VALUES.astype(float)
    lists[[2, 3, 7], 1] = math.nan
    column = pa.array(lists.tolist())
    for n, rows in enumerate([[7, 6, 5, 4], [3, 2, 1, 0]]):
        write(tmp_path / f"{n}.parquet", column, rows)
    with pytest.raises(EmbeddingError, match=r"3 of 8 rows.* at slide_id='s0', x=2"):
        convert(tmp_path / "?.parquet")


@pytest.mark.parametrize("storage", ["float16", "bfloat16"])
def test_values_too_large_for_the_storage_are_refused(storage: Storage, tmp_path: Path):
    lists = VALUES.astype(float)
    lists[4, 0] = 3.4e38
    file = write(tmp_path / "e.parquet", pa.array(lists.tolist()))
    np.testing.assert_array_equal(values(convert(file)), lists.astype("f4"))
    with pytest.raises(EmbeddingError, match=rf"infinite \(in {storage}\)"):
        convert(file, storage)


def test_large_finite_values_whose_sum_overflows_are_accepted(tmp_path: Path):
    lists = [[3e38, 3e38, 3e38]] * 8
    made = convert(write(tmp_path / "e.parquet", pa.array(lists)))
    np.testing.assert_array_equal(values(made), np.array(lists, dtype=np.float32))


def test_too_little_room_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = write(tmp_path / "e.parquet", LISTS)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=95))
    with pytest.raises(ArtifactError, match="too little room"):
        convert(file)
    assert not Path(".featurestore").exists()


@pytest.mark.slow
def test_memory_is_a_few_batches_whatever_the_size_of_a_row_group(tmp_path: Path):
    """80 MB in a single row group are converted with less than 60 MB above the imports."""
    code = """
import resource, sys
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
from featurestore.embeddings.conversion import Conversion
from featurestore.embeddings.convert import Target
from featurestore.io import parquet
from featurestore.io.progress import Rows
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
dataset = parquet.dataset(sys.argv[1])
Conversion(dataset, Target(500, "float32"), {}, threads=1).run(Rows(None))
print(peak() - before)
"""
    rows = 40_000
    values = pa.array(np.random.default_rng(0).random(rows * 500, dtype=np.float32))
    keys = {"slide_id": ["s"] * rows, "x": np.arange(rows), "y": np.arange(rows)}
    table = pa.table({**keys, "embedding": pa.FixedSizeListArray.from_arrays(values, 500)})
    pq.write_table(table, tmp_path / "e.parquet", row_group_size=rows, use_dictionary=False)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "e.parquet")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) < 60e6
