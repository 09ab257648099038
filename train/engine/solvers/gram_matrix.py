"""Counts, sums and Gram matrices of the tiles, from one pass: all that closed-form heads need.

They are kept by stratum. The tiles of a stratum have one class under one variant of the rules, and
every head trains on all of them or none, so that a head's moments are a sum over its strata.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from train.engine.heads import HeadSpecs
from train.engine.matmul import symmetric_product
from train.engine.problem import Problem
from train.engine.shard import DROPPED

PIECE = 4096  # rows of a product in single precision, added up in double
FIRST = 4096  # rows that the centre is taken from


@dataclass(frozen=True)
class Moments:
    """Moments of embeddings around a centre, in double.

    Parameters
    ----------
    strata
        Variant, fold (`DROPPED` for all folds that no head validates on), class and bucket of
        slide ranks of each stratum, shape (S, 4).
    cutoffs
        Largest slide rank of each bucket, ascending.
    centre
        Near the mean, where little cancels; shape (dim,).
    count, sums, gram
        Shapes (S,), (S, dim) and (S, dim, dim).
    """

    strata: Tensor
    cutoffs: Tensor
    centre: Tensor
    count: Tensor
    sums: Tensor
    gram: Tensor

    def train_mask(self, variant: int, fold: int, max_slide_rank: float) -> Tensor:
        """Return which strata a head trains on, shape (S,)."""
        return _train_mask(self.strata, self.cutoffs, (variant, fold, max_slide_rank))

    def by_class(self, mask: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """Return counts and sums of some strata by class, shapes (K,) and (K, dim)."""
        kind = self.strata[mask, 2]
        count = torch.zeros(classes, dtype=torch.float64).index_add(0, kind, self.count[mask])
        sums = torch.zeros((classes, len(self.centre)), dtype=torch.float64)
        return count, sums.index_add(0, kind, self.sums[mask])

    def weighted(self, mask: Tensor, weights: Tensor) -> Tensor:
        """Return the Gram matrix of some strata, each weighted by its class; shape (dim, dim)."""
        total = torch.zeros(self.gram.shape[1:], dtype=torch.float64)
        for stratum in mask.nonzero()[:, 0].tolist():
            total.add_(self.gram[stratum], alpha=float(weights[self.strata[stratum, 2]]))
        return total


def gram_matrices(problem: Problem, second: bool = True) -> Moments:
    """Return the moments of all tiles that any head trains on.

    Parameters
    ----------
    second
        Whether Gram matrices are wanted: ``8 * dim^2`` bytes each.
    """
    shard, heads, reduce = problem.train, problem.heads, problem.reduce
    dim, device = shard.dim, shard.device
    strata, cutoffs = list_strata(heads, problem.classes)
    near = torch.zeros(dim + 1, dtype=torch.float64, device=device)
    head = shard.x[:FIRST].to(device).double()
    near[:dim], near[dim] = head.sum(dim=0), len(head)
    near = reduce(near)
    centre = near[:dim] / near[dim].clamp(min=1)
    number = len(strata)
    count = torch.zeros(number, dtype=torch.float64, device=device)
    sums = torch.zeros((number, dim), dtype=torch.float64, device=device)
    gram = torch.zeros((number if second else 0, dim, dim), dtype=torch.float64, device=device)
    for _, section in shard.sections():
        for stratum, (variant, fold, kind, bucket) in enumerate(strata.tolist()):
            mask = section.target[variant] == kind
            validated = torch.isin(section.fold[variant], heads.fold[heads.variant == variant])
            folds = section.fold[variant]
            mask &= (folds != DROPPED) & ~validated if fold == DROPPED else folds == fold
            ranks = section.slide_rank.contiguous()
            mask &= torch.bucketize(ranks, cutoffs.to(device)) == bucket
            for rows in mask.nonzero()[:, 0].split(PIECE):
                x = section.x[rows.to(section.x.device)].to(device).float() - centre.float()  # type: ignore[union-attr]  # a section is in memory
                count[stratum] += len(rows)
                sums[stratum] += x.sum(dim=0, dtype=torch.float64)
                if second:
                    gram[stratum] += symmetric_product(x).double()
    totals = (reduce(part).cpu() for part in (count, sums, gram))
    return Moments(strata, cutoffs, centre.cpu(), *totals)


def list_strata(heads: HeadSpecs, classes: int) -> tuple[Tensor, Tensor]:
    """Return the strata that some heads tell apart, and the upper ends of their buckets."""
    heads = heads.to(torch.device("cpu"))
    cutoffs = heads.max_slide_rank.unique()
    by_variant = []
    for variant in heads.variant.unique().tolist():
        folds = heads.fold[heads.variant == variant].tolist()
        by_variant.append(
            torch.cartesian_prod(
                torch.tensor([variant]), torch.tensor(sorted({DROPPED, *folds})),
                torch.arange(classes), torch.arange(len(cutoffs)),
            )
        )  # fmt: skip
    strata = torch.cat(by_variant)
    wanted = torch.zeros(len(strata), dtype=torch.bool)
    columns = (heads.variant.tolist(), heads.fold.tolist(), heads.max_slide_rank.tolist())
    for training_set in zip(*columns, strict=True):
        wanted |= _train_mask(strata, cutoffs, training_set)
    return strata[wanted], cutoffs


def _train_mask(strata: Tensor, cutoffs: Tensor, training_set: tuple[int, int, float]) -> Tensor:
    variant, fold, max_slide_rank = training_set
    other_folds = (strata[:, 1] != fold) | (strata[:, 1] == DROPPED)
    return (strata[:, 0] == variant) & other_folds & (cutoffs[strata[:, 3]] <= max_slide_rank)
