"""The weights of a pack of linear heads, and the standardisation that can be moved into them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from train.engine.matmul import times


@dataclass(frozen=True)
class Affine:
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

    def of(self, heads: Tensor) -> "Affine":
        """Return some of the heads."""
        return Affine(self.weight[heads], self.bias[heads])

    def on(self, device: torch.device) -> "Affine":
        """Return them on a device."""
        return Affine(self.weight.to(device), self.bias.to(device))

    def copy(self) -> "Affine":
        """Return weights that later steps do not change."""
        return Affine(self.weight.clone(), self.bias.clone())

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of some rows, shape (H, K, rows): what runs over rows is quick."""
        heads, classes, dim = self.weight.shape
        flat = self.weight.reshape(heads * classes, dim).to(x.dtype)
        return times(flat, x).float().view(heads, classes, -1) + self.bias[..., None]
