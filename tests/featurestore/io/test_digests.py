"""Digests of files: remembered of what cannot have changed, and in nothing that is damaged."""

import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TABLES
from snapshots import snapshot

from featurestore.console import cli
from featurestore.embeddings import conversion
from featurestore.errors import ArtifactError, FeatureStoreWarning
from featurestore.io import digest_cache, digests
from featurestore.snapshots import collection, fingerprints

FORK = multiprocessing.get_context("fork")
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Believe at once that a file lies still, as if two seconds had gone by."""
    monkeypatch.setattr(digests, "SETTLED", 0)
    monkeypatch.setattr(digests, "_clock", lambda _: 2**62)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that were read."""
    read, names = digests.sha256, []

    def told(file: Path) -> str:
        names.append(file.name)
        return read(file)

    monkeypatch.setattr(digests, "sha256", told)
    return names


def written(name: str, content: str) -> Path:
    Path(name).write_text(content)
    return Path(name)


def forget() -> None:
    """Be another process."""
    digests._HASHED.clear()


def rewritten(file: Path) -> None:
    file.write_text("xyz")


def renamed(file: Path) -> None:
    written("fresh", "xyz").replace(file)


@pytest.mark.parametrize("replace", [rewritten, renamed])
@pytest.mark.parametrize("same", [True, False])
def test_a_file_replaced_under_its_size_and_time_is_another(
    replace: Callable[[Path], None], same: bool, settled: None
):
    """In this process and in the next one."""
    file = written("a", "abc")
    before = [digests.digest({"a": file}), digests.stamp({"a": file})]
    stat = file.stat()
    replace(file)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    if not same:
        forget()
    assert file.stat().st_mtime_ns == stat.st_mtime_ns
    assert digests.digest({"a": file}) != before[0]
    assert digests.stamp({"a": file}) != before[1]


@pytest.mark.slow
def test_embeddings_replaced_under_their_size_and_time_are_read(artifacts: TABLES, settled: None):
    named = artifacts()
    file = Path(named["data.embeddings"])
    table, flat = pq.read_table(file), {"compression": "none", "use_dictionary": False}
    pq.write_table(table, file, **flat)
    old, stat = snapshot(named), file.stat()
    backwards = pa.array([[float(n % 2), 1.0, float(11 - n)] for n in range(12)])
    backwards = backwards.cast(table.schema.field("embedding").type)
    pq.write_table(table.set_column(3, "embedding", backwards), file, **flat)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file.stat().st_size == stat.st_size
    new = snapshot(named)
    assert new.digest != old.digest
    assert new.fit_set(1).matrix.read_rows(pa.array([3]).to_numpy())[0].tolist() == [1.0, 1.0, 8.0]


def test_what_lies_still_is_read_once(settled: None, hashed: list[str]):
    files = {"a": written("a", "abc"), "b": written("b", "b")}
    first = digests.digest(files)
    assert digests.sums(files.values())[Path("a")] == ABC
    forget()
    assert digests.digest(files) == first
    assert sorted(hashed) == ["a", "b"]


def test_a_file_younger_than_two_seconds_is_read_again(hashed: list[str]):
    file = written("a", "abc")
    for _ in range(2):
        digests.digest({"a": file})
    assert hashed == ["a", "a"]
    assert not digest_cache.load([digests.identity(file)])


def cut(file: Path) -> None:
    os.truncate(file, 1000)


def foreign(file: Path) -> None:
    file.write_bytes(b"no database of anybody's" * 100)


def empty(file: Path) -> None:
    os.truncate(file, 0)


def flipped(file: Path) -> None:
    content = file.read_bytes()
    place = content.index(ABC.encode())
    file.write_bytes(content[:place] + b"c" + content[place + 1 :])


@pytest.mark.filterwarnings("ignore:.*is damaged")
@pytest.mark.parametrize("damage", [cut, foreign, empty, flipped])
def test_a_damaged_memory_is_made_anew(
    damage: Callable[[Path], None], settled: None, hashed: list[str]
):
    files = {"a": written("a", "abc")}
    first = digests.digest(files)
    damage(Path(".featurestore") / digest_cache.FILE)
    for _ in range(3):
        forget()
        assert digests.digest(files) == first
    assert len(hashed) == 2  # once more, and remembered again


def test_what_is_no_memory_is_set_aside_in_words(settled: None):
    digests.digest({"a": written("a", "abc")})
    foreign(Path(".featurestore") / digest_cache.FILE)
    forget()
    with pytest.warns(FeatureStoreWarning, match=r"digests.db is damaged .*set aside as .broken-"):
        digests.digest({"a": Path("a")})


def remember(numbers: range) -> None:
    for number in numbers:
        digests.digest({"one": Path(str(number))})


@pytest.mark.slow
def test_processes_that_write_at_once_lose_nothing(settled: None):
    files = [written(str(number), str(number)) for number in range(40)]
    workers = [FORK.Process(target=remember, args=(range(n, 40, 4),)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(digest_cache.load(map(digests.identity, files))) == 40


def test_entries_of_files_that_are_gone_go(settled: None, capsys: pytest.CaptureFixture[str]):
    kept, gone = written("kept", "k"), written("gone", "g")
    digests.digest({"kept": kept, "gone": gone})
    was = digests.identity(gone)
    gone.unlink()
    assert cli.main(["gc"]) == 0
    assert "forgot the digests of 1 files" in capsys.readouterr().out
    assert list(digest_cache.load([digests.identity(kept), was])) == [digests.identity(kept)]


@pytest.mark.slow
def test_verify_reads_again_what_is_remembered(
    artifacts: TABLES, settled: None, capsys: pytest.CaptureFixture[str]
):
    """What was remembered of other bytes, as of a disk that has lost some, is corrected."""
    named = artifacts()
    Path("config.yaml").write_text(
        "class_indices: {Fat: 0, Muscle: 1}\nthresholds: {Fat: 0.5, Muscle: 0.5}\n"
        f"data: {{tiles: {named['data.tiles']}, embeddings: {named['data.embeddings']}}}\n"
    )
    snapshot(named)
    command = ["--config", "config.yaml", "check", "--verify"]
    assert cli.main(command) == 0
    file = Path(named["data.embeddings"])
    digest_cache.save({file: (digests.identity(file), "0" * 64)})
    forget()
    capsys.readouterr()
    assert cli.main(command) == 2
    said = capsys.readouterr().out
    assert "embeddings" in said
    assert "1 error, 0 warnings" in said
    forget()
    assert cli.main(command) == 0


@pytest.mark.slow
def test_what_changes_while_it_is_read_is_refused(
    artifacts: TABLES, monkeypatch: pytest.MonkeyPatch
):
    named, convert = artifacts(), conversion.convert

    def late(*given: object) -> object:
        converted = convert(*given)  # type: ignore[arg-type]
        artifacts(None, {"embedding": [[9.0, 9.0, 9.0]] * 12})
        return converted

    monkeypatch.setattr(conversion, "convert", late)
    with pytest.raises(
        ArtifactError, match=r"(embeddings|tiles) were changed since this store first read"
    ):
        snapshot(named)
    assert not collection.names()
    assert not list(Path(".featurestore").glob("parts/*"))


# -- what is meant ------------------------------------------------------------------------------

CODE = b'''"""A module."""
def one(x):
    """A function."""
    return x + 1  # more
'''


def test_comments_are_no_code():
    bare = b"def one(x): return x+1"
    assert fingerprints.of_source(CODE) == fingerprints.of_source(bare)
    assert fingerprints.of_source(CODE.replace(b"+ 1", b"+ 2")) != fingerprints.of_source(bare)


FATES = {
    "slide_id": ["a", "a", "ä", ""],
    "x": [0, 1, 0, 0],
    "y": [0, 0, 0, 7],
    "label": ["Fat", "background", "Fat", "Muscle"],
    "target": [0, None, 0, 1],
    "fold": [1, None, 0, 0],
    "dropped_by": [None, "background", "", None],
}


def rows(table: pa.Table, **how: int) -> str:
    pq.write_table(table, "fates.parquet", **how)
    return fingerprints.of_rows([Path("fates.parquet")])


def test_rows_are_the_same_in_any_file():
    table = pa.table(FATES)
    first = rows(table)
    assert rows(table, row_group_size=1) == first
    assert rows(table.append_column("patient_id", pa.array([1, 2, 3, 4]))) == first
    assert rows(table.select(table.column_names[::-1])) == first
    kinds = {"slide_id": pa.dictionary(pa.int32(), pa.string()), "label": pa.large_string(),
             "x": pa.int32(), "fold": pa.int8()}  # fmt: skip
    for name, kind in kinds.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, table[name].combine_chunks().cast(kind))
    assert rows(table) == first


@pytest.mark.parametrize("name", FATES)
def test_rows_that_differ_in_anything_are_others(name: str):
    first, seen = rows(pa.table(FATES)), set()
    for row in range(4):
        for other in (None, *FATES[name]):
            column = [*FATES[name][:row], other, *FATES[name][row + 1 :]]
            if column != FATES[name]:
                seen.add((tuple(column), rows(pa.table({**FATES, name: column}))))
    assert first not in {digest for _, digest in seen}
    assert len({digest for _, digest in seen}) == len({column for column, _ in seen})


def test_a_copy_of_the_artifact_has_the_same_digest(artifacts: TABLES, tmp_path: Path):
    file = Path(artifacts()["data.tiles"])
    shutil.copy(file, tmp_path / "copy")
    assert digests.digest({"tiles": file}) == digests.digest({"tiles": tmp_path / "copy"})
