"""Fits that were killed go on from their last epoch, and end as if nothing had happened."""

import signal
import time
from pathlib import Path

import mlflow
import pytest
from conftest import ROOT, environment_with, runs, states
from programs import Program

from featurestore.errors import ArtifactError
from train import probe
from train.runtime.fit_state import FileCheckpointer, read

PROBE = str(ROOT / "train" / "probe.py")


def killed(argv: list[str], home: Path, state: str) -> None:
    """Run the script; kill it without warning once it has kept some epochs."""
    process = Program([PROBE, *argv], home, environment_with({}))
    seen: set[int] = set()
    while len(seen) < 4:
        assert process.poll() is None, "it ended before it was killed"
        for file in home.glob(f".featurestore/fits/*/{state}.pt"):
            seen.add(file.stat().st_mtime_ns)
        time.sleep(0.001)
    process.kill()
    process.communicate()


def terminated(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the script in this process, and send it SIGTERM once it has kept some epochs."""
    save, saved = FileCheckpointer.save, []

    def counted(self: FileCheckpointer) -> None:
        save(self)
        saved.append(1)
        if len(saved) == 4:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(FileCheckpointer, "save", counted)
        assert probe.main(argv) == 128 + signal.SIGTERM


@pytest.mark.slow
@pytest.mark.usefixtures("digits_made")
@pytest.mark.parametrize(
    ("argv", "state"),
    [
        (["fold=4"], "head"),
        (["fold=4", "head=mlp"], "head"),
        (["fold=all", "sweep.learning_rate=[0.001,0.002]", "final=true"], "heads"),
    ],
)
def test_a_killed_job_ends_with_the_same_weights(
    argv: list[str],
    state: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """In the same MLflow run, its epochs without a gap; nothing of its state is left behind."""
    argv = [*argv, "learning_rate=0.001", "min_delta=0", "max_epochs=14", "patience=14",
            "tracking.register=false"]  # fmt: skip
    assert probe.main([*argv, "output=whole", "tracking.enabled=false"]) == 0
    tracked = [*argv, "output=out", f"tracking.uri=sqlite:///{tmp_path / 'mlflow.db'}"]
    if state == "heads":
        killed(tracked, tmp_path, state)
    else:
        terminated(tracked, monkeypatch)
        error = capsys.readouterr().err
        assert error.startswith("terminated; kept: 4 epochs of the fit in .featurestore/fits/")
        assert error.endswith("run the same command with resume=true to go on\n")
        assert states(tmp_path) == ["KILLED"]
    assert probe.main([*tracked, "resume=true"]) == 0
    file = "checkpoint.safetensors"
    assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert states(tmp_path) == ["FINISHED"]
    if state == "head":
        client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
        logged = client.get_metric_history(runs(tmp_path)[0].info.run_id, "validation/loss")
        assert sorted({entry.step for entry in logged}) == list(range(14))
    assert not list(tmp_path.glob(".featurestore/fits/*"))


@pytest.mark.slow
def test_nothing_to_resume(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert probe.main(["fold=4", "resume=true", "tracking.enabled=false", "output=out"]) == 2
    error = capsys.readouterr().err
    for words in ("nothing to resume", "no epoch of this configuration", "leave resume=true out"):
        assert words in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"cut", b"PK\x03\x04 cut"])
def test_a_broken_state_is_refused(content: bytes, tmp_path: Path):
    (tmp_path / "head.pt").write_bytes(content)
    with pytest.raises(ArtifactError, match="is broken"):
        read(tmp_path / "head.pt")
