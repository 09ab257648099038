"""Counts, sums and Gram matrices of the tiles, from one pass: all that closed-form heads need.

They are kept by cell. The tiles of a cell have one class under one variant of the rules, and every
head sees either all of them or none, so that a head's own moments are a sum over its cells.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from train.engine.heads import HeadSpecs
from train.engine.matmul import matmul
from train.engine.shard import DROPPED, Reduce, Shard

PIECE = 4096  # rows of a product in single precision, added up in double
FIRST = 4096  # rows that the centre is taken from


@dataclass(frozen=True)
class Moments:
    """Moments of embeddings around a centre, in double.

    Parameters
    ----------
    cells
        Variant, fold (`DROPPED` for all folds that no head validates on), class and bucket of
        draws of each cell, shape (C, 4).
    cutoffs
        Largest draw of each bucket, ascending.
    centre
        Near the mean, where little cancels; shape (dim,).
    count, sums, gram
        Shapes (C,), (C, dim) and (C, dim, dim).
    """

    cells: Tensor
    cutoffs: Tensor
    centre: Tensor
    count: Tensor
    sums: Tensor
    gram: Tensor

    def seen(self, variant: int, fold: int, fraction: float) -> Tensor:
        """Return which cells a head trains on, shape (C,)."""
        return _seen(self.cells, self.cutoffs, variant, fold, fraction)

    def by_class(self, own: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """Return counts and sums of some cells by class, shapes (K,) and (K, dim)."""
        kind = self.cells[own, 2]
        count = torch.zeros(classes, dtype=torch.float64).index_add(0, kind, self.count[own])
        sums = torch.zeros((classes, len(self.centre)), dtype=torch.float64)
        return count, sums.index_add(0, kind, self.sums[own])

    def weighted(self, own: Tensor, weights: Tensor) -> Tensor:
        """Return the Gram matrix of some cells, each weighted by its class; shape (dim, dim)."""
        whole = torch.zeros(self.gram.shape[1:], dtype=torch.float64)
        for cell in own.nonzero()[:, 0].tolist():
            whole.add_(self.gram[cell], alpha=float(weights[self.cells[cell, 2]]))
        return whole


def gram_matrices(
    pool: Shard, heads: HeadSpecs, classes: int, total: Reduce, second: bool = True
) -> Moments:
    """Return the moments of all tiles that any head trains on.

    Parameters
    ----------
    second
        Whether Gram matrices are wanted: ``8 * dim^2`` bytes each.
    """
    dim, device = pool.x.shape[1], pool.target.device
    cells, cutoffs = strata(heads, classes)
    near = torch.zeros(dim + 1, dtype=torch.float64, device=device)
    head = pool.x[:FIRST].to(device).double()
    near[:dim], near[dim] = head.sum(dim=0), len(head)
    near = total(near)
    centre = near[:dim] / near[dim].clamp(min=1)
    number = len(cells)
    count = torch.zeros(number, dtype=torch.float64, device=device)
    sums = torch.zeros((number, dim), dtype=torch.float64, device=device)
    gram = torch.zeros((number if second else 0, dim, dim), dtype=torch.float64, device=device)
    for _, section in pool.sections():
        for cell, (variant, fold, kind, bucket) in enumerate(cells.tolist()):
            own = section.target[variant] == kind
            validated = heads.fold[heads.variant == variant]
            known = torch.isin(section.fold[variant], validated)
            where = section.fold[variant]
            own &= (where != DROPPED) & ~known if fold == DROPPED else where == fold
            own &= torch.bucketize(section.draw.contiguous(), cutoffs.to(device)) == bucket
            for rows in own.nonzero()[:, 0].split(PIECE):
                x = section.x[rows.to(section.x.device)].to(device).float() - centre.float()  # type: ignore[union-attr]  # a section is in memory
                count[cell] += len(rows)
                sums[cell] += x.sum(dim=0, dtype=torch.float64)
                if second:
                    gram[cell] += matmul(x.T.contiguous(), x.T).double()
    found = (total(part).cpu() for part in (count, sums, gram))
    return Moments(cells, cutoffs, centre.cpu(), *found)


def strata(heads: HeadSpecs, classes: int) -> tuple[Tensor, Tensor]:
    """Return the cells that some heads tell apart, and the upper ends of their buckets."""
    heads = heads.on(torch.device("cpu"))
    cutoffs = heads.fraction.unique()
    found = []
    for variant in heads.variant.unique().tolist():
        mine = heads.of((heads.variant == variant).nonzero()[:, 0])
        folds = sorted({DROPPED, *mine.fold.tolist()})
        found.append(
            torch.cartesian_prod(
                torch.tensor([variant]), torch.tensor(folds), torch.arange(classes),
                torch.arange(len(cutoffs)),
            )
        )  # fmt: skip
    cells = torch.cat(found)
    wanted = torch.zeros(len(cells), dtype=torch.bool)
    for variant, fold, fraction in zip(
        heads.variant.tolist(), heads.fold.tolist(), heads.fraction.tolist(), strict=True
    ):
        wanted |= _seen(cells, cutoffs, variant, fold, fraction)
    return cells[wanted], cutoffs


def _seen(cells: Tensor, cutoffs: Tensor, variant: int, fold: int, fraction: float) -> Tensor:
    others = (cells[:, 1] != fold) | (cells[:, 1] == DROPPED)
    return (cells[:, 0] == variant) & others & (cutoffs[cells[:, 3]] <= fraction)
