"""The weights of a pack of linear heads, and the standardisation that can be moved into them."""

from dataclasses import dataclass

import torch
from torch import Tensor

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

    def of(self, heads: Tensor) -> "LinearHeads":
        """Return some of the heads."""
        return LinearHeads(self.weight[heads], self.bias[heads])

    def on(self, device: torch.device) -> "LinearHeads":
        """Return them on a device."""
        return LinearHeads(self.weight.to(device), self.bias.to(device))

    def copy(self) -> "LinearHeads":
        """Return weights that later steps do not change."""
        return LinearHeads(self.weight.clone(), self.bias.clone())

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of some rows, shape (H, K, rows): what runs over rows is quick."""
        heads, classes, dim = self.weight.shape
        flat = self.weight.reshape(heads * classes, dim).to(x.dtype)
        return matmul(flat, x).float().view(heads, classes, -1) + self.bias[..., None]
