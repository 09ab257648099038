"""Keys and footers of remote Parquet files, at the cost of their bytes and no more."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from object_stores import Bucket, Cutter

from featurestore.console import cli
from featurestore.errors import ArtifactError
from featurestore.io import cache
from featurestore.io.objects import fetching, listing, ranges
from featurestore.io.objects.stored import Store, Stored

ROWS, DIM = 4_000, 512
KEY = ("slide_id", "x", "y")


def table(rows: int = ROWS, dim: int = DIM) -> pa.Table:
    values = np.random.default_rng(0).standard_normal(rows * dim).astype(np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(values), dim)
    slides = pa.array([f"s{n // 100}" for n in range(rows)])
    numbers = pa.array(range(rows), pa.int32())
    return pa.table({"Slide_ID": slides, "embedding": vectors, "x": numbers, "y": numbers})


def parquet(content: pa.Table, **how: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(content, sink, **how)
    return bytes(sink.getvalue())


def one(bucket: Bucket, name: str) -> tuple[Store, Stored]:
    store = listing.connect(bucket.root)
    (stored,) = listing.listed(store, f"{bucket.root}/{name}").objects.values()
    return store, stored


@contextmanager
def keys(bucket: Bucket, name: str = "e.parquet") -> Iterator[tuple[pa.Table, pq.FileMetaData]]:
    with ranges.columns(*one(bucket, name), KEY) as folder:
        yield pq.read_table(folder / ranges.COLUMNS), pq.read_metadata(folder / ranges.FOOTER)


def test_keys_and_footer_are_those_of_the_file(bucket: Bucket):
    content = table(rows=20, dim=3)
    bucket.put("e.parquet", parquet(content, row_group_size=7))
    with keys(bucket) as (columns, footer):
        assert columns == content.drop(["embedding"])
        assert footer.schema.to_arrow_schema() == content.schema
        assert (footer.num_rows, footer.num_row_groups) == (20, 3)
    bucket.asked.clear()
    with keys(bucket) as (columns, footer):
        assert columns.num_rows == footer.num_rows == 20
    assert bucket.count("get") == 0


def test_keys_cost_less_than_a_tenth_of_the_bytes(
    s3_bucket: Bucket, s3_server: str, monkeypatch: pytest.MonkeyPatch
):
    """Counted on the wire, headers and the listing included."""
    body = parquet(table(), row_group_size=1_000)
    s3_bucket.put("e.parquet", body)
    counter = Cutter(s3_server, limit=float("inf"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", counter.url)
    with keys(s3_bucket) as (columns, footer):
        assert columns.num_rows == footer.num_rows == ROWS
    assert 0 < counter.passed < len(body) / 10
    assert s3_bucket.count("get") <= 2 + 2 * 4  # footer; before and after the embeddings of a group
    assert not cache.names(fetching.KIND)


def test_of_an_object_that_is_here_nothing_is_asked(bucket: Bucket):
    bucket.put("e.parquet", parquet(table(rows=20, dim=3)))
    fetching.artifact(f"{bucket.root}/e.parquet")
    bucket.asked.clear()
    with keys(bucket) as (columns, _):
        assert columns.num_rows == 20
    assert bucket.count("get") == 0


def test_any_bytes_of_an_object(bucket: Bucket):
    bucket.put("a", bytes(range(100)))
    with ranges.opened(*one(bucket, "a")) as file:
        assert file.size() == 100
        file.seek(90)
        assert file.read(5) == bytes(range(90, 95))
        assert (file.tell(), file.read()) == (95, bytes(range(95, 100)))
        assert file.read(3) == b""
        assert file.read_at(2, 7) == bytes([7, 8])


def test_a_column_that_a_folder_gives_is_left_out(bucket: Bucket):
    bucket.put("e.parquet", parquet(table(rows=3, dim=2).drop(["Slide_ID"])))
    with keys(bucket) as (columns, _):
        assert columns.column_names == ["x", "y"]


def test_an_object_replaced_between_listing_and_read_is_refused(bucket: Bucket):
    bucket.put("e.parquet", parquet(table(rows=20, dim=3)))
    known = one(bucket, "e.parquet")
    bucket.put("e.parquet", parquet(table(rows=10, dim=3)))
    with pytest.raises(ArtifactError, match="was replaced"), ranges.columns(*known, KEY):
        pass
    assert not cache.names(ranges.KIND)


WHOLE = parquet(table(rows=300, dim=2))


@pytest.mark.parametrize(
    "body", [b"", b"no Parquet", WHOLE[:-20], WHOLE[:4] + bytes(800) + WHOLE[804:]]
)
def test_what_is_no_whole_parquet_file_is_refused(bucket: Bucket, body: bytes):
    bucket.put("e.parquet", body)
    with pytest.raises(ArtifactError, match="is not a whole Parquet file"), keys(bucket):
        pass


def test_gc_removes_columns_that_nobody_reads(bucket: Bucket):
    bucket.put("e.parquet", parquet(table(rows=3, dim=2)))
    with ranges.columns(*one(bucket, "e.parquet"), KEY) as folder:
        assert cli.main(["gc"]) == 0
        assert (folder / ranges.COLUMNS).exists()
    assert cli.main(["gc"]) == 0
    assert not Path(folder).exists()
