"""Object stores on loopback and in memory, which say what was asked of them."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from featurestore.io.objects import clouds, s3

SECRET = "do-not-print-me"


@dataclass
class Bucket:
    """A bucket, and the requests that it was sent: ``list``, ``get`` or ``head``, and a range."""

    root: str
    put: Callable[[str, bytes], Any]
    delete: Callable[[str], Any]
    asked: list[tuple[str, str]] = field(default_factory=list)

    def fill(self, **contents: bytes) -> None:
        for key, body in contents.items():
            self.put(key.replace("__", "/"), body)

    def count(self, kind: str) -> int:
        return [name for name, _ in self.asked].count(kind)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Return the address of an S3 server."""
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def s3_client(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a client of a fresh bucket named `cohort`, the environment as a user sets it."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": s3_server,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="cohort")
    yield client
    for kind in ("Versions", "DeleteMarkers"):
        for entry in client.list_object_versions(Bucket="cohort").get(kind, []):
            named = {"Key": entry["Key"], "VersionId": entry["VersionId"]}
            client.delete_object(Bucket="cohort", **named)
    client.delete_bucket(Bucket="cohort")


def count_requests(asked: list[tuple[str, str]], patch: pytest.MonkeyPatch) -> None:
    """Note the requests of every client of S3 made from now on."""
    make = s3._client
    kinds = {"ListObjectsV2": "list", "GetObject": "get", "HeadObject": "head"}

    def counted() -> Any:
        client = make()
        client.meta.events.register(
            "before-send.s3",
            lambda request, event_name, **_: asked.append(
                (kinds[event_name.split(".")[-1]], (request.headers.get("Range") or b"").decode())
            ),
        )
        return client

    patch.setattr(s3, "_client", counted)


@pytest.fixture
def s3_bucket(s3_client: Any, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """Return a bucket of S3."""
    bucket = Bucket(
        "s3://cohort",
        lambda key, body: s3_client.put_object(Bucket="cohort", Key=key, Body=body),
        lambda key: s3_client.delete_object(Bucket="cohort", Key=key),
    )
    count_requests(bucket.asked, monkeypatch)
    return bucket


@pytest.fixture
def cloud_bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """Return a bucket of what obstore knows, in memory."""
    from obstore.store import MemoryStore

    memory = MemoryStore()
    bucket = Bucket("gs://cohort", memory.put, memory.delete)

    def noted(kind: str) -> Callable[..., Any]:
        def ask(*given: Any, **more: Any) -> Any:
            begin, stop = more.get("options", {}).get("range", ("", ""))
            bucket.asked.append((kind, f"{begin}-{stop}"))
            return getattr(memory, kind)(*given, **more)

        return ask

    client = SimpleNamespace(
        **{kind: noted(kind) for kind in ("list", "get", "head")},
        put=memory.put,
        delete=memory.delete,
    )
    monkeypatch.setattr(clouds, "_client", lambda root: client)
    return bucket


@pytest.fixture(params=["s3", "cloud"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    """Return a bucket of each kind of store."""
    return request.getfixturevalue(f"{request.param}_bucket")


class Cutter:
    """A proxy that hangs up after so many bytes of answers, and counts them."""

    def __init__(self, target: str, limit: float) -> None:
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
