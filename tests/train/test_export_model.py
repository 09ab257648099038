"""Models exported: ONNX and safetensors agree with the registry's, the card says what they are."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import ROOT
from safetensors.numpy import load_file

from train import export
from train.models import checkpoint
from train.models.checkpoint import ModelSpec, TrainedModel

NAMES = ["Connective-Tissue", "Öl & Fett", "50 %"]


def saved(head: str, normalize: str) -> Path:
    """Write a checkpoint of random weights; return its file."""
    torch.manual_seed(0)
    spec = ModelSpec(head, 8, normalize, 12, NAMES, [1.0, 2.0, 3.0], 1.5)
    network = spec.build()
    if normalize == "zscore":
        network.get_submodule("backbone").mean.uniform_()
    return checkpoint.save(Path("in") / checkpoint.FILE, TrainedModel(network, spec))


@pytest.mark.slow
@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("normalize", ["none", "zscore", "l2"])
def test_onnx_gives_the_networks_probabilities(head: str, normalize: str):
    """For any number of rows, from one file that needs no other."""
    file = saved(head, normalize)
    assert export.main([str(file), "output=out"]) == 0
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "README.md", "model.json", "model.onnx", "model.safetensors"
    ]  # fmt: skip
    onnx.checker.check_model("out/model.onnx")
    trained = checkpoint.load(file)
    network, spec = trained.network, trained.spec
    session = onnxruntime.InferenceSession("out/model.onnx")
    for rows in (1, 7, 300):
        batch = np.random.default_rng(rows).normal(size=(rows, 12)).astype(np.float32)
        [probabilities] = session.run(None, {"embedding": batch})
        np.testing.assert_allclose(
            probabilities, network(torch.from_numpy(batch)).numpy(), atol=1e-5
        )
    same = checkpoint.load(Path("out/model.safetensors")).spec
    assert same == spec
    for name, value in load_file("out/model.safetensors").items():
        np.testing.assert_array_equal(value, network.state_dict()[name].numpy())
    content = json.loads(Path("out/model.json").read_text())
    assert (content["classes"], content["dim"]) == (NAMES, 12)
    assert (content["normalize"], content["temperature"]) == (normalize, 1.5)
    card = Path("out/README.md").read_text()
    for name in NAMES:
        assert f"| {name} |" in card


@pytest.mark.slow
def test_a_registered_model_with_its_rules_and_figures(digits_home: Path, tmp_path: Path):
    uri = f"sqlite:///{digits_home / 'mlflow.db'}"
    out = tmp_path / "out"
    assert export.main(["models:/tissue-probe/1", f"tracking.uri={uri}", f"output={out}"]) == 0
    content = json.loads((out / "model.json").read_text())
    assert content["rules"]["thresholds"] == {str(digit): 0.0 for digit in range(10)}
    assert "rounded to the type of its column" in content["rules"]["precision"]
    assert len(content["data"]["embeddings"]) == 64
    assert len(content["commit"]) >= 40
    card = (out / "README.md").read_text()
    assert "| validation | f1_macro | 0.9" in card
    assert content["run"] in card


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["nowhere.safetensors"], ["nowhere.safetensors is not a checkpoint"]),
        ([str(ROOT / "README.md")], ["is not a checkpoint"]),
        (["models:/tissue-probe/9"], ["no models:/tissue-probe/9"]),
        (["runs:/0123/checkpoint.safetensors"], ["no run 0123"]),
        ([], ["One model is exported at a time", "no model"]),
        (["any", "other"], ["One model", "any other"]),
        (["any", "--output", "there"], ["'--output' is not of the form", "output=exported"]),
        (
            ["any", "uri=sqlite:///m.db"],
            ["no configuration key 'uri'", "did you mean 'tracking.uri'"],
        ),
        (["any", "output=there"], ["there is there already", "another folder"]),
    ],
)
def test_refusals(
    argv: list[str], words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    (tmp_path / "there").mkdir()
    uri = f"sqlite:///{tmp_path / 'm.db'}"
    assert export.main([*argv, f"tracking.uri={uri}"]) == 2
    error = capsys.readouterr().err
    for word in words:
        assert word in error
    assert not Path("exported").exists()
    assert not list(Path().glob(".exporting*"))
