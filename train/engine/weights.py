"""The weights of linear heads side by side."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from train.engine.matmul import matmul


@dataclass(frozen=True)
class LinearHeads:
    """The heads' weights: logits = x @ weight' + bias.

    Parameters
    ----------
    weight
        Shape (H, K, dim).
    bias
        Shape (H, K).
    """

    weight: Tensor
    bias: Tensor

    def __len__(self) -> int:
        return len(self.weight)

    def select(self, heads: Tensor) -> "LinearHeads":
        """Return some of the heads."""
        return LinearHeads(self.weight[heads], self.bias[heads])

    def to(self, device: torch.device) -> "LinearHeads":
        """Return them on a device."""
        return LinearHeads(self.weight.to(device), self.bias.to(device))

    def clone(self) -> "LinearHeads":
        """Return weights that later steps do not change."""
        return LinearHeads(self.weight.clone(), self.bias.clone())

    def divided(self, temperature: float) -> "LinearHeads":
        """Return the heads whose logits are those of these, divided by a temperature."""
        return LinearHeads(self.weight / temperature, self.bias / temperature)

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of some rows, shape (H, K, rows): what runs over rows is quick."""
        heads, classes, dim = self.weight.shape
        flat = self.weight.reshape(heads * classes, dim).to(x.dtype)
        return matmul(flat, x).float().view(heads, classes, -1) + self.bias[..., None]


def initial_weights(heads: int, dim: int, classes: int, seed: int) -> LinearHeads:
    """Return torch's own initial weights of a linear layer, the same for all heads.

    What differs between heads is then what they are trained on.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = nn.Linear(dim, classes)
    weight, bias = layer.weight.detach(), layer.bias.detach()
    return LinearHeads(weight.repeat(heads, 1, 1), bias.repeat(heads, 1))
