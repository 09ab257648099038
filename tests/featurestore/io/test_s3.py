"""Object storage, against a real S3 server on loopback: cached, resumed, verified, shared."""

import contextlib
import multiprocessing
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest

from featurestore.errors import ArtifactError
from featurestore.io import downloads, s3
from featurestore.io.atomic import HOME

BODY = bytes(range(256)) * 4096 * 3  # 3 MiB
SECRET = "do-not-print-me"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator["boto3.client"]:
    """Return a client of a fresh bucket named `cohort`, the environment as a user sets it."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": server,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="cohort")
    yield client
    for entry in client.list_objects_v2(Bucket="cohort").get("Contents", []):
        client.delete_object(Bucket="cohort", Key=entry["Key"])
    client.delete_bucket(Bucket="cohort")


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Return the operations asked of the storage from now on, each with its range."""
    asked: list[tuple[str, str]] = []
    make = s3._client

    def counted() -> object:
        client = make()
        client.meta.events.register(
            "before-send.s3",
            lambda request, event_name, **_: asked.append(
                (event_name.split(".")[-1], (request.headers.get("Range") or b"").decode())
            ),
        )
        return client

    monkeypatch.setattr(s3, "_client", counted)
    return asked


def put(client: "boto3.client", **contents: bytes) -> None:
    for key, body in contents.items():
        client.put_object(Bucket="cohort", Key=key.replace("__", "/"), Body=body)


def fetched(uri: str) -> Path:
    return s3.fetched(uri)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_one_object_is_a_file_of_its_name(bucket: "boto3.client"):
    put(bucket, in__tiles=BODY, in__tiles2=b"other")
    path = fetched("s3://cohort/in/tiles")
    assert path.name == "tiles"
    assert path.read_bytes() == BODY


def test_a_prefix_is_a_folder_with_its_own_objects_alone(bucket: "boto3.client"):
    put(bucket, e__a=b"1", e__deep__b=b"2", embeddings__c=b"3")
    for uri in ("s3://cohort/e", "s3://cohort/e/"):
        assert files(fetched(uri)) == {"a": b"1", "deep/b": b"2"}


def test_a_glob_picks_objects(bucket: "boto3.client"):
    put(bucket, **{"e__a.parquet": b"1", "e__b.parquet": b"2", "e__c.txt": b"3"})
    assert files(fetched("s3://cohort/e/*.parquet")) == {"a.parquet": b"1", "b.parquet": b"2"}


def test_unchanged_objects_are_not_fetched_again(bucket: "boto3.client", requests: list):
    put(bucket, e__a=BODY, e__b=b"2")
    first = fetched("s3://cohort/e")
    assert [name for name, _ in requests].count("GetObject") == 2
    requests.clear()
    assert fetched("s3://cohort/e") == first
    assert [name for name, _ in requests] == ["ListObjectsV2"]


def test_a_changed_object_is_another_download(bucket: "boto3.client"):
    put(bucket, a=b"old")
    old = fetched("s3://cohort/a")
    put(bucket, a=b"new")
    assert fetched("s3://cohort/a").read_bytes() == b"new"
    assert old.read_bytes() == b"old"


@pytest.mark.slow
def test_a_replaced_object_goes_on_with_nothing_of_the_one_before(
    bucket: "boto3.client", requests: list
):
    """Of the same size: what a cut download left is of another version."""
    put(bucket, big=BODY)
    leave_part("s3://cohort/big", BODY[:1000])
    put(bucket, big=BODY[::-1])
    requests.clear()
    assert fetched("s3://cohort/big").read_bytes() == BODY[::-1]
    assert ("GetObject", "") in requests


def test_an_object_replaced_during_the_download_is_refused(
    bucket: "boto3.client", monkeypatch: pytest.MonkeyPatch
):
    put(bucket, a=b"old")
    listed = s3._listed

    def meanwhile(*given: object) -> list[s3.Stored]:
        found = listed(*given)
        put(bucket, a=b"new")
        return found

    monkeypatch.setattr(s3, "_listed", meanwhile)
    with pytest.raises(ArtifactError, match="was replaced while it was downloaded"):
        fetched("s3://cohort/a")
    monkeypatch.setattr(s3, "_listed", listed)
    assert fetched("s3://cohort/a").read_bytes() == b"new"


def test_each_uri_has_its_own_names_for_the_same_objects(bucket: "boto3.client"):
    put(bucket, e__a=b"1")
    assert files(fetched("s3://cohort/*/a")) == {"e/a": b"1"}
    assert fetched("s3://cohort/e/a").read_bytes() == b"1"
    assert files(fetched("s3://cohort/e")) == {"a": b"1"}


@pytest.mark.parametrize("name", ["part-?.parquet", "a#1", "a b%20c"])
def test_a_key_is_taken_as_it_is_written(bucket: "boto3.client", name: str):
    """Not cut at signs that mean something in other URIs."""
    put(bucket, **{name.replace("?", "0"): b"right", name[:1]: b"wrong"})
    path = fetched(f"s3://cohort/{name}")
    assert (path if path.is_file() else path / "part-0.parquet").read_bytes() == b"right"


class Cutter:
    """A proxy that hangs up after so many bytes of answers."""

    def __init__(self, target: str, limit: int) -> None:
        self.limit, self.passed = limit, 0
        host, port = target.removeprefix("http://").split(":")
        self.target = (host, int(port))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(self.target)
            threading.Thread(target=self._pump, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        try:
            while data := source.recv(65536):
                if counted:
                    self.passed += len(data)
                    if self.passed > self.limit:
                        break
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def test_a_cut_download_goes_on_where_it_ended(
    bucket: "boto3.client", server: str, requests: list, monkeypatch: pytest.MonkeyPatch
):
    put(bucket, big=BODY)
    cutter = Cutter(server, limit=2 * 2**20)
    monkeypatch.setenv("AWS_ENDPOINT_URL", cutter.url)
    with pytest.raises(ArtifactError, match="cannot be reached") as refusal:
        fetched("s3://cohort/big")
    assert "what was downloaded is kept" in str(refusal.value)
    begun = next(HOME.glob("downloads/.part-*/big")).stat().st_size
    assert 0 < begun < len(BODY)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    requests.clear()
    assert fetched("s3://cohort/big").read_bytes() == BODY
    assert ("GetObject", f"bytes={begun}-") in requests
    assert not list(HOME.glob("downloads/.*"))


def leave_part(uri: str, content: bytes) -> Path:
    """Leave what a cut download of one object would have left, its content as given."""
    whole = fetched(uri)
    folder = whole.parent.with_name(f"{downloads.PART}{whole.parent.name}")
    whole.parent.rename(folder)
    (folder / whole.name).write_bytes(content)
    return folder / whole.name


@pytest.mark.slow
def test_a_corrupt_part_is_found_out_and_fetched_anew(bucket: "boto3.client"):
    put(bucket, big=BODY)
    part = leave_part("s3://cohort/big", b"x" * 1000)
    with pytest.raises(ArtifactError, match="is not what the bucket says"):
        fetched("s3://cohort/big")
    assert not part.exists()
    assert fetched("s3://cohort/big").read_bytes() == BODY


def test_an_upload_of_several_parts_is_verified(bucket: "boto3.client"):
    body = os.urandom(5 * 2**20) + b"rest"
    upload = bucket.create_multipart_upload(Bucket="cohort", Key="multi")["UploadId"]
    named = {"Bucket": "cohort", "Key": "multi", "UploadId": upload}
    parts = [
        {"PartNumber": n, "ETag": bucket.upload_part(**named, PartNumber=n, Body=piece)["ETag"]}
        for n, piece in ((1, body[: 5 * 2**20]), (2, body[5 * 2**20 :]))
    ]
    bucket.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})
    assert bucket.head_object(Bucket="cohort", Key="multi")["ETag"].strip('"').endswith("-2")
    assert fetched("s3://cohort/multi").read_bytes() == body
    wrong = body[:-1] + b"!"
    leave_part("s3://cohort/multi", wrong)
    with pytest.raises(ArtifactError, match="is not what the bucket says"):
        fetched("s3://cohort/multi")


def _fetch_and_count(queue: "multiprocessing.Queue[int]") -> None:
    gets: list[str] = []
    make = s3._client

    def counted() -> object:
        client = make()
        client.meta.events.register("before-send.s3.GetObject", lambda **_: gets.append("get"))
        return client

    s3._client = counted
    assert fetched("s3://cohort/big").read_bytes() == BODY
    queue.put(len(gets))


@pytest.mark.slow
def test_processes_of_one_machine_share_a_download(bucket: "boto3.client"):
    put(bucket, big=BODY)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_fetch_and_count, args=(queue,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    counts = sorted(queue.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
    assert counts == [0, 0, 0, 1]


REFUSED: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None], list[str]]] = {
    "no such key": ("s3://cohort/nope", lambda patch: None, ["There is no object at"]),
    "no such bucket": ("s3://nope/a", lambda patch: None, ["refuses", "NoSuchBucket"]),
    "nobody there": (
        "s3://cohort/a",
        lambda patch: patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
        ["cannot be reached", "AWS_ENDPOINT_URL"],
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
    name: str, bucket: "boto3.client", monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    uri, change, words = REFUSED[name]
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    change(monkeypatch)
    with pytest.raises(ArtifactError) as refusal:
        fetched(uri)
    for word in words:
        assert word in str(refusal.value)
    assert SECRET not in str(refusal.value)


def test_a_full_disk_is_one_clear_error(bucket: "boto3.client", monkeypatch):
    put(bucket, big=BODY)
    real = s3.Path.open

    def full(self: Path, mode: str = "r", *rest: object, **more: object):
        if mode == "ab" and self.name == "big":
            raise OSError(28, os.strerror(28))
        return real(self, mode, *rest, **more)

    monkeypatch.setattr(s3.Path, "open", full)
    with pytest.raises(ArtifactError, match="No space left on device"):
        fetched("s3://cohort/big")
