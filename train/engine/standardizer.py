"""Standardisation of embeddings, which is folded into the weights."""

from dataclasses import dataclass

import torch
from torch import Tensor

from train.engine.heads import HeadSpecs, train_mask
from train.engine.shard import Reduce, Shard
from train.engine.weights import LinearHeads

CONSTANT = 1e-6  # of the largest standard deviation: a dimension below it does not vary


@dataclass(frozen=True)
class Standardizer:
    """Standardisation of the embeddings, a mean and a scale for each head's training tiles.

    The heads learn on ``(x - mean) / scale``; the product is on ``x`` all the same, since the map
    can be folded into the weights, and the gradient pulled back.

    Parameters
    ----------
    mean, scale
        Shape (H, dim).
    """

    mean: Tensor
    scale: Tensor

    def select(self, heads: Tensor) -> "Standardizer":
        """Return that of some heads."""
        return Standardizer(self.mean[heads], self.scale[heads])

    def fold_into(self, weights: LinearHeads) -> LinearHeads:
        """Return the weights that act on embeddings as they are."""
        weight = weights.weight / self.scale[:, None]
        return LinearHeads(weight, weights.bias - torch.einsum("hkd,hd->hk", weight, self.mean))

    def pull_back(self, gradient: LinearHeads) -> LinearHeads:
        """Return the gradient on standardised embeddings, given that on the ones as they are."""
        shifted = gradient.weight - gradient.bias[..., None] * self.mean[:, None]
        return LinearHeads(shifted / self.scale[:, None], gradient.bias)


def fit_standardizer(shard: Shard, heads: HeadSpecs, reduce: Reduce) -> Standardizer:
    """Return mean and standard deviation of each head's training tiles, in two passes.

    Heads of the same tiles share them; sums are in double, around the mean of all tiles, where the
    second moment cancels little. A constant dimension has scale 1: it stays at zero.
    """
    distinct, set_of_head = heads.by_training_set
    device = shard.device

    def moment(power: int, centre: Tensor) -> Tensor:
        sums = torch.zeros((len(distinct), shard.dim + 1), dtype=torch.float64, device=device)
        for block in shard.blocks():
            mask = train_mask(block, distinct).double()
            x = (block.x.to(device).double() - centre) ** power
            sums += mask @ torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        sums = reduce(sums)
        return sums[:, :-1] / sums[:, -1:].clamp(min=1)

    centre = _mean(shard, reduce)
    mean = moment(1, centre)
    scale = (moment(2, centre) - mean**2).clamp(min=0).sqrt()
    scale = torch.where(scale > CONSTANT * scale.max(), scale, 1.0)
    return Standardizer((mean + centre).float()[set_of_head], scale.float()[set_of_head])


def fit_centre(shard: Shard, heads: int, reduce: Reduce) -> Standardizer:
    """Return the mean of all tiles and no scale, the same for every head and on every process.

    For sums and differences that would lose their digits far from zero.
    """
    mean = _mean(shard, reduce).float().repeat(heads, 1)
    return Standardizer(mean, torch.ones_like(mean))


def _mean(shard: Shard, reduce: Reduce) -> Tensor:
    total = torch.zeros(shard.dim, dtype=torch.float64, device=shard.device)
    for block in shard.blocks():
        total += block.x.to(shard.device).double().sum(dim=0)
    return reduce(total) / max(shard.rows, 1)
