"""What S3 alone has, against a real server on loopback: cuts, checksums, versions, credentials."""

import hashlib
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from object_stores import SECRET, Bucket, Cutter, count_requests

from featurestore.errors import ArtifactError
from featurestore.io import cache, downloads
from featurestore.io.atomic import HOME
from featurestore.io.objects import fetching, listing, s3
from featurestore.io.objects.fetching import artifact
from featurestore.io.objects.store import NAME, OBJECTS

BODY = bytes(range(256)) * 4096 * 3  # 3 MiB


def leave_part(uri: str, content: bytes) -> Path:
    """Leave what a cut download of one object would have left, its content as given."""
    stored = next(iter(listing.listed(listing.connect(uri), uri).objects.values()))
    part = downloads.part(cache.place(OBJECTS, stored.digest))
    part.mkdir(parents=True)
    (part / NAME).write_bytes(content)
    return part / NAME


@pytest.mark.slow
def test_a_cut_download_goes_on_where_it_ended(
    s3_bucket: Bucket, s3_server: str, monkeypatch: pytest.MonkeyPatch
):
    s3_bucket.fill(big=BODY)
    cutter = Cutter(s3_server, limit=2 * 2**20)
    monkeypatch.setenv("AWS_ENDPOINT_URL", cutter.url)
    with pytest.raises(ArtifactError, match="cannot be reached") as refusal:
        artifact("s3://cohort/big")
    assert "what was downloaded is kept" in str(refusal.value)
    begun = next(HOME.glob("objects/.part-*/object")).stat().st_size
    assert 0 < begun < len(BODY)
    cutter.limit = float("inf")
    s3_bucket.asked.clear()
    assert artifact("s3://cohort/big").read_bytes() == BODY
    assert ("get", f"bytes={begun}-{len(BODY) - 1}") in s3_bucket.asked
    assert not list(HOME.glob("objects/.*"))


@pytest.mark.slow
def test_a_replaced_object_goes_on_with_nothing_of_the_one_before(s3_bucket: Bucket):
    """Of the same size: what a cut download left is of another version."""
    s3_bucket.fill(big=b"12345")
    leave_part("s3://cohort/big", b"12")
    s3_bucket.fill(big=b"54321")
    s3_bucket.asked.clear()
    assert artifact("s3://cohort/big").read_bytes() == b"54321"
    assert ("get", "") in s3_bucket.asked


@pytest.mark.parametrize("left", [b"xx", b"123456"])
def test_a_corrupt_part_is_found_out_and_fetched_anew(s3_bucket: Bucket, left: bytes):
    s3_bucket.fill(big=b"12345")
    part = leave_part("s3://cohort/big", left)
    with pytest.raises(ArtifactError, match="is not what the bucket says"):
        artifact("s3://cohort/big")
    assert not part.exists()
    assert artifact("s3://cohort/big").read_bytes() == b"12345"


def test_an_upload_of_several_parts_is_verified(s3_bucket: Bucket, s3_client: Any):
    body = os.urandom(5 * 2**20) + b"rest"
    upload = s3_client.create_multipart_upload(Bucket="cohort", Key="multi")["UploadId"]
    named = {"Bucket": "cohort", "Key": "multi", "UploadId": upload}
    parts = [
        {"PartNumber": n, "ETag": s3_client.upload_part(**named, PartNumber=n, Body=piece)["ETag"]}
        for n, piece in ((1, body[: 5 * 2**20]), (2, body[5 * 2**20 :]))
    ]
    s3_client.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})
    assert s3_client.head_object(Bucket="cohort", Key="multi")["ETag"].strip('"').endswith("-2")
    leave_part("s3://cohort/multi", body[:-1] + b"!")
    with pytest.raises(ArtifactError, match="is not what the bucket says"):
        artifact("s3://cohort/multi")
    assert artifact("s3://cohort/multi").read_bytes() == body


def test_an_etag_of_what_aws_encrypts_is_no_checksum(
    s3_bucket: Bucket, s3_client: Any, monkeypatch: pytest.MonkeyPatch
):
    """It looks like an MD5; of other objects, one that differs is a fault."""
    s3_bucket.fill(plain=b"1")
    s3_client.put_object(
        Bucket="cohort", Key="secret", Body=b"1",
        ServerSideEncryption="aws:kms", SSEKMSKeyId="alias/aws/s3",
    )  # fmt: skip
    monkeypatch.setattr(s3, "_md5", lambda *_: [hashlib.md5(b"else").digest()])
    assert artifact("s3://cohort/secret").read_bytes() == b"1"
    with pytest.raises(ArtifactError, match="is not what the bucket says"):
        artifact("s3://cohort/plain")


def test_a_listing_has_pages(s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch):
    s3_bucket.fill(**{f"e__{n}": b"%d" % n for n in range(5)})
    make = s3._client

    def small() -> Any:
        client = make()
        client.meta.events.register(
            "provide-client-params.s3.ListObjectsV2", lambda params, **_: {**params, "MaxKeys": 2}
        )
        return client

    monkeypatch.setattr(s3, "_client", small)
    store = listing.connect("s3://cohort/e")
    assert list(listing.listed(store, "s3://cohort/e").objects) == list("01234")
    assert s3_bucket.count("list") == 3


def test_a_bucket_with_versions_gives_the_last_ones(s3_bucket: Bucket, s3_client: Any):
    """An object written again with the same content is the same; a deleted one is gone."""
    s3_client.put_bucket_versioning(Bucket="cohort", VersioningConfiguration={"Status": "Enabled"})
    s3_bucket.fill(e__a=b"old", e__b=b"2", e__c=b"3")
    s3_bucket.fill(e__a=b"new", e__b=b"2")
    s3_bucket.delete("e/c")
    folder = artifact("s3://cohort/e")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {"a": b"new", "b": b"2"}
    s3_bucket.fill(e__b=b"2")
    assert artifact("s3://cohort/e") == folder
    assert s3_bucket.count("get") == 2


def test_buckets_of_one_name_at_two_addresses_are_two(
    s3_bucket: Bucket, s3_server: str, monkeypatch: pytest.MonkeyPatch
):
    s3_bucket.fill(a=b"1")
    artifact("s3://cohort/a")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", Cutter(s3_server, float("inf")).url)
    artifact("s3://cohort/a")
    assert s3_bucket.count("get") == 2
    for public in ("https://s3.amazonaws.com", "https://s3.eu-west-1.amazonaws.com"):
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", public)
        assert listing.connect("s3://cohort").endpoint == ""


def _fetch_and_count(queue: "multiprocessing.Queue[int]") -> None:
    asked: list[tuple[str, str]] = []
    with pytest.MonkeyPatch.context() as patch:
        count_requests(asked, patch)
        folder = artifact("s3://cohort/e")
    assert (folder / "big").read_bytes() == BODY
    queue.put([name for name, _ in asked].count("get"))


@pytest.mark.slow
def test_processes_of_one_machine_share_a_download(s3_bucket: Bucket):
    """Of one prefix; one by another URI fetches none of its own either."""
    s3_bucket.fill(e__big=BODY, e__small=b"1")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_fetch_and_count, args=(queue,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    artifact("s3://cohort/e/*")
    counts = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert sum(counts) + s3_bucket.count("get") == 2


REFUSED: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], object], list[str]]] = {
    "no such bucket": ("s3://nope/a", lambda patch: None, ["refuses", "NoSuchBucket"]),
    "nobody there": (
        "s3://cohort/a",
        lambda patch: patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
        ["cannot be reached", "AWS_ENDPOINT_URL"],
    ),
    "no address": (
        "s3://cohort/a",
        lambda patch: patch.setenv("AWS_ENDPOINT_URL", f"user:{SECRET}@host"),
        ["is no address", "AWS_ENDPOINT_URL"],
    ),
    "no such profile": (
        "s3://cohort/a",
        lambda patch: patch.setenv("AWS_PROFILE", "nope"),
        ["cannot be reached", "ProfileNotFound"],
    ),
    "no credentials": (
        "s3://cohort/a",
        lambda patch: (
            [patch.delenv(n) for n in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
            and patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        ),
        ["cannot be reached", "credentials"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_are_clear_and_name_no_secret(
    name: str, s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    uri, change, words = REFUSED[name]
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    change(monkeypatch)
    with pytest.raises(ArtifactError) as refusal:
        artifact(uri)
    for word in words:
        assert word in str(refusal.value)
    assert SECRET not in str(refusal.value)
    assert not HOME.exists()


def test_a_full_disk_is_one_clear_error(s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch):
    s3_bucket.fill(big=BODY)
    real = Path.open

    def full(self: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if mode == "ab" and self.name == NAME:
            raise OSError(28, os.strerror(28))
        return real(self, mode, *rest, **more)

    monkeypatch.setattr(fetching.Path, "open", full)
    with pytest.raises(ArtifactError, match="No space left on device"):
        artifact("s3://cohort/big")
