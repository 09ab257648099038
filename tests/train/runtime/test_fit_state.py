"""Fits that were killed go on from their last epoch, and end as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
import torch
from conftest import ROOT, runs, states
from packs import MANY, aims, plan, pool, same, start

from featurestore.errors import ArtifactError
from train import probe
from train.engine.standardizer import fit_standardizer
from train.engine.trainer import FitResult, train
from train.runtime.fit_state import FileCheckpointer, read

__all__ = ["pool"]  # a fixture
PROBE = str(ROOT / "train" / "probe.py")


class KilledError(Exception):
    """Stands for the end of a process."""


class Brief:
    """A memory in a file, whose process dies after some epochs."""

    def __init__(self, file: Path, epochs: int) -> None:
        self.file, self.left = file, epochs

    def recall(self):
        return torch.load(self.file, weights_only=True) if self.file.exists() else None

    def keep(self, state) -> None:
        torch.save(state(), self.file)
        self.left -= 1
        if not self.left:
            raise KilledError


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("epochs", [1, 3, 5])
def test_heads_are_bit_for_bit_the_same(pool, tmp_path: Path, epochs: int, optimizer: str):
    """Heads have stopped by then and others have not; the last kill is after the last epoch."""
    own, how = aims(pool, MANY), plan(9, patience=1)
    how = type(how)(optimizer, how.batch, how.epochs, how.patience, 1e-2, how.seed)
    body = fit_standardizer(pool, MANY, same)

    def fit(memory: Brief | None) -> FitResult:
        return train(pool, MANY, own, start(len(MANY)), how, same, body, memory=memory)

    whole = fit(None)
    with pytest.raises(KilledError):
        fit(Brief(tmp_path / "state.pt", epochs))
    resumed = fit(Brief(tmp_path / "state.pt", 99))
    assert torch.equal(resumed.affine.weight, whole.affine.weight)
    assert torch.equal(resumed.affine.bias, whole.affine.bias)
    assert torch.equal(resumed.epoch, whole.epoch)
    assert torch.equal(resumed.loss, whole.loss)


def killed(argv: list[str], home: Path, state: str) -> None:
    """Run the script; kill it without warning once it has kept some epochs."""
    process = subprocess.Popen(
        [sys.executable, PROBE, *argv], cwd=home, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env={k: v for k, v in os.environ.items() if "MLFLOW" not in k},
    )  # fmt: skip
    seen: set[int] = set()
    while len(seen) < 4:
        assert process.poll() is None, "it ended before it was killed"
        for file in home.glob(f".featurestore/fits/*/{state}.pt"):
            seen.add(file.stat().st_mtime_ns)
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()


def terminated(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the script in this process, and send it SIGTERM once it has kept some epochs."""
    keep, kept = FileCheckpointer.keep, []

    def counted(self: FileCheckpointer, state) -> None:
        keep(self, state)
        kept.append(1)
        if len(kept) == 4:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(FileCheckpointer, "keep", counted)
        assert probe.main(argv) == 128 + signal.SIGTERM


@pytest.mark.slow
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
        said = capsys.readouterr().err
        assert said.startswith("terminated; kept: 4 epochs of the fit in .featurestore/fits/")
        assert said.endswith("run the same command with resume=true to go on\n")
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
    said = capsys.readouterr().err
    for words in ("nothing to resume", "no epoch of this configuration", "leave resume=true out"):
        assert words in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"cut", b"PK\x03\x04 cut"])
def test_a_broken_state_is_refused(content: bytes, tmp_path: Path):
    (tmp_path / "head.pt").write_bytes(content)
    with pytest.raises(ArtifactError, match="is broken"):
        read(tmp_path / "head.pt")
