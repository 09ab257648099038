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
    max_slide_rank
        It trains on slides of at most this rank.
    learning_rate, weight_decay, label_smoothing
        As in the configuration.
    """

    variant: Tensor
    fold: Tensor
    max_slide_rank: Tensor
    learning_rate: Tensor
    weight_decay: Tensor
    label_smoothing: Tensor

    def __len__(self) -> int:
        return len(self.variant)

    def select(self, heads: Tensor) -> "HeadSpecs":
        """Return some of the heads."""
        return HeadSpecs(**{name: column[heads] for name, column in vars(self).items()})

    def to(self, device: torch.device) -> "HeadSpecs":
        """Return the columns on a device."""
        return HeadSpecs(**{name: column.to(device) for name, column in vars(self).items()})

    @property
    def training_sets(self) -> Tensor:
        """What decides the tiles that a head trains on, shape (H, 3)."""
        return torch.stack([self.variant, self.fold, self.max_slide_rank], dim=1)

    def by_validation_fold(self) -> list[tuple[int, int, Tensor]]:
        """Return (variant, fold, heads) of the heads that validate on the same tiles."""
        pairs = torch.stack([self.variant, self.fold], dim=1).unique(dim=0).tolist()
        return [
            (variant, fold, ((self.variant == variant) & (self.fold == fold)).nonzero()[:, 0])
            for variant, fold in pairs
        ]


def train_mask(shard: Shard, heads: HeadSpecs) -> Tensor:
    """Return which tiles each head trains on, shape (H, rows)."""
    fold = shard.fold[heads.variant]
    other_folds = (fold != DROPPED) & (fold != heads.fold[:, None])
    return other_folds & (shard.slide_rank <= heads.max_slide_rank[:, None])


def balanced_class_weights(shard: Shard, heads: HeadSpecs, classes: int, reduce: Reduce) -> Tensor:
    """Return each head's class weights, from its own training tiles, shape (H, K)."""
    counts = torch.zeros((len(heads), classes), dtype=torch.int64, device=shard.target.device)
    for block in shard.without_embeddings().blocks():
        target = block.target[heads.variant]
        mask = train_mask(block, heads)
        for index in range(classes):
            counts[:, index] += ((target == index) & mask).sum(dim=1)
    return torch.stack([class_weights(row) for row in reduce(counts)])
