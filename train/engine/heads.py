"""Linear heads side by side: what tells them apart, and which tiles each one trains on."""

from dataclasses import dataclass

import torch
from torch import Tensor

from train.engine.losses import class_weights
from train.engine.shard import DROPPED, Reduce, Shard


@dataclass(frozen=True)
class HeadSpecs:
    """What tells the heads apart, each a tensor of length H.

    Parameters
    ----------
    variant
        Which variant of the rules gives labels and folds.
    fold
        The fold that the head validates on; `DROPPED` for a head that trains on all.
    fraction
        It trains on slides whose draw is at most this.
    rate, decay, smoothing
        Learning rate, weight decay and label smoothing.
    """

    variant: Tensor
    fold: Tensor
    fraction: Tensor
    rate: Tensor
    decay: Tensor
    smoothing: Tensor

    def __len__(self) -> int:
        return len(self.variant)

    def of(self, heads: Tensor) -> "HeadSpecs":
        """Return some of the heads."""
        return HeadSpecs(**{name: column[heads] for name, column in vars(self).items()})

    def on(self, device: torch.device) -> "HeadSpecs":
        """Return the columns on a device."""
        return HeadSpecs(**{name: column.to(device) for name, column in vars(self).items()})

    def groups(self) -> list[tuple[int, int, Tensor]]:
        """Return (variant, fold, heads) of the heads that validate on the same tiles."""
        pairs = torch.stack([self.variant, self.fold], dim=1).unique(dim=0).tolist()
        return [
            (variant, fold, ((self.variant == variant) & (self.fold == fold)).nonzero()[:, 0])
            for variant, fold in pairs
        ]


def train_mask(pool: Shard, heads: HeadSpecs) -> Tensor:
    """Return which tiles each head trains on, shape (H, rows)."""
    fold = pool.fold[heads.variant]
    others = (fold != DROPPED) & (fold != heads.fold[:, None])
    return others & (pool.draw <= heads.fraction[:, None])


def balanced_class_weights(pool: Shard, heads: HeadSpecs, classes: int, total: Reduce) -> Tensor:
    """Return each head's class weights, from its own training tiles, shape (H, K)."""
    counts = torch.zeros((len(heads), classes), dtype=torch.int64, device=pool.target.device)
    for block in pool.bare().blocks():
        target = block.target[heads.variant]
        own = train_mask(block, heads)
        for index in range(classes):
            counts[:, index] += ((target == index) & own).sum(dim=1)
    return torch.stack([class_weights(row) for row in total(counts)])
