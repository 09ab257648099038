"""Keys and footers of remote Parquet files, at the cost of their bytes; lists when asked for."""

import os
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
from featurestore.io import cache, digests, parquet
from featurestore.io.objects import fetching, listing, originals, outlines
from featurestore.io.objects.store import OBJECTS, OUTLINES, Store, StoredObject
from featurestore.snapshots import collection

ROWS, DIM = 2_000, 512
KEY = ["slide_id", "x", "y"]


def table(rows: int = ROWS, dim: int = DIM, seed: int = 0) -> pa.Table:
    values = np.random.default_rng(seed).standard_normal(rows * dim).astype(np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(values), dim)
    slides = pa.array([f"s{n // 100}" for n in range(rows)])
    numbers = pa.array(range(rows), pa.int32())
    return pa.table({"slide_id": slides, "embedding": vectors, "x": numbers, "y": numbers})


def parquet_bytes(content: pa.Table, **how: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(content, sink, **how)
    return bytes(sink.getvalue())


def one(bucket: Bucket, name: str = "e.parquet") -> tuple[Store, StoredObject]:
    store = listing.connect(bucket.root)
    (stored,) = listing.listed(store, f"{bucket.root}/{name}").objects.values()
    return store, stored


@contextmanager
def outlined(bucket: Bucket) -> Iterator[Path]:
    with outlines.outline(*one(bucket)) as file:
        yield file


@pytest.mark.parametrize("how", [{}, {"row_group_size": 300}, {"write_page_index": True}])
@pytest.mark.parametrize("lists", [pa.list_(pa.float64()), pa.list_(pa.float32(), DIM)])
def test_keys_and_footer_are_those_of_the_file(
    lists: pa.DataType, how: dict[str, Any], cloud_bucket: Bucket
):
    content = table()
    content = content.set_column(1, "embedding", content["embedding"].cast(lists))
    body = parquet_bytes(content, **how)
    cloud_bucket.put("e.parquet", body)
    with outlined(cloud_bucket) as file:
        assert pq.read_table(file, columns=KEY) == content.select(KEY)
        assert pq.read_metadata(file).equals(pq.read_metadata(pa.BufferReader(body)))
        with pytest.raises(OSError, match="page header"):  # a hole is never taken for data
            pq.read_table(file, columns=["embedding"])
    cloud_bucket.asked.clear()
    with outlined(cloud_bucket) as file:
        assert file.stat().st_size == len(body)
    assert cloud_bucket.count("get") == 0


@pytest.mark.slow
def test_keys_cost_less_than_a_tenth_of_the_bytes(
    s3_bucket: Bucket, s3_server: str, monkeypatch: pytest.MonkeyPatch
):
    """Counted on the wire, headers and the listing included."""
    body = parquet_bytes(table(), row_group_size=500)
    s3_bucket.put("e.parquet", body)
    counter = Cutter(s3_server, limit=float("inf"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", counter.url)
    with outlined(s3_bucket) as file:
        assert pq.read_table(file, columns=KEY).num_rows == ROWS
        assert file.stat().st_blocks * 512 < len(body) / 10
    assert 0 < counter.passed < len(body) / 10
    assert s3_bucket.count("get") <= 1 + 4  # the end; what stands before the lists of a group


def test_the_footer_may_be_longer_than_the_end_that_is_read(cloud_bucket: Bucket):
    content = table(rows=400).append_column("note", pa.array(["n" * 200] * 400))
    notes = content.replace_schema_metadata({"long": os.urandom(2**17).hex()})
    cloud_bucket.put("e.parquet", parquet_bytes(notes))
    with outlined(cloud_bucket) as file:
        assert pq.read_table(file, columns=KEY).equals(content.select(KEY))
    assert cloud_bucket.count("get") == 4  # end, footer, what stands before and after the lists


@pytest.mark.slow
def test_small_files_and_logs_of_tables_are_fetched_as_a_whole(bucket: Bucket):
    small, large = parquet_bytes(table(rows=3, dim=2)), parquet_bytes(table())
    bucket.fill(**{"e__a.parquet": small, "e___delta_log__1.checkpoint.parquet": large})
    bucket.put("e/b.parquet", large)
    folder = fetching.artifact(f"{bucket.root}/e", outlined=True)
    assert (folder / "a.parquet").read_bytes() == small
    assert (folder / "_delta_log" / "1.checkpoint.parquet").read_bytes() == large
    assert list(originals.lacking(folder.rglob("*.parquet"))) == [folder / "b.parquet"]


@pytest.mark.slow
def test_lists_come_when_they_are_asked_for(bucket: Bucket):
    """Under the name that the file has had, which is remembered as the same content."""
    body = parquet_bytes(table())
    bucket.put("e/a.parquet", body)
    (file,) = fetching.artifact(f"{bucket.root}/e", outlined=True).iterdir()
    before = digests.identity(file)
    bucket.asked.clear()
    originals.fetch([file])
    assert file.read_bytes() == body
    assert digests.identity(file) == before
    assert bucket.count("get") == 1
    originals.fetch([file])
    assert fetching.artifact(f"{bucket.root}/e", outlined=True) / "a.parquet" == file
    assert (fetching.artifact(f"{bucket.root}/e") / "a.parquet").read_bytes() == body
    assert bucket.count("get") == 1


@pytest.mark.slow
def test_of_an_object_that_is_here_nothing_is_asked(bucket: Bucket):
    bucket.put("e.parquet", parquet_bytes(table()))
    fetching.artifact(f"{bucket.root}/e.parquet")
    bucket.asked.clear()
    file = fetching.artifact(f"{bucket.root}/e.parquet", outlined=True)
    assert pq.read_table(file) == table()
    assert bucket.count("get") == 0


def test_holes_are_never_hashed(cloud_bucket: Bucket):
    cloud_bucket.put("e.parquet", parquet_bytes(table()))
    dataset = parquet.dataset(f"{cloud_bucket.root}/e.parquet", outlined=True)
    with pytest.raises(AssertionError, match="has holes"):
        digests.sha256(dataset.files[0])
    Path("local.parquet").write_bytes(parquet_bytes(table()))
    local = digests.sha256(Path("local.parquet"))
    dataset.digest()
    assert digests.sums(dataset.files) == {dataset.files[0]: local}


def test_an_object_replaced_between_listing_and_read_is_refused(bucket: Bucket):
    bucket.put("e.parquet", parquet_bytes(table()))
    known = one(bucket)
    bucket.put("e.parquet", parquet_bytes(table(seed=1)))
    with pytest.raises(ArtifactError, match="was replaced"), outlines.outline(*known):
        pass
    assert not cache.names(OUTLINES)


WHOLE = parquet_bytes(table(rows=100))


@pytest.mark.parametrize(
    "body", [bytes(2**17), WHOLE[:-20], WHOLE[:-1000] + bytes(900) + WHOLE[-100:]]
)
def test_what_is_no_whole_parquet_file_is_refused(cloud_bucket: Bucket, body: bytes):
    cloud_bucket.put("e.parquet", body)
    with pytest.raises(ArtifactError, match="is not a whole Parquet file"):
        fetching.artifact("gs://cohort/e.parquet", outlined=True)
    assert not cache.names(OUTLINES)


def test_a_harmed_outline_is_read_again(cloud_bucket: Bucket):
    cloud_bucket.put("e.parquet", parquet_bytes(table()))
    with outlined(cloud_bucket) as file:
        assert list(collection.damaged()) == []
    with file.open("r+b") as stream:
        stream.seek(-100, os.SEEK_END)
        stream.write(b"harmed")
    with pytest.warns(UserWarning, match="is damaged"), outlined(cloud_bucket) as file:
        assert pq.read_table(file, columns=KEY).num_rows == ROWS


@pytest.mark.slow
def test_gc_keeps_what_a_folder_links_to(bucket: Bucket):
    bucket.fill(**{"e__a.parquet": parquet_bytes(table()), "f": b"1"})
    folder = fetching.artifact(f"{bucket.root}/e", outlined=True)
    assert cli.main(["gc", "--keep", "0"]) == 0
    assert pq.read_table(folder / "a.parquet", columns=KEY).num_rows == ROWS
    originals.fetch([folder / "a.parquet"])
    assert cli.main(["gc", "--keep", "0"]) == 0
    assert pq.read_table(folder / "a.parquet") == table()
    assert (len(cache.names(OBJECTS)), cache.names(OUTLINES)) == (1, [])
    assert list(collection.damaged()) == []
