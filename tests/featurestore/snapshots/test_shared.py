"""Machines with working folders of their own and one store: what one has made, the others find."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import TABLES
from machines import Machines, change, everything, rows
from snapshots import snapshot

from featurestore.embeddings import conversion
from featurestore.errors import ArtifactError, DamageWarning, FeatureStoreWarning, LeakageError
from featurestore.io import cache
from featurestore.io.objects import shared
from featurestore.io.objects.store import unreachable
from featurestore.snapshots import build, collection


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_snapshot_is_opened_by_its_name_without_sources(machines: Machines, artifacts: TABLES):
    named = artifacts()
    machines.enter("one")
    first = snapshot(named)
    expected = rows(first)
    shutil.rmtree(Path(named["data.tiles"]).parent)
    machines.enter("two")
    assert rows(collection.opened(first.digest[:8])) == expected


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_refusal_shares_nothing(machines: Machines, artifacts: TABLES):
    vectors = [[float(n), 1.0, 2.0] for n in range(12)]
    vectors[11] = vectors[3]
    machines.enter("one")
    with pytest.raises(LeakageError, match="embedding of a tile in another fold"):
        snapshot(artifacts(None, {"embedding": vectors}), kfold_strategy="stratified_group")
    assert not any(everything(kind) for kind in shared.PROOFS)


@pytest.mark.slow
def test_a_store_that_does_not_answer_undoes_nothing(
    machines: Machines, artifacts: TABLES, monkeypatch: pytest.MonkeyPatch
):
    def lost(*_: object) -> None:
        raise unreachable("the store", ConnectionError())

    machines.enter("one")
    monkeypatch.setattr(shared.SharedStore, "upload", lost)
    with pytest.warns(FeatureStoreWarning, match="is not shared: the store cannot be reached"):
        made = snapshot(artifacts())
    assert rows(made)
    assert cache.names("snapshots") == [made.folder.name]


@pytest.mark.slow
@pytest.mark.parametrize("harmed", ["values.npy", "keys.parquet"])
def test_a_part_that_comes_back_damaged_is_made_again(
    harmed: str, machines: Machines, artifacts: TABLES
):
    named = artifacts()
    machines.enter("one")
    expected = rows(snapshot(named))
    machines.enter("two")
    change(everything("parts")[harmed], -40)
    made = snapshot(named)
    with (
        pytest.warns(DamageWarning, match=r"is damaged in .*verify --store .* --repair"),
        pytest.raises(ArtifactError, match="cannot be read"),
    ):
        rows(made)  # embeddings come when they are asked for
    assert rows(snapshot(named)) == expected


@pytest.mark.slow
def test_a_snapshot_that_comes_back_damaged_is_made_again(machines: Machines, artifacts: TABLES):
    named = artifacts()
    machines.enter("one")
    made = snapshot(named)
    machines.enter("two")
    change(everything("snapshots")["fates.parquet"], -20)
    with pytest.warns(DamageWarning, match="is damaged in"):
        assert snapshot(named).digest == made.digest


@pytest.mark.slow
def test_keys_that_lead_elsewhere_are_passed_over(machines: Machines, artifacts: TABLES):
    named = artifacts()
    machines.enter("one")
    made = snapshot(named)
    machines.enter("two")
    Path("evil").write_text("evil")
    store = shared.current()
    assert store is not None
    name = made.folder.name
    for key in (f"snapshots/{name}/0000000000000000/../../../evil", f"snapshots/../{name}/seal"):
        if "://" in store.uri:
            store.store.write(f"{store.prefix}{key}", Path("evil"), once=False)
    machines.enter("three")
    assert snapshot(named).digest == made.digest


@pytest.mark.slow
def test_two_machines_that_make_one_part_never_mix_files(machines: Machines, artifacts: TABLES):
    """Their keys are written by unlike versions of a library: the same rows in other bytes."""
    named = artifacts()
    machines.enter("one")
    expected = rows(snapshot(named))
    machines.enter("two")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared.SharedStore, "variants", lambda *_: [])  # it has looked too early
        write = pq.write_table
        patch.setattr(pq, "write_table", lambda *a, **k: write(*a, **{**k, "compression": "none"}))
        assert rows(snapshot(named, thresholds={"Fat": 0.6, "Muscle": 0.5})) == expected
    store = shared.current()
    assert store is not None
    assert [len(variants) for variants in store.entries("parts", refresh=True).values()] == [2]
    machines.enter("three")
    assert rows(snapshot(named)) == expected
