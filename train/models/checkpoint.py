"""Checkpoints: weights as safetensors, with all that is needed to rebuild the head."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialized
from torch import nn

from featurestore.errors import ArtifactError, EmbeddingError
from featurestore.io.atomic import write_bytes
from train.models.heads import HEADS, backbone, classifier

FILE = "checkpoint.safetensors"


@dataclass(frozen=True)
class ModelSpec:
    """What the weights fit into.

    Parameters
    ----------
    head, hidden, normalize
        As in the configuration.
    dim
        Length of an embedding.
    classes
        Class names, by index.
    weights
        Class weights of the loss it was trained with: no part of the network, kept so that a
        loss computed later means the same.
    temperature
        By which the head's weights are divided, see `train.evaluation.calibration`.
    """

    head: str
    hidden: int
    normalize: str
    dim: int
    classes: list[str]
    weights: list[float]
    temperature: float = 1.0

    def build(self) -> nn.Module:
        """Return the network, its weights yet to be trained or loaded."""
        head = HEADS[self.head](self.dim, len(self.classes), self.hidden)
        return classifier(backbone(self.normalize, self.dim), head)


def save(path: Path, network: nn.Module, blueprint: ModelSpec) -> Path:
    """Write a checkpoint, see `featurestore.io.atomic.write_bytes`."""
    state = {
        name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()
    }
    # Not by `save_file`, whose files nobody else may read.
    write_bytes(path, serialized(state, {"blueprint": json.dumps(dataclasses.asdict(blueprint))}))
    return path


def load(path: Path) -> tuple[nn.Module, ModelSpec]:
    """Read a checkpoint.

    Parameters
    ----------
    path
        The file, or a folder with one below it (a run's or a registered model's).

    Raises
    ------
    ArtifactError
        There is no such file, or it is not a checkpoint of this project.
    """
    file = next(iter(sorted(path.rglob(FILE))), path / FILE) if path.is_dir() else path
    try:
        with safe_open(file, framework="pt") as opened:
            blueprint = ModelSpec(**json.loads((opened.metadata() or {})["blueprint"]))
        network = blueprint.build()
        network.load_state_dict(load_file(file))
    except (OSError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise ArtifactError(
            f"{path} is not a checkpoint",
            found=str(error).splitlines()[0] or type(error).__name__,
            fix=f"set checkpoint to a {FILE}, runs:/RUN/{FILE} or models:/NAME/VERSION",
        ) from error
    return network.eval().requires_grad_(False), blueprint


def check_dimension(blueprint: ModelSpec, dim: int) -> None:
    """Refuse embeddings of another length than the network was trained on.

    Raises
    ------
    EmbeddingError
        They are.
    """
    if dim != blueprint.dim:
        raise EmbeddingError(
            "The checkpoint is for embeddings of another length",
            found=f"{blueprint.dim} in the checkpoint, {dim} in the embeddings",
            fix="name the embeddings that it was trained on, or another checkpoint",
        )


def digest(network: nn.Module, blueprint: ModelSpec) -> str:
    """Return the SHA-256 of a network: of its blueprint and its weights, wherever they lie."""
    found = hashlib.sha256(json.dumps(dataclasses.asdict(blueprint), sort_keys=True).encode())
    for name, value in sorted(network.state_dict().items()):
        found.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def copy_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights as they are now, untouched by later steps."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
