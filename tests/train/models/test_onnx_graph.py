"""A model as ONNX is asked for with its fit, and refused before it where it cannot be written."""

import importlib.util
from pathlib import Path

import pytest
from conftest import TABLES
from refused import arguments

from featurestore.errors import ConfigError
from train import probe
from train.config.load import load


def test_without_the_library_nothing_begins(
    artifacts: TABLES, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "onnx" else find(name)
    )
    argv = arguments(artifacts(), "fold=1", "tracking.onnx=true", "output=out")
    assert probe.main(argv) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "cannot be written as ONNX" in error
    assert "no onnx" in error
    assert "tissue-probe[export]" in error
    assert not Path("out").exists()
    assert not Path("mlflow.db").exists()


def test_votes_are_no_graph():
    with pytest.raises(ConfigError, match="Votes of neighbours"):
        load(["fold=1", "probe=knn", "tracking.onnx=true"])
