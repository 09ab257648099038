"""URIs to Parquet files, digests, and builds that are kept."""

from pathlib import Path

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.errors import ArtifactError, TrackingError
from featurestore.io import atomic, cache, digests, mlflow_artifacts, parquet, uris

TABLE = pa.table({"slide_id": ["s"], "x": [1], "y": [2]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder whose name has a blank, with two Parquet files and something else."""
    place = tmp_path / "my tiles"
    place.mkdir()
    for name in ("b", "a"):
        pq.write_table(TABLE, place / f"{name}.parquet")
    (place / "readme.txt").write_text("no tiles")
    return place


def test_path_folder_glob_and_file_uri_name_the_same_files(folder: Path):
    both = [folder / "a.parquet", folder / "b.parquet"]
    assert parquet.parquet_files(str(folder)) == both
    assert parquet.parquet_files(str(folder / "*.parquet")) == both
    assert parquet.parquet_files(folder.as_uri()) == both
    assert parquet.parquet_files(str(folder / "a.parquet")) == both[:1]


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("{folder}/c.parquet", ["no Parquet file", "a.parquet, b.parquet"]),
        ("{folder}/nowhere/c.parquet", ["no folder"]),
        ("{folder}/*.csv", ["no Parquet file"]),
        ("{folder}/readme.txt", ["not a whole Parquet file", "8 bytes"]),
        ("gopher://x/y", ["gopher:", "runs:/RUN/path"]),
    ],
)
def test_what_is_not_there_is_refused(uri: str, words: list[str], folder: Path):
    with pytest.raises(ArtifactError) as refusal:
        parquet.parquet_files(uri.format(folder=folder))
    for word in words:
        assert word in str(refusal.value)


def test_a_file_cut_off_is_refused_by_name(folder: Path):
    whole = (folder / "b.parquet").read_bytes()
    (folder / "b.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match=r"b\.parquet is not a whole Parquet file"):
        parquet.parquet_files(str(folder))


def test_digest_follows_content_not_place(folder: Path, tmp_path: Path):
    before = digests.digest(parquet.dataset(str(folder)).named)
    copy = tmp_path / "copy"
    folder.rename(copy)
    moved = parquet.dataset(str(copy)).named
    assert digests.digest(moved) == before
    pq.write_table(TABLE.set_column(1, "x", pa.array([5])), copy / "a.parquet")
    assert digests.digest(moved) != before


def test_digest_writes_nothing_when_told_so(folder: Path):
    """What it remembers, and of which files, is told in tests/featurestore/io/test_digests.py."""
    digests.digest(parquet.dataset(str(folder)).named, remember=False)
    assert not atomic.HOME.exists()


def test_a_build_is_made_once():
    made = []

    def build(place: Path) -> None:
        made.append(place)
        (place / "x").write_text("1")

    first = cache.built("thing", "abc", build)
    assert cache.built("thing", "abc", build) == first
    assert cache.built("thing", "def", build) != first
    assert len(made) == 2
    assert (first / "x").read_text() == "1"


def test_a_build_that_fails_leaves_nothing():
    def build(place: Path) -> None:
        (place / "half").write_text("1")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        cache.built("thing", "abc", build)
    assert not atomic.HOME.exists()


@pytest.mark.slow
def test_artifacts_of_a_run_by_uri(tmp_path: Path):
    """Logged once, found by content, read back where it lies."""
    mlflow_artifacts.use_tracking(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert mlflow_artifacts.find_artifact("tiles", "abc") is None
    assert not (tmp_path / "mlflow.db").exists()  # a question writes nothing

    def build(place: Path) -> None:
        (place / "deep").mkdir()
        pq.write_table(TABLE, place / "deep" / "t.parquet")

    root = mlflow_artifacts.logged("tiles", "abc", build)
    assert (
        mlflow_artifacts.find_artifact("tiles", "abc")
        == root
        == mlflow_artifacts.logged("tiles", "abc", build)
    )
    for uri in (f"{root}/deep", f"{root}/deep/t.parquet"):
        [file] = parquet.parquet_files(uri)
        assert pq.read_table(file) == TABLE


@pytest.mark.parametrize(
    "uri",
    ["runs:/0123456789abcdef0123456789abcdef/t.parquet", "models:/no/1", "models:/no@champion"],
)
def test_an_unknown_run_or_model_is_refused(uri: str, tmp_path: Path):
    mlflow_artifacts.use_tracking(f"sqlite:///{tmp_path / 'mlflow.db'}")
    mlflow.set_experiment("e")
    with pytest.raises(ArtifactError, match=f"has no (artifact )?{uri}"):
        uris.local_path(uri)


def test_a_server_that_does_not_answer_is_refused():
    with pytest.raises(TrackingError, match=r"http://127\.0\.0\.1:9 does not answer"):
        mlflow_artifacts.use_tracking("http://127.0.0.1:9")
