"""Objects fetched one by one, of every kind of store: cached, named by their keys, kept in use."""

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from object_stores import Bucket

from featurestore.console import cli
from featurestore.errors import ArtifactError
from featurestore.io import cache, parquet, uris
from featurestore.io.atomic import HOME
from featurestore.io.objects import clouds, fetching, listing
from featurestore.io.objects.fetching import artifact
from featurestore.io.objects.store import OBJECTS, StoredObject

FORK = multiprocessing.get_context("fork")


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def objects() -> list[str]:
    return cache.names(OBJECTS)


def in_another_process(work: object) -> None:
    worker = FORK.Process(target=work)
    worker.start()
    worker.join()
    assert worker.exitcode == 0


# -- names ----------------------------------------------------------------------------------------


def test_one_object_is_a_file_of_its_name(bucket: Bucket):
    bucket.fill(in__tiles=b"1", in__tiles2=b"other")
    path = artifact(f"{bucket.root}/in/tiles")
    assert (path.name, path.read_bytes()) == ("tiles", b"1")


def test_a_prefix_is_a_folder_with_its_own_objects_alone(bucket: Bucket):
    bucket.fill(e__a=b"1", e__deep__b=b"2", embeddings__c=b"3")
    for uri in (f"{bucket.root}/e", f"{bucket.root}/e/"):
        assert files(artifact(uri)) == {"a": b"1", "deep/b": b"2"}
    assert set(files(artifact(bucket.root))) == {"e/a", "e/deep/b", "embeddings/c"}


def test_a_glob_picks_objects(bucket: Bucket):
    bucket.fill(**{"e__a.parquet": b"1", "e__b.parquet": b"2", "e__c.txt": b"3", "f": b"4"})
    uri = f"{bucket.root}/e/*.parquet"
    assert files(artifact(uri)) == {"a.parquet": b"1", "b.parquet": b"2"}


@pytest.mark.slow
def test_each_uri_has_its_own_names_for_the_same_objects(bucket: Bucket):
    bucket.fill(e__a=b"1")
    assert files(artifact(f"{bucket.root}/*/a")) == {"e/a": b"1"}
    assert artifact(f"{bucket.root}/e/a").read_bytes() == b"1"
    assert files(artifact(f"{bucket.root}/e")) == {"a": b"1"}
    assert bucket.count("get") == 1


@pytest.mark.slow
def test_a_key_is_taken_as_it_is_written(bucket: Bucket):
    """Not cut at signs that mean something in other URIs, and itself before it is a glob."""
    names = ["what?.parquet", "a#1 b%20c", "[1]", "*", "ü/é ☃", "a'b\"c"]
    for name in names:
        bucket.put(name, name.encode())
    for name in names[:4]:
        assert artifact(f"{bucket.root}/{name}").read_bytes() == name.encode()
    assert files(artifact(bucket.root)) == {name: name.encode() for name in names}


def test_a_folder_whose_name_could_be_a_glob_is_that_folder(bucket: Bucket):
    bucket.fill(**{"data[1]__a": b"1", "data1__a": b"2"})
    assert files(artifact(f"{bucket.root}/data[1]")) == {"a": b"1"}


@pytest.mark.slow
def test_a_key_may_begin_with_a_slash(s3_bucket: Bucket):
    s3_bucket.fill(**{"/a": b"slash", "a": b"none"})
    assert artifact("s3://cohort//a").read_bytes() == b"slash"
    assert artifact("s3://cohort/a").read_bytes() == b"none"
    with pytest.raises(ArtifactError, match="cannot lie in one folder"):
        artifact("s3://cohort")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["e/a", "e//a"], "cannot lie in one folder"),
        (["e/a", "e/a/b"], "cannot lie in one folder"),
        (["e/x/../../a"], "leads out of its folder"),
    ],
)
def test_keys_that_no_folder_can_hold_are_refused(keys: list[str], words: str):
    store = SimpleNamespace(
        root="s3://cohort",
        list_key=lambda key: [StoredObject("s3://cohort", key, "1", 1) for key in keys],
        refusal=lambda uri, error: None,
    )
    with pytest.raises(ArtifactError, match=words):
        listing.listed(store, "s3://cohort/e")


@pytest.mark.slow
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1)))
def test_names_are_what_is_below_the_prefix(folders: list[str]):
    assume(not {".", "..", "file"} & set(folders))
    names = {"/".join([*folders[:end], "file"]) for end in range(len(folders) + 1)}
    store = SimpleNamespace(
        root="s3://b",
        list_key=lambda key: [StoredObject("s3://b", f"e/{name}", "1", 1) for name in names],
        refusal=lambda uri, error: None,
    )
    assert set(listing.listed(store, "s3://b/e").objects) == names


def test_folders_below_a_prefix_are_partitions(bucket: Bucket):
    """Read as files on this machine would be: the names are those of the keys."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"x": [1]}), sink)
    body = sink.getvalue().to_pybytes()
    bucket.fill(**{"e__site=a%2Fb__p.parquet": body, "e___temporary__q.parquet": body})
    dataset = parquet.dataset(f"{bucket.root}/e")
    (fragment,) = dataset.fragments
    assert (fragment.name, fragment.partition) == ("site=a%2Fb/p.parquet", {"site": "a/b"})
    assert pq.read_table(dataset.files[0], partitioning=None).to_pydict() == {"x": [1]}


# -- what is fetched ------------------------------------------------------------------------------


def test_unchanged_objects_cost_a_listing(bucket: Bucket):
    bucket.fill(e__a=b"1", e__b=b"2")
    first = artifact(f"{bucket.root}/e/")
    assert bucket.count("get") == 2
    bucket.asked.clear()
    assert artifact(f"{bucket.root}/e/") == first
    assert [name for name, _ in bucket.asked] == ["list"]


@pytest.mark.slow
def test_one_object_more_is_fetched_alone(bucket: Bucket):
    bucket.fill(**{f"e__{n}": b"%d" % n for n in range(5)})
    old = artifact(f"{bucket.root}/e")
    bucket.fill(e__new=b"new")
    bucket.asked.clear()
    new = artifact(f"{bucket.root}/e")
    assert bucket.count("get") == 1
    assert files(new) == {**files(old), "new": b"new"}
    bucket.delete("e/0")
    bucket.asked.clear()
    assert set(files(artifact(f"{bucket.root}/e"))) == {"1", "2", "3", "4", "new"}
    assert bucket.count("get") == 0


@pytest.mark.slow
def test_a_changed_object_of_the_same_size_is_fetched_alone(bucket: Bucket):
    bucket.fill(e__a=b"old", e__b=b"2")
    old = artifact(f"{bucket.root}/e")
    bucket.fill(e__a=b"new")
    bucket.asked.clear()
    assert files(artifact(f"{bucket.root}/e")) == {"a": b"new", "b": b"2"}
    assert bucket.count("get") == 1
    assert files(old) == {"a": b"old", "b": b"2"}


@pytest.mark.slow
def test_digests_are_remembered_when_an_object_is_added(bucket: Bucket):
    """They are known by what the file system says of a file: another folder changes nothing."""
    bucket.fill(e__a=b"1")
    before = (artifact(f"{bucket.root}/e") / "a").stat()
    bucket.fill(e__b=b"2")
    assert (artifact(f"{bucket.root}/e") / "a").stat() == before


def test_an_empty_object_is_an_empty_file(bucket: Bucket):
    bucket.fill(e__a=b"", e__b=b"2")
    assert files(artifact(f"{bucket.root}/e")) == {"a": b"", "b": b"2"}


@pytest.mark.slow
def test_an_object_replaced_during_the_download_is_refused(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
):
    bucket.fill(a=b"old")

    def meanwhile(*given: object) -> listing.Listing:
        found = listing.listed(*given)
        bucket.fill(a=b"new")
        return found

    monkeypatch.setattr(fetching, "listed", meanwhile)
    with pytest.raises(ArtifactError, match="was replaced while it was downloaded"):
        artifact(f"{bucket.root}/a")
    monkeypatch.setattr(fetching, "listed", listing.listed)
    assert artifact(f"{bucket.root}/a").read_bytes() == b"new"


@pytest.mark.slow
def test_another_machine_opens_an_object_by_what_was_listed(bucket: Bucket):
    """It has the same environment, and nothing of this process."""
    bucket.fill(e__a=b"1")
    (stored,) = listing.listed(listing.connect(bucket.root), f"{bucket.root}/e").objects.values()
    fields = (stored.root, stored.key, stored.etag, stored.size, stored.version, stored.endpoint)
    os.chdir(os.path.realpath("/tmp"))
    with fetching.fetched(listing.connect(stored.uri), StoredObject(*fields)) as file:
        assert file.read_bytes() == b"1"


@pytest.mark.slow
def test_what_is_too_large_for_the_disk_is_refused_before_it_is_fetched(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
):
    bucket.fill(e__a=b"12345", e__b=b"2")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5))
    with pytest.raises(ArtifactError, match="2 objects are too large for this disk"):
        artifact(f"{bucket.root}/e")
    assert bucket.count("get") == 0
    assert artifact(f"{bucket.root}/e/a").read_bytes() == b"12345"


# -- what stays -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_gc_keeps_what_a_folder_in_use_or_kept_links_to(
    bucket: Bucket, capsys: pytest.CaptureFixture[str]
):
    bucket.fill(e__a=b"1", e__b=b"2", f__c=b"3", f__d=b"4")
    in_another_process(lambda: artifact(f"{bucket.root}/f"))
    used = artifact(f"{bucket.root}/e")
    assert len(objects()) == 4
    assert cli.main(["gc", "--keep", "0"]) == 0
    assert files(used) == {"a": b"1", "b": b"2"}
    assert len(objects()) == 2
    assert capsys.readouterr().out.count("removed .featurestore/objects/") == 2
    bucket.asked.clear()
    assert files(artifact(f"{bucket.root}/f")) == {"c": b"3", "d": b"4"}
    assert bucket.count("get") == 2


@pytest.mark.slow
def test_gc_removes_nothing_while_a_folder_is_made(bucket: Bucket, monkeypatch):
    bucket.fill(e__a=b"1", e__b=b"2")
    in_another_process(lambda: artifact(f"{bucket.root}/e/a"))
    shutil.rmtree(HOME / "downloads")  # nothing links to it
    link, fetched = fetching._link, fetching.fetched

    def slowly(*given: object) -> None:
        link(*given)
        in_another_process(lambda: cli.main(["gc", "--keep", "0"]))

    monkeypatch.setattr(fetching, "_link", slowly)
    assert files(artifact(f"{bucket.root}/e")) == {"a": b"1", "b": b"2"}
    assert fetched is fetching.fetched


@pytest.mark.slow
def test_an_object_that_is_read_stays(bucket: Bucket):
    bucket.fill(a=b"1")
    store = listing.connect(bucket.root)
    (stored,) = listing.listed(store, f"{bucket.root}/a").objects.values()
    with fetching.fetched(store, stored) as file:
        in_another_process(lambda: cli.main(["gc", "--keep", "0"]))
        assert file.read_bytes() == b"1"
    assert cli.main(["gc", "--keep", "0"]) == 0
    assert not list(HOME.rglob("*"))


@pytest.mark.slow
def test_a_harmed_object_is_fetched_again(bucket: Bucket):
    bucket.fill(e__a=b"12345", e__b=b"2")
    in_another_process(lambda: artifact(f"{bucket.root}/e"))
    (harmed,) = (p for p in HOME.glob("objects/*/object") if p.read_bytes() == b"12345")
    harmed.write_bytes(b"1x345")
    bucket.asked.clear()
    with pytest.warns(UserWarning, match="is damaged"):
        assert files(artifact(f"{bucket.root}/e")) == {"a": b"12345", "b": b"2"}
    assert bucket.count("get") == 1


def test_an_object_removed_by_hand_is_fetched_again(bucket: Bucket):
    bucket.fill(e__a=b"1", e__b=b"2")
    artifact(f"{bucket.root}/e")
    shutil.rmtree(next(HOME.glob("objects/*/")))
    bucket.asked.clear()
    with pytest.warns(UserWarning, match="is missing"):
        assert files(artifact(f"{bucket.root}/e")) == {"a": b"1", "b": b"2"}
    assert bucket.count("get") == 1


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
def test_a_reader_needs_no_right_to_write(cloud_bucket: Bucket, monkeypatch: pytest.MonkeyPatch):
    """Of a cache without locks; what is not in it is refused."""
    cloud_bucket.fill(e__a=b"1", f=b"2")
    with tempfile.TemporaryDirectory() as shared:
        monkeypatch.chdir(shared)
        in_another_process(lambda: artifact("gs://cohort/e"))
        for lock in HOME.rglob("*.lock"):
            lock.unlink()
        for entry in (Path(shared), *Path(shared).rglob("*")):
            entry.chmod(0o755 if entry.is_dir() else 0o644)
        with pytest.raises(ArtifactError):  # imports what another user could not
            artifact("gs://cohort/nope")

        def read() -> None:
            os.setgid(65534)
            os.setuid(65534)
            assert files(artifact("gs://cohort/e")) == {"a": b"1"}
            assert cli.main(["gc", "--keep", "0"]) == 0
            assert files(artifact("gs://cohort/e")) == {"a": b"1"}
            with pytest.raises(ArtifactError, match="could not be written"):
                artifact("gs://cohort/f")

        in_another_process(read)


# -- refusals -------------------------------------------------------------------------------------


def test_what_is_not_there_is_refused(bucket: Bucket):
    with pytest.raises(ArtifactError, match="There is no object at"):
        artifact(f"{bucket.root}/nope")
    assert not HOME.exists()


@pytest.mark.slow
def test_a_refusal_ends_the_downloads_that_have_not_begun(bucket: Bucket, monkeypatch):
    bucket.fill(**{f"e__{n:03}": b"1" for n in range(40)})
    monkeypatch.setattr(fetching, "AT_ONCE", 1)
    bring = fetching._bring
    brought: list[str] = []

    def refused(store: object, stored: StoredObject, ended: object, folder: Path) -> None:
        brought.append(stored.key)
        if len(brought) == 2:
            raise ArtifactError("no", found="no", fix="no")
        bring(store, stored, ended, folder)

    monkeypatch.setattr(fetching, "_bring", refused)
    with pytest.raises(ArtifactError, match="no"):
        artifact(f"{bucket.root}/e")
    assert len(brought) <= 3


def test_a_refusal_ends_the_downloads_under_way_and_keeps_what_came(
    cloud_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
):
    """They would go on for hours."""
    cloud_bucket.fill(e__endless=b"12345", e__gone=b"1")
    begun = Event()

    def read(store: object, stored: StoredObject, start: int, stop: int) -> Iterator[bytes]:
        if stored.key == "e/gone":
            assert begun.wait(10)
            raise FileNotFoundError
        while True:
            yield b"1"
            begun.set()

    monkeypatch.setattr(clouds.Cloud, "read", read)
    with pytest.raises(ArtifactError, match="no such bucket or object"):
        artifact("gs://cohort/e")
    assert set(next(HOME.glob("objects/.part-*/object")).read_bytes()) == set(b"1")


@pytest.mark.parametrize(("scheme", "extra"), [("s3", "s3"), ("gs", "gs"), ("az", "az")])
def test_a_scheme_whose_library_is_not_there_names_the_extra(scheme: str, extra: str, monkeypatch):
    for name in ("boto3", "obstore"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(ArtifactError, match=rf"pip install 'tissue-probe\[{extra}\]'"):
        uris.local_path(f"{scheme}://bucket/key")


def test_an_unknown_scheme_is_told_which_are_known():
    with pytest.raises(ArtifactError) as refusal:
        uris.local_path("hdfs://host/key")
    for word in ("s3://", "gs://", "az://", "abfs://", "tissue-probe[gs]"):
        assert word in str(refusal.value)


@pytest.mark.parametrize("uri", ["gs://", "az://container/key", "abfs://container/key"])
def test_a_bucket_that_cannot_be_opened_is_refused(uri: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(ArtifactError, match="cannot be opened"):
        artifact(uri)
