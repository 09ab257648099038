"""Runs side by side in one folder: each has a state of its own, and an output is one run's."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TABLES

from featurestore.errors import ArtifactError
from featurestore.io import cache
from train import probe
from train.runtime import run_locks
from train.runtime.fit_state import FileCheckpointer

Probe = Callable[..., int]
BASE = Path("fits/0123456789abcdef")


def resumable(folder: Path) -> bool:
    return (folder / "head.pt").exists()


def left(folder: Path) -> None:
    """Leave a state."""
    folder.mkdir(parents=True)
    (folder / "head.pt").write_text("state")


@pytest.mark.parametrize("resume", [False, "auto"])
def test_a_second_run_gets_a_state_of_its_own(resume: bool | str):
    first, one, _ = run_locks.lock_state(BASE, False, resumable)
    left(first)
    second, two, goes_on = run_locks.lock_state(BASE, resume, resumable)
    third, three, _ = run_locks.lock_state(BASE, False, resumable)
    assert not goes_on
    names = [folder.name for folder in (first, second, third)]
    assert names == [BASE.name, f"{BASE.name}-2", f"{BASE.name}-3"]
    assert cache.in_use(first)  # `featurestore gc` leaves it alone
    assert not cache.remove(first)
    for taken in (one, two, three):
        taken.close()
    assert sorted(path.name for path in Path("fits").iterdir()) == [BASE.name]


def test_what_is_still_running_is_not_resumed():
    folder, taken, _ = run_locks.lock_state(BASE, False, resumable)
    left(folder)
    with pytest.raises(ArtifactError) as refusal:
        run_locks.lock_state(BASE, True, resumable)
    assert "still running" in str(refusal.value)
    assert f"process {os.getpid()} on {socket.gethostname()} works in {folder}" in str(
        refusal.value
    )
    taken.close()
    assert run_locks.lock_state(BASE, True, resumable)[::2] == (BASE, True)


def test_a_killed_run_is_resumed_beside_one_that_runs():
    one = run_locks.lock_state(BASE, False, resumable)[1]
    two = run_locks.lock_state(BASE, False, resumable)
    left(BASE)
    left(two[0])
    two[1].close()  # as the system does for who is killed
    place, _, goes_on = run_locks.lock_state(BASE, True, resumable)
    assert (place, goes_on) == (two[0], True)
    one.close()


@pytest.mark.slow
def test_the_lock_of_a_killed_process_goes_with_it():
    code = (
        "import os, signal; from pathlib import Path; from featurestore.io import locks\n"
        f"lock = locks.try_lock(Path({str(BASE) + '.lock'!r}))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert BASE.with_suffix(".lock").exists()
    folder, taken, _ = run_locks.lock_state(BASE, False, resumable)
    assert folder == BASE
    taken.close()
    assert not Path("fits").exists() or not list(Path("fits").iterdir())


def test_an_output_is_one_runs():
    taken = run_locks.lock_output(Path("new/out"))
    with pytest.raises(ArtifactError, match="Another run writes to new/out"):
        run_locks.lock_output(Path("new/out"))
    taken.close()
    assert not Path("new").exists()  # nothing was written
    Path("file").write_text("")
    with pytest.raises(ArtifactError, match="file cannot be written"):
        run_locks.lock_output(Path("file"))


@pytest.fixture
def fit(artifacts: TABLES, tmp_path: Path) -> Probe:
    """Return a function that fits six epochs on twelve tiles, with further arguments."""
    (tmp_path / "own.yaml").write_text(
        "data: {name: own}\nmax_epochs: 6\npatience: 6\nmin_delta: 0\n"
        "class_indices: {Fat: 0, Muscle: 1}\nthresholds: {Fat: 0.5, Muscle: 0.5}\n"
    )
    (tmp_path / "none.yaml").write_text("{}")
    named = [f"{key}={value}" for key, value in artifacts().items()]
    argv = ["data=own.yaml", "classes=none.yaml", "fold=1", "tracking.enabled=false", *named]
    return lambda *more: probe.main([*argv, *more])


@pytest.mark.slow
def test_two_fits_of_one_configuration_in_one_folder(
    fit: Probe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The second begins and ends in the midst of the first; both end as if alone."""
    save = FileCheckpointer.save
    others = [
        (["output=out"], 2, "Another run writes to out"),
        (["resume=true"], 2, "What is to be resumed is still running"),
        (["output=second"], 0, ""),
    ]

    def between(self: FileCheckpointer) -> None:
        save(self)
        if self.epochs == 3 and others:
            rest, others[:] = list(others), []
            for argv, status, words in rest:
                assert fit(*argv) == status
                error = capsys.readouterr().err
                assert words in error
                assert not words or f"process {os.getpid()} on" in error

    monkeypatch.setattr(FileCheckpointer, "save", between)
    assert fit("output=out") == 0
    assert not others
    names = {path.name for path in Path("out").iterdir()}
    assert names == {path.name for path in Path("second").iterdir()}
    assert ".running" not in names
    file = "checkpoint.safetensors"
    assert Path("out", file).read_bytes() == Path("second", file).read_bytes()
    assert not list(Path(".featurestore").glob("fits/*"))
