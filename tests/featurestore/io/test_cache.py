"""The cache: whole folders or none, one builder at a time, nothing removed while it is used."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from featurestore.errors import ArtifactError, EmptyViewError
from featurestore.io import cache

FORK = multiprocessing.get_context("fork")


def write(folder: Path) -> None:
    (folder / "content").write_text("whole")


def test_built_once_then_found():
    built: list[Path] = []
    first = cache.get_or_build(
        "things", "a" * 64, lambda folder: (built.append(folder), write(folder))
    )
    again = cache.get_or_build("things", "a" * 64, lambda folder: built.append(folder))
    assert len(built) == 1
    assert first.folder == again.folder == Path(".featurestore/things") / ("a" * 16)
    assert (again.folder / "content").read_text() == "whole"


@pytest.mark.parametrize("error", [EmptyViewError("w", found="f", fix="x"), KeyboardInterrupt()])
def test_a_build_that_fails_leaves_nothing(error: BaseException, tmp_path: Path):
    def fail(folder: Path) -> None:
        write(folder)
        raise error

    with pytest.raises(type(error)):
        cache.get_or_build("things", "a" * 64, fail)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path: Path):
    def fail(folder: Path) -> None:
        write(folder)
        raise OSError(28, os.strerror(28))

    with pytest.raises(ArtifactError, match="No space left on device") as refusal:
        cache.get_or_build("things", "a" * 64, fail)
    assert "featurestore gc" in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def _build_slowly(log: str) -> None:
    def build(folder: Path) -> None:
        with Path(log).open("a") as file:
            file.write("built\n")
        time.sleep(0.3)
        write(folder)

    held = cache.get_or_build("things", "a" * 64, build)
    assert (held.folder / "content").read_text() == "whole"


def test_two_at_once_both_succeed_and_leave_one(tmp_path: Path):
    workers = [FORK.Process(target=_build_slowly, args=("log",)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert Path("log").read_text() == "built\n"
    assert cache.names("things") == ["a" * 16]


def test_what_is_in_use_is_not_removed():
    mine = cache.get_or_build("things", "a" * 64, write)
    assert cache.in_use(mine.folder)
    assert not cache.remove(mine.folder)
    assert (mine.folder / "content").exists()
    mine.lock.close()
    assert not cache.in_use(mine.folder)
    assert cache.remove(mine.folder)
    assert list(mine.folder.parent.parent.rglob("*")) == []


def _wait_for_it(queue: "multiprocessing.Queue[str]") -> None:
    held = cache.get_or_build("things", "a" * 64, write)
    queue.put("held")
    time.sleep(60)
    held.lock.close()


def test_a_killed_reader_holds_nothing():
    queue = FORK.Queue()
    reader = FORK.Process(target=_wait_for_it, args=(queue,))
    reader.start()
    queue.get(timeout=10)
    folder = cache.place("things", "a" * 64)
    assert not cache.remove(folder)
    reader.kill()
    reader.join()
    assert cache.remove(folder)


def test_the_last_used_comes_first():
    for digest in "abc":
        cache.get_or_build("things", digest * 64, write).lock.close()
        time.sleep(0.02)
    cache.get_or_build("things", "a" * 64, write).lock.close()
    cache.in_use(cache.place("things", "b" * 64))  # to look is not to use
    assert [name[0] for name in cache.names("things")] == ["a", "c", "b"]


def test_what_a_killed_writer_left_is_swept_by_the_next():
    def die(folder: Path) -> None:
        write(folder)
        os._exit(9)

    worker = FORK.Process(target=cache.get_or_build, args=("things", "a" * 64, die))
    worker.start()
    worker.join()
    left = list(Path(".featurestore/things").glob(".building-*"))
    assert len(left) == 1
    assert cache.names("things") == []
    cache.get_or_build("things", "a" * 64, write)
    assert not left[0].exists()


def test_a_file_in_the_way_is_told_as_one(tmp_path: Path):
    (tmp_path / ".featurestore").write_text("")
    with pytest.raises(ArtifactError, match="is no folder") as refusal:
        cache.get_or_build("things", "0123456789abcdef", lambda folder: None)
    assert "make room" not in str(refusal.value)
