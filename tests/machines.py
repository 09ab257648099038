"""Machines with working folders of their own, and what lies in the store that they share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from featurestore.io import digests
from featurestore.io.objects import shared
from featurestore.snapshots.snapshot import Snapshot


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return a place that machines share."""
    places = {
        "folder": str(tmp_path / "shared"),
        "bucket": "s3://cohort/some/prefix",
        "cloud": "gs://cohort/some/prefix",
    }
    if request.param != "folder":
        request.getfixturevalue({"bucket": "s3_client", "cloud": "cloud_bucket"}[request.param])
    yield places[request.param]
    shared.use(None)


class Machines:
    """Working folders of several machines."""

    def __init__(self, folder: Path, store: str, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.store, self.patch = folder, store, patch

    def enter(self, name: str) -> None:
        """Work on a machine, as a process of its own would."""
        (self.folder / name).mkdir(exist_ok=True)
        self.patch.chdir(self.folder / name)
        shared.use(None)
        shared.use(self.store)


@pytest.fixture
def machines(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machines:
    """Return machines that remember what they have hashed, however quick a test is."""
    monkeypatch.setattr(digests, "SETTLED", 0)
    return Machines(tmp_path, store, monkeypatch)


def rows(made: Snapshot) -> list[list[float]]:
    tiles = made.fit_set(1)
    return tiles.matrix.read_rows(tiles.keys["row"].to_numpy()).tolist()


def everything(kind: str) -> dict[str, str]:
    """Return the keys of all files of a kind in the store, by the name of the file."""
    store = shared.current()
    assert store is not None
    things = store.entries(kind, refresh=True).values()
    return {
        file: stored.key
        for variants in things
        for variant in variants
        for file, stored in variant.files.items()
    }


def change(key: str, place: int) -> None:
    """Change a bit of a file in the store."""
    store = shared.current()
    assert store is not None
    (stored,) = [one for one in store.store.list_prefix(key) if one.key == key]
    content = bytearray(b"".join(store.store.read(stored, 0, stored.size)))
    content[place] ^= 1
    Path("harmed").write_bytes(content)
    store.store.write(key, Path("harmed"), once=False)
    shared.use(None)
    shared.use(store.uri)
