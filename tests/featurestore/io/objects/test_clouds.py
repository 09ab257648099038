"""What stores answer that obstore knows, where they differ from each other."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from object_stores import SECRET, Bucket

from featurestore.errors import ArtifactError
from featurestore.io.objects import clouds, listing
from featurestore.io.objects.fetching import artifact


class Answer:
    """Of a range of an object with some content and ETag."""

    def __init__(self, body: bytes, etag: str) -> None:
        self.body, self.meta = body, {"e_tag": etag}

    def bytes(self) -> bytes:
        return self.body


def store(monkeypatch: pytest.MonkeyPatch, **answers: Any) -> None:
    def head(key: str) -> Any:
        raise FileNotFoundError

    client = SimpleNamespace(**{"head": head, **answers})
    monkeypatch.setattr(clouds, "_client", lambda root: client)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "lab")


def entry(key: str, etag: str) -> dict[str, Any]:
    then = datetime(2026, 3, 1, tzinfo=UTC)
    return {"path": key, "e_tag": etag, "size": 3, "version": None, "last_modified": then}


def test_a_listing_of_azure_spells_etags_without_marks(monkeypatch: pytest.MonkeyPatch):
    asked: list[dict[str, Any]] = []

    def get(key: str, options: dict[str, Any]) -> Answer:
        asked.append(options)
        return Answer(b"123", '"0x8D"')

    store(monkeypatch, list=lambda folder: [[entry("e/a", "0x8D")]], get=get)
    assert (artifact("az://cohort/e") / "a").read_bytes() == b"123"
    assert asked == [{"range": (0, 3), "if_match": '"0x8D"'}]
    assert listing.connect("az://cohort").endpoint == "lab"


def test_a_store_that_passes_over_the_condition_is_found_out(monkeypatch: pytest.MonkeyPatch):
    store(
        monkeypatch,
        list=lambda folder: [[entry("e/a", '"1"')]],
        get=lambda key, options: Answer(b"456", '"2"'),
    )
    with pytest.raises(ArtifactError, match="was replaced"):
        artifact("az://cohort/e")


def test_a_large_object_is_read_range_by_range(
    cloud_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(clouds, "RANGE", 4)
    cloud_bucket.fill(a=b"1234567890")
    assert artifact("gs://cohort/a").read_bytes() == b"1234567890"
    assert [at for kind, at in cloud_bucket.asked if kind == "get"] == ["0-4", "4-8", "8-10"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "GET http://h/?sig={} in 3s - status code: 404 Not Found: <b>",
            "status code: 404 Not Found",
        ),
        ("GET http://h/?sig={} in 3s - error sending request", "cannot be reached"),
    ],
)
def test_refusals_are_clear_and_name_no_secret(
    text: str, words: str, monkeypatch: pytest.MonkeyPatch
):
    from obstore.exceptions import GenericError

    def refuse(folder: str | None) -> Any:
        raise GenericError(text.format(SECRET))

    store(monkeypatch, list=refuse)
    with pytest.raises(ArtifactError, match=words) as refusal:
        artifact("az://cohort/e")
    assert SECRET not in str(refusal.value)
