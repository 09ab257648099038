"""Heads, the standardising backbone, and checkpoints."""

from pathlib import Path

import pytest
import torch

from featurestore.errors import ArtifactError
from train.models import checkpoint
from train.models.checkpoint import ModelSpec, TrainedModel
from train.models.heads import HEADS


def spec(head: str = "linear", normalize: str = "none") -> ModelSpec:
    return ModelSpec(head, 8, normalize, 5, ["a", 'b"; ü'], [1.0, 2.0])


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("normalize", ["none", "zscore", "l2"])
def test_network_maps_embeddings_to_probabilities(head: str, normalize: str):
    probabilities = spec(head, normalize).build()(torch.randn(4, 5))
    assert probabilities.shape == (4, 2)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(4))


def test_unit_length_forgets_the_length_alone():
    network, x = spec("linear", "l2").build(), torch.randn(4, 5)
    torch.testing.assert_close(network(x), network(7 * x))
    assert network(torch.zeros(1, 5)).isfinite().all()


@pytest.mark.parametrize("head", HEADS)
def test_checkpoint_brings_back_the_same_network(head: str, tmp_path: Path):
    network = spec(head, "zscore").build()
    network.get_submodule("backbone").mean.fill_(3.0)
    model = TrainedModel(network, spec(head, "zscore"))
    file = checkpoint.save(tmp_path / "deep" / checkpoint.FILE, model)
    loaded = checkpoint.load(tmp_path)
    again, read = loaded.network, loaded.spec
    assert read == spec(head, "zscore")
    x = torch.randn(3, 5)
    torch.testing.assert_close(again(x), network(x), rtol=0, atol=0)
    assert [path.name for path in file.parent.iterdir()] == [checkpoint.FILE]


@pytest.mark.parametrize("content", [b"", b"not safetensors at all"])
def test_something_else_is_refused_by_name(content: bytes, tmp_path: Path):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"x\.safetensors is not a checkpoint"):
        checkpoint.load(tmp_path / "x.safetensors")
