"""Linear heads side by side: what tells them apart, which tiles each trains on, what they weigh."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property

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
        return self._mapped(lambda column: column[heads])

    def to(self, device: torch.device) -> "HeadSpecs":
        """Return the columns on a device."""
        return self._mapped(lambda column: column.to(device))

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> "HeadSpecs":
        names = [field.name for field in fields(self)]
        return HeadSpecs(**{name: change(getattr(self, name)) for name in names})

    @property
    def training_sets(self) -> Tensor:
        """What decides the tiles that a head trains on, shape (H, 3)."""
        return torch.stack([self.variant, self.fold, self.max_slide_rank], dim=1)

    @cached_property
    def by_training_set(self) -> tuple["HeadSpecs", Tensor]:
        """One head of each training set, and the number of each head's set, shape (H,).

        Asked once: to ask a GPU is to wait for it.
        """
        first, set_of_head = first_of_each(self.training_sets)
        return self.select(first), set_of_head

    def by_validation_fold(self) -> list[tuple[int, int, Tensor]]:
        """Return (variant, fold, heads) of the heads that validate on the same tiles."""
        pairs = torch.stack([self.variant, self.fold], dim=1).unique(dim=0).tolist()
        return [
            (variant, fold, ((self.variant == variant) & (self.fold == fold)).nonzero()[:, 0])
            for variant, fold in pairs
        ]


def first_of_each(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first of each distinct row, and which of these every row is."""
    distinct, inverse = rows.unique(dim=0, return_inverse=True)
    number = torch.arange(len(rows), device=rows.device)
    first = number.new_zeros(len(distinct))
    return first.scatter_reduce_(0, inverse, number, "amin", include_self=False), inverse


def train_mask(shard: Shard, heads: HeadSpecs) -> Tensor:
    """Return which tiles each head trains on, shape (H, rows)."""
    distinct, set_of_head = heads.by_training_set
    fold = shard.fold.index_select(0, distinct.variant)
    other_folds = (fold != DROPPED) & (fold != distinct.fold[:, None])
    mask = other_folds & (shard.slide_rank <= distinct.max_slide_rank[:, None])
    return mask.index_select(0, set_of_head)


@dataclass(frozen=True)
class TileWeights:
    """What a tile weighs for a head: as its class does, or 0 where the head does not train on it.

    Heads of the same training tiles and class weights, as those of all settings of a fold, weigh
    tiles alike: they are weighed once.

    Parameters
    ----------
    heads, class_weights
        One head of each kind, and its class weights, shape (kinds, K).
    kind
        Of each head, shape (H,).
    """

    heads: HeadSpecs
    class_weights: Tensor
    kind: Tensor

    @classmethod
    def of(cls, heads: HeadSpecs, class_weights: Tensor) -> "TileWeights":
        """Return those of some heads and their class weights, shape (H, K)."""
        first, kind = first_of_each(torch.cat([heads.training_sets, class_weights], dim=1))
        return cls(heads.select(first), class_weights[first], kind)

    def on(self, shard: Shard) -> tuple[Tensor, Tensor]:
        """Return what the rows of a shard weigh for each head, shape (H, rows), and the sums."""
        target = shard.target.index_select(0, self.heads.variant).clamp_(min=0)
        weight = self.class_weights.gather(1, target) * train_mask(shard, self.heads)
        total = weight.sum(dim=1, dtype=torch.float64)
        return weight.index_select(0, self.kind), total.index_select(0, self.kind)


def balanced_class_weights(shard: Shard, heads: HeadSpecs, classes: int, reduce: Reduce) -> Tensor:
    """Return each head's class weights, from its own training tiles, shape (H, K)."""
    counts = torch.zeros((len(heads), classes), dtype=torch.int64, device=shard.target.device)
    for block in shard.without_embeddings().blocks():
        target = block.target[heads.variant]
        mask = train_mask(block, heads)
        for index in range(classes):
            counts[:, index] += ((target == index) & mask).sum(dim=1)
    return torch.stack([class_weights(row) for row in reduce(counts)])
