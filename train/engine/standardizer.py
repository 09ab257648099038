"""Standardisation of embeddings, which is folded into the weights."""

from dataclasses import dataclass

import torch
from torch import Tensor

from train.engine.heads import HeadSpecs, train_mask
from train.engine.shard import Reduce, Shard
from train.engine.weights import LinearHeads


@dataclass(frozen=True)
class Standardizer:
    """Standardisation of the embeddings, a mean and a scale for each head's training tiles.

    The heads learn on ``(x - mean) / scale``; the product is on ``x`` all the same, since the map
    can be moved into the weights, and the gradient back.

    Parameters
    ----------
    mean, scale
        Shape (H, dim).
    """

    mean: Tensor
    scale: Tensor

    def of(self, heads: Tensor) -> "Standardizer":
        """Return that of some heads."""
        return Standardizer(self.mean[heads], self.scale[heads])

    def moved(self, affine: LinearHeads) -> LinearHeads:
        """Return the weights that act on embeddings as they are."""
        weight = affine.weight / self.scale[:, None]
        return LinearHeads(weight, affine.bias - torch.einsum("hkd,hd->hk", weight, self.mean))

    def back(self, gradient: LinearHeads) -> LinearHeads:
        """Return the gradient on standardised embeddings, given that on the ones as they are."""
        shifted = gradient.weight - gradient.bias[..., None] * self.mean[:, None]
        return LinearHeads(shifted / self.scale[:, None], gradient.bias)


def fit_standardizer(pool: Shard, heads: HeadSpecs, total: Reduce) -> Standardizer:
    """Return mean and standard deviation of each head's training tiles, in two passes.

    Heads of the same tiles share them; sums are in double, around the mean of all tiles, where the
    second moment cancels little.
    """
    tiles = torch.stack([heads.variant, heads.fold, heads.fraction], dim=1)
    kinds, kind = tiles.unique(dim=0, return_inverse=True)
    some = heads.of(torch.stack([(kind == k).nonzero()[0, 0] for k in range(len(kinds))]))
    device = pool.target.device

    def moment(power: int, centre: Tensor) -> Tensor:
        sums = torch.zeros((len(some), pool.x.shape[1] + 1), dtype=torch.float64, device=device)
        for block in pool.blocks():
            own = train_mask(block, some).double()
            x = (block.x.to(device).double() - centre) ** power
            sums += own @ torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        sums = total(sums)
        return sums[:, :-1] / sums[:, -1:].clamp(min=1)

    everything = torch.zeros(pool.x.shape[1], dtype=torch.float64, device=device)
    for block in pool.blocks():
        everything += block.x.to(device).double().sum(dim=0)
    centre = total(everything) / max(pool.rows, 1)
    mean = moment(1, centre)
    scale = (moment(2, centre) - mean**2).clamp(min=0).sqrt()
    scale = torch.where(scale > 1e-6 * scale.max(), scale, 1.0)  # a constant dimension stays at 0
    return Standardizer((mean + centre).float()[kind], scale.float()[kind])
