"""Machines with working folders of their own and one store: what one has made, the others find."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import TABLES
from snapshots import snapshot

from featurestore.embeddings import conversion, folder
from featurestore.embeddings.part import Part
from featurestore.errors import ArtifactError, DamageWarning
from featurestore.io import cache
from featurestore.io.objects import shared
from featurestore.snapshots import build, collection
from featurestore.snapshots.snapshot import Snapshot


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return a place that machines share."""
    if request.param == "folder":
        place = str(tmp_path / "shared")
    else:
        request.getfixturevalue("s3_client")
        place = "s3://cohort/some/prefix"
    yield place
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
    return Machines(tmp_path, store, monkeypatch)


def rows(made: Snapshot) -> list[list[float]]:
    tiles = made.fit_set(1)
    return tiles.matrix.read_rows(tiles.keys["row"].to_numpy()).tolist()


def test_what_one_has_made_the_other_finds(machines: Machines, artifacts: TABLES):
    """It makes no view and converts nothing; the embeddings come when they are asked for."""
    named = artifacts()
    machines.enter("one")
    first = snapshot(named)
    expected = rows(first)
    machines.enter("two")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversion, "convert", lambda *_: pytest.fail("converted again"))
        patch.setattr(build, "write", lambda *_: pytest.fail("views were asked again"))
        again = snapshot(named)
    assert (again.digest, again.manifest) == (first.digest, first.manifest)
    assert not list(Path(".featurestore/parts").glob("*.npy"))
    assert rows(again) == expected
    assert list(Path(".featurestore/parts").glob("*.npy"))


def test_a_snapshot_is_opened_by_its_name_without_sources(machines: Machines, artifacts: TABLES):
    named = artifacts()
    machines.enter("one")
    first = snapshot(named)
    expected = rows(first)
    shutil.rmtree(Path(named["data.tiles"]).parent)
    machines.enter("two")
    assert rows(collection.opened(first.digest[:8])) == expected


def test_another_threshold_converts_nothing_elsewhere(machines: Machines, artifacts: TABLES):
    named = artifacts()
    machines.enter("one")
    snapshot(named)
    machines.enter("two")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversion, "convert", lambda *_: pytest.fail("converted again"))
        made = snapshot(named, thresholds={"Fat": 0.6, "Muscle": 0.5})
    machines.enter("one")
    assert collection.opened(made.folder.name).digest == made.digest


def test_folds_are_extended_elsewhere(machines: Machines, artifacts: TABLES):
    """Slides 0 to 3 keep their folds on the machine that has never seen them."""
    few = {"fold": None}
    machines.enter("one")
    made = snapshot(artifacts(few), kfold_strategy="stratified_group", k=2)
    folds = {row["slide_id"]: row["fold"] for row in made.fates().to_pyarrow().to_pylist()}
    more = 20
    number = np.arange(more)
    grown = {
        "slide_id": [f"s{n // 3}" for n in number], "x": number, "y": number * 0, "fold": None,
        "roi_coverage_Fat": np.where(number % 2, 0.9, 0.0),
        "roi_coverage_Muscle": np.where(number % 2, 0.0, 0.8),
    }  # fmt: skip
    keys = {"x": number, "y": number * 0, "embedding": np.eye(more).tolist()}
    named = artifacts(grown, keys)
    machines.enter("two")
    later = snapshot(named, kfold_strategy="stratified_group", k=2).fates().to_pyarrow()
    now = {row["slide_id"]: row["fold"] for row in later.to_pylist()}
    assert {slide: now[slide] for slide in folds} == folds


def test_a_refusal_shares_nothing(machines: Machines, artifacts: TABLES):
    vectors = [[float(n), 1.0, 2.0] for n in range(12)]
    vectors[11] = vectors[3]
    machines.enter("one")
    with pytest.raises(Exception, match="embedding of a tile in another fold"):
        snapshot(artifacts(None, {"embedding": vectors}), kfold_strategy="stratified_group")
    store = shared.current()
    assert store is not None
    assert not any(store.files(kind, again=True) for kind in ("parts", "snapshots", "folds"))


def test_what_comes_back_damaged_is_not_used(machines: Machines, artifacts: TABLES):
    named = artifacts()
    machines.enter("one")
    made = snapshot(named)
    (name,) = folder.names()
    store = shared.current()
    assert store is not None
    part = Part.read(name)
    content = bytearray(part.values.read_bytes())
    content[-40] ^= 1
    Path("harmed").write_bytes(content)
    store.store.write(f"{store.prefix}parts/{part.values.name}", Path("harmed"), once=False)
    machines.enter("two")
    with pytest.raises(ArtifactError, match=r"damaged where it is shared: .* 1 rows"):
        rows(snapshot(named))
    fates = Path("..") / "one" / ".featurestore/snapshots" / made.folder.name / "fates.parquet"
    other = bytearray(fates.read_bytes())
    other[-20] ^= 1
    Path("harmed").write_bytes(other)
    machines.enter("three")
    key = f"{store.prefix}snapshots/{made.folder.name}/fates.parquet"
    store.store.write(key, Path("../two/harmed"), once=False)
    with pytest.warns(DamageWarning, match="is damaged in"):
        assert snapshot(named).digest == made.digest
    assert cache.names("snapshots") == [made.folder.name]
