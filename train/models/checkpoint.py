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
from train.models.heads import HEADS, build_backbone, classifier
from train.models.training import Training

FILE = "checkpoint.safetensors"
BLUEPRINT, TRAINING, ENCODER, SNAPSHOT = "blueprint", "training", "encoder", "snapshot"
"""What the header of the file holds as JSON, beside the shapes of the weights."""


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
        return classifier(build_backbone(self.normalize, self.dim), head)


@dataclass(frozen=True)
class TrainedModel:
    """A network with its trained weights, and what they fit into.

    Parameters
    ----------
    network
        Embeddings (rows, dim) to probabilities (rows, classes).
    spec
        Of the network.
    training
        How it was trained; None where that is not known, as of earlier checkpoints.
    encoder
        Of several encoders, the one on whose embeddings it was trained; else None.
    snapshot
        The digest of the snapshot that it was trained on; None where that is not known.
    """

    network: nn.Module
    spec: ModelSpec
    training: Training | None = None
    encoder: str | None = None
    snapshot: str | None = None

    @property
    def digest(self) -> str:
        """The SHA-256 of the spec and the weights, wherever these lie."""
        digest = hashlib.sha256(json.dumps(dataclasses.asdict(self.spec), sort_keys=True).encode())
        for name, value in sorted(self.network.state_dict().items()):
            digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def save(path: Path, model: TrainedModel) -> Path:
    """Write a checkpoint, see `featurestore.io.atomic.write_bytes`."""
    state = {
        name: value.detach().cpu().contiguous()
        for name, value in model.network.state_dict().items()
    }
    # Not by `save_file`, whose files nobody else may read.
    described = dataclasses.asdict(model.spec)
    if model.training:
        described[TRAINING] = dataclasses.asdict(model.training)
    if model.encoder:
        described[ENCODER] = model.encoder
    if model.snapshot:
        described[SNAPSHOT] = model.snapshot
    # One entry: safetensors writes several in any order, and the file would have many digests.
    write_bytes(path, serialized(state, {BLUEPRINT: json.dumps(described)}))
    return path


def load(path: Path) -> TrainedModel:
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
            metadata = opened.metadata() or {}
        described = json.loads(metadata[BLUEPRINT])
        training = Training(**described.pop(TRAINING)) if TRAINING in described else None
        encoder, snapshot = described.pop(ENCODER, None), described.pop(SNAPSHOT, None)
        spec = ModelSpec(**described)
        network = spec.build()
        network.load_state_dict(load_file(file))
    except (OSError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise ArtifactError(
            f"{path} is not a checkpoint",
            found=str(error).splitlines()[0] or type(error).__name__,
            fix=f"set checkpoint to a {FILE}, runs:/RUN/{FILE} or models:/NAME/VERSION",
        ) from error
    network = network.eval().requires_grad_(False)
    return TrainedModel(network, spec, training, encoder, snapshot)


def check_dimension(spec: ModelSpec, dim: int) -> None:
    """Refuse embeddings of another length than the network was trained on.

    Raises
    ------
    EmbeddingError
        They are.
    """
    if dim != spec.dim:
        raise EmbeddingError(
            "The checkpoint is for embeddings of another length",
            found=f"{spec.dim} in the checkpoint, {dim} in the embeddings",
            fix="name the embeddings that it was trained on, or another checkpoint",
        )


def copy_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights as they are now, untouched by later steps."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
