"""A store of several machines: what nothing needs goes, what is damaged is found, tags are seen."""

import os
import shutil
import time
from pathlib import Path

import pytest
from conftest import TABLES
from machines import Machines, change, everything, rows
from snapshots import snapshot

from featurestore.console import cli
from featurestore.errors import ArtifactError
from featurestore.io.objects import shared
from featurestore.snapshots import build, collection, shared_store, tags
from featurestore.snapshots.snapshot import Snapshot
from featurestore.store import FeatureStore

OTHER = {"thresholds": {"Fat": 0.6, "Muscle": 0.5}}
in_a_folder = pytest.mark.parametrize("store", ["folder"], indirect=True)


def current() -> shared.SharedStore:
    store = shared.current()
    assert store is not None
    return store


def age(seconds: float) -> None:
    """Have all that lies in a folder that machines share be written some time ago."""
    then = time.time() - seconds
    for file in Path(current().uri).rglob("*"):
        os.utime(file, (then, then))
    shared.use(None)


def corrected(artifacts: TABLES) -> dict[str, str]:
    """Return the artifacts with other embeddings."""
    return artifacts(None, {"embedding": [[float(n), 7.0, 7.0] for n in range(12)]})


@pytest.mark.slow
@pytest.mark.parametrize("store", ["folder", "bucket", "cloud"], indirect=True)
def test_what_is_new_or_has_a_tag_stays(
    machines: Machines, artifacts: TABLES, monkeypatch: pytest.MonkeyPatch
):
    """Two snapshots with parts of their own; what one alone needs goes with it."""
    machines.enter("one")
    first = snapshot(artifacts())
    second = snapshot(corrected(artifacts))
    expected = rows(second)
    assert shared_store.collect(current(), keep=0) == []
    monkeypatch.setattr(shared_store, "GRACE", -60.0)
    tags.tag("april", second.folder.name)
    gone = shared_store.collect(current(), keep=0)
    assert [place.rpartition("/")[0] for place in gone] == [
        f"snapshots/{first.folder.name}", f"parts/{first.matrices[''].parts[0].name}",
    ]  # fmt: skip
    assert shared_store.collect(current(), keep=0) == []
    machines.enter("two")
    assert shared.names("snapshots") == [second.folder.name]
    assert rows(collection.opened("april")) == expected


@in_a_folder
def test_what_executors_sent_to_a_driver_that_was_killed_goes(machines: Machines, tmp_path: Path):
    machines.enter("one")
    (tmp_path / "fates").write_bytes(b"rows")
    for name in ("old", "new"):
        current().write(f"sent/{name}/fates.parquet", tmp_path / "fates")
        if name == "old":
            age(3 * shared.GRACE)
            machines.enter("one")
    assert shared_store.collect(current(), keep=0) == ["sent/old/fates.parquet"]
    assert list(current().objects("sent")) == ["new/fates.parquet"]


@pytest.mark.slow
@in_a_folder
def test_the_last_used_stay(machines: Machines, artifacts: TABLES):
    machines.enter("one")
    first, second = snapshot(artifacts()), snapshot(corrected(artifacts))
    age(3 * shared.GRACE)
    machines.enter("two")
    collection.opened(first.folder.name)
    [*_, gone, _] = shared_store.collect(current(), keep=1)
    assert gone.startswith(f"snapshots/{second.folder.name}/")
    assert shared.names("snapshots", refresh=True) == [first.folder.name]


@pytest.mark.slow
@in_a_folder
def test_what_a_machine_is_about_to_share_stays(
    machines: Machines, artifacts: TABLES, monkeypatch: pytest.MonkeyPatch
):
    """Its part is old, and no snapshot names it as yet: it was found, and is not sent again."""
    machines.enter("one")
    expected = rows(snapshot(artifacts()))
    age(3 * shared.GRACE)
    machines.enter("two")
    share, gone = build._share, []

    def late(store: FeatureStore, made: Snapshot) -> None:
        gone.extend(shared_store.collect(current(), keep=0))
        share(store, made)

    monkeypatch.setattr(build, "_share", late)
    made = snapshot(artifacts(), **OTHER)
    assert [name.partition("/")[0] for name in gone] == ["snapshots"]
    machines.enter("three")
    assert rows(collection.opened(made.folder.name)) == expected


@pytest.mark.slow
@in_a_folder
def test_what_was_used_while_it_is_collected_stays(
    machines: Machines, artifacts: TABLES, monkeypatch: pytest.MonkeyPatch
):
    """It was listed as old; before it goes it is looked at again."""
    machines.enter("one")
    snapshot(artifacts())
    age(3 * shared.GRACE)
    machines.enter("one")
    remove = shared.SharedStore.remove

    def late(
        self: shared.SharedStore, kind: str, name: str, variant: shared.Variant, before: float
    ) -> bool:
        self.mark_used(kind, [name])
        return remove(self, kind, name, variant, before)

    monkeypatch.setattr(shared.SharedStore, "remove", late)
    assert shared_store.collect(current(), keep=0) == []


@pytest.mark.slow
@in_a_folder
def test_what_a_killed_writer_left_goes(machines: Machines, artifacts: TABLES):
    """Files without what makes them whole, though their thing is needed; folds stay."""
    machines.enter("one")
    made = snapshot(artifacts({"fold": None}), kfold_strategy="stratified_group", k=2)
    left = [f"{kind}/{'a' * 16}/{'b' * 16}/file" for kind in shared.PROOFS]
    Path("file").write_text("half")
    for key in left:
        current().write(key, Path("file"))
    age(3 * shared.GRACE)
    machines.enter("one")
    tags.tag("march", made.folder.name)
    gone = shared_store.collect(current(), keep=0)
    assert sorted(f"{place}/file" for place in gone) == sorted(left)
    assert all(everything(kind) for kind in shared.PROOFS)


@pytest.mark.slow
def test_a_tag_is_seen_elsewhere(machines: Machines, artifacts: TABLES):
    """A snapshot that was made without the store is sent with its tag."""
    machines.enter("one")
    shared.use(None)
    made = snapshot(artifacts())
    expected, name = rows(made), made.folder.name
    assert cli.main(["snapshots", "--tag", "march", "--store", machines.store]) == 0
    machines.enter("two")
    assert rows(collection.opened("march")) == expected
    other = snapshot(artifacts(), **OTHER).folder.name
    with pytest.raises(ArtifactError, match=f"march is that of another snapshot\n.*{name}"):
        tags.tag("march", other)
    assert tags.untag("march") == name
    machines.enter("three")
    assert tags.tags() == {}
    tags.tag("march", other)
    machines.enter("one")  # whose own copy still says otherwise
    with pytest.raises(ArtifactError, match="is that of two snapshots"):
        collection.opened("march")
    assert set(tags.untag("march").split(" and ")) == {name, other}
    assert tags.tags() == {}


def test_what_is_no_tag_in_the_store_is_passed_over(machines: Machines):
    """Whoever can write there may write anything."""
    machines.enter("one")
    Path("file").write_text("../../../elsewhere")
    current().write("tags/march", Path("file"))
    Path("file").write_text("a" * 16)
    current().write("tags/a b", Path("file"))
    assert tags.tags() == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("harmed", "words"),
    [
        ("parts/values.npy", "1 rows that are not what was written"),
        ("parts/keys.parquet", "another SHA-256"),
        ("snapshots/fates.parquet", "not those of its seal"),
    ],
)
def test_what_is_damaged_is_found_and_sent_again(
    harmed: str, words: str, machines: Machines, artifacts: TABLES,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    """By a machine that has it; one that has not removes it, and the next run makes it again."""
    kind, _, file = harmed.partition("/")
    machines.enter("one")
    expected = rows(snapshot(artifacts()))
    verify = ["verify", "--store", machines.store]
    assert cli.main(verify) == 0
    change(everything(kind)[file], -60)
    assert cli.main(verify) == 2
    output = capsys.readouterr().out
    assert words in output
    assert f"to do: {' '.join(['featurestore', *verify])} --repair" in output
    assert cli.main([*verify, "--repair"]) == 2
    assert "removed there, and sent again" in capsys.readouterr().out
    assert cli.main(verify) == 0
    change(everything(kind)[file], -60)
    machines.enter("two")
    assert cli.main([*verify, "--repair"]) == 2
    assert "the next run that uses the store makes it again" in capsys.readouterr().out
    assert cli.main(verify) == 0
    assert rows(snapshot(artifacts())) == expected


@pytest.mark.slow
@in_a_folder
def test_a_part_that_lost_a_file_is_damaged(machines: Machines, artifacts: TABLES):
    named = artifacts()
    machines.enter("one")
    expected = rows(snapshot(named))
    (Path(machines.store) / everything("parts")["values.npy"]).unlink()
    [damage] = shared_store.verify(current(), repair=False)
    assert damage.fault == "values.npy is missing"
    shutil.rmtree(".featurestore")
    machines.enter("one")
    with pytest.warns(match="is damaged in .* and is not used"):
        made = snapshot(named)
        with pytest.raises(ArtifactError):
            rows(made)
    assert rows(snapshot(named)) == expected


@pytest.mark.slow
@in_a_folder
def test_nothing_is_collected_by_a_snapshot_that_cannot_be_read(
    machines: Machines, artifacts: TABLES, capsys: pytest.CaptureFixture[str]
):
    machines.enter("one")
    snapshot(artifacts())
    before = everything("parts")
    change(everything("snapshots")["parts.parquet"], -20)
    assert cli.main(["gc", "--store", machines.store]) == 2
    assert "--repair" in capsys.readouterr().err
    assert everything("parts") == before


@pytest.mark.slow
def test_a_store_of_the_environment_is_not_collected(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, artifacts: TABLES
):
    """``gc`` is of the working folder unless a store is named after it."""
    machines.enter("one")
    snapshot(artifacts())
    monkeypatch.setattr(shared_store, "collect", lambda *_: pytest.fail("collected"))
    monkeypatch.setenv("FEATURESTORE_STORE", machines.store)
    assert cli.main(["gc", "--keep", "0"]) == 0
    assert cli.main(["--store", machines.store, "gc", "--keep", "0"]) == 0
