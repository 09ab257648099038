"""The tiles that a pack of heads is trained on, and which of them each head sees."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from train.losses import class_weights

NOWHERE = -1  # fold and target of a tile that a variant drops
BLOCK = 1024  # rows whose embeddings stay in the cache between the two products
BLOCK_CUDA = 16384

Sum = Callable[[Tensor], Tensor]
"""Adds a tensor up over the processes."""


@dataclass(frozen=True)
class Pool:
    """The tiles that this process owns: positions rank, rank + world, ... of an order of all.

    Parameters
    ----------
    x
        Embeddings, shape (own rows, dim).
    target, fold
        Class and fold under each variant of the rules, `NOWHERE` where it drops the tile; shape
        (variants, own rows).
    slide
        Number of the slide, shape (own rows,).
    draw
        Place of the slide in a random order of slides, in (0, 1], shape (own rows,).
    slides, rows
        Numbers of slides and of tiles, over all processes.
    rank, world
        Which of how many processes this is.
    """

    x: Tensor
    target: Tensor
    fold: Tensor
    slide: Tensor
    draw: Tensor
    slides: int
    rows: int
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        return self.rows

    def own(self, start: int, stop: int) -> "Pool":
        """Return the own rows among positions start .. stop: views."""
        low, high = ((edge - self.rank + self.world - 1) // self.world for edge in (start, stop))
        return self.cut(slice(low, high))

    def cut(self, rows: slice | Tensor) -> "Pool":
        """Return some of the own rows."""
        return replace(
            self,
            x=self.x[rows],
            target=self.target[:, rows],
            fold=self.fold[:, rows],
            slide=self.slide[rows],
            draw=self.draw[rows],
        )

    def blocks(self) -> Iterator["Pool"]:
        """Yield the own rows in blocks."""
        size = BLOCK_CUDA if self.target.device.type == "cuda" else BLOCK
        for start in range(0, len(self.x), size):
            yield self.cut(slice(start, start + size))


@dataclass(frozen=True)
class Heads:
    """What tells the heads apart, each a tensor of length H.

    Parameters
    ----------
    variant
        Which variant of the rules gives labels and folds.
    fold
        The fold that the head validates on; `NOWHERE` for a head that trains on all.
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

    def of(self, heads: Tensor) -> "Heads":
        """Return some of the heads."""
        return Heads(**{name: column[heads] for name, column in vars(self).items()})

    def on(self, device: torch.device) -> "Heads":
        """Return the columns on a device."""
        return Heads(**{name: column.to(device) for name, column in vars(self).items()})

    def groups(self) -> list[tuple[int, int, Tensor]]:
        """Return (variant, fold, heads) of the heads that validate on the same tiles."""
        pairs = torch.stack([self.variant, self.fold], dim=1).unique(dim=0).tolist()
        return [
            (variant, fold, ((self.variant == variant) & (self.fold == fold)).nonzero()[:, 0])
            for variant, fold in pairs
        ]


def seen(pool: Pool, heads: Heads) -> Tensor:
    """Return which tiles each head trains on, shape (H, rows)."""
    fold = pool.fold[heads.variant]
    others = (fold != NOWHERE) & (fold != heads.fold[:, None])
    return others & (pool.draw <= heads.fraction[:, None])


def balanced(pool: Pool, heads: Heads, classes: int, total: Sum) -> Tensor:
    """Return each head's class weights, from its own training tiles, shape (H, K)."""
    counts = torch.zeros((len(heads), classes), dtype=torch.int64, device=pool.target.device)
    for block in pool.blocks():
        target = block.target[heads.variant]
        own = seen(block, heads)
        for index in range(classes):
            counts[:, index] += ((target == index) & own).sum(dim=1)
    return torch.stack([class_weights(row) for row in total(counts)])
