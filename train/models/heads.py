"""Heads by name, and the network that is registered: backbone, head, probabilities."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional


class Standardize(nn.Module):
    """The backbone of ``normalize=zscore``: ``(x - mean) / scale`` per dimension.

    Parameters
    ----------
    mean, scale
        Shape (dim,), fitted on training tiles; kept in the state, so that a checkpoint is whole.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """Map embeddings (rows, dim) to standardised ones."""
        return (x - self.mean) / self.scale


class Unit(nn.Module):
    """The backbone of ``normalize=l2``: each embedding divided by its length; zero stays zero."""

    def forward(self, x: Tensor) -> Tensor:
        """Map embeddings (rows, dim) to ones of length 1."""
        return functional.normalize(x, dim=-1)


def linear(dim: int, classes: int, hidden: int) -> nn.Module:
    """Return one affine map: the linear probe."""
    return nn.Linear(dim, classes)


def mlp(dim: int, classes: int, hidden: int) -> nn.Module:
    """Return one hidden layer of ``hidden`` GELU units."""
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, classes))


NOT_FINITE = "An embedding holds NaN, infinite values or null: send finite numbers"
HEADS = {"linear": linear, "mlp": mlp}


def build_backbone(normalize: str, dim: int) -> nn.Module:
    """Return what comes before a head; the buffers of a `Standardize` are still to be filled."""
    if normalize == "zscore":
        return Standardize(torch.zeros(dim), torch.ones(dim))
    return Unit() if normalize == "l2" else nn.Identity()


class Finite(nn.Module):
    """What comes before a network that is served: refuses NaN and infinite values.

    The check is exported with the graph and acts in the registry, where nothing of this project is.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return embeddings (rows, dim) as they are; on the CPU, raise where one is not finite."""
        torch._assert_async(x.isfinite().all(), NOT_FINITE)
        return x


def classifier(backbone: nn.Module, head: nn.Module) -> nn.Module:
    """Join backbone, head and softmax: embeddings (rows, dim) -> probabilities (rows, classes)."""
    softmax = nn.Softmax(dim=-1)
    return nn.Sequential(OrderedDict(backbone=backbone, head=head, probabilities=softmax))
