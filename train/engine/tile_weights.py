"""What tiles weigh in the losses of heads."""

from dataclasses import dataclass

import torch
from torch import Tensor

from train.engine.heads import HeadSpecs, first_of_each, train_mask
from train.engine.shard import Shard


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
