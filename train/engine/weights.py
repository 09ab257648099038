"""The weights of linear heads side by side."""

import math
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
        return matmul(flat, x).float().view(heads, classes, -1).add_(self.bias[..., None])


def initial_weights(heads: int, dim: int, classes: int, seed: int) -> LinearHeads:
    """Return the initial weights of `torch.nn.Linear`, the same for all heads.

    What differs between heads is then what they are trained on.
    """
    generator = torch.Generator().manual_seed(seed)  # its own: threads share torch's
    weight = torch.empty((classes, dim))
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
    bound = 1 / math.sqrt(dim)
    bias = torch.empty(classes).uniform_(-bound, bound, generator=generator)
    return LinearHeads(weight.repeat(heads, 1, 1), bias.repeat(heads, 1))
