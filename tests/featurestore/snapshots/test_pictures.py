"""Pictures of a cohort: drawn once with its snapshot, gone with it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from featurestore.io import cache
from featurestore.snapshots import pictures
from featurestore.snapshots.layout import SNAPSHOTS


def snapshot(name: str) -> Any:
    folder = cache.place(SNAPSHOTS, name)
    folder.mkdir(parents=True, exist_ok=True)
    return SimpleNamespace(digest=name * 4, folder=folder)


def test_they_are_drawn_once_and_go_with_their_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    calls: list[Path] = []

    def draw(folder: Path) -> None:
        calls.append(folder)
        (folder / "slides.png").write_bytes(b"PNG")

    one = snapshot("one")
    [file] = pictures.drawn(one, draw)
    assert file.read_bytes() == b"PNG"
    assert pictures.drawn(one, draw) == [file]
    pictures.drawn(snapshot("two"), draw)
    assert len(calls) == 2
    assert pictures.collect() == []
    one.folder.rmdir()
    assert pictures.collect() == []  # this process has them in use
    cache.release(file)
    assert [folder.absolute() for folder in pictures.collect()] == [file.parent.absolute()]
    assert not file.exists()


def test_other_code_draws_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    one, calls = snapshot("one"), []
    pictures.drawn(one, calls.append)
    monkeypatch.setattr(pictures, "CODE", (*pictures.CODE, "views/folds"))
    pictures.drawn(one, calls.append)
    assert len(calls) == 2
