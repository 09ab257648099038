"""Quasi-Newton directions for many heads at once: the memory of L-BFGS, and its first guess.

See J. Nocedal and S. J. Wright (2006), "Numerical optimization", chapter 7.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from train.engine.matmul import symmetric_product
from train.engine.solvers.objective import Objective
from train.engine.weights import LinearHeads

MEMORY = 10  # pairs of steps and changes of gradient
SAMPLE = 32768  # tiles that the Gram matrix is taken from
PIECE = 4096  # of them in memory


@dataclass(frozen=True)
class Guess:
    """The first guess of the inverse Hessian: of half the Gram matrix, and the penalty.

    Parameters
    ----------
    vectors, values
        Eigenvectors (dim, dim) and eigenvalues (dim,).
    bias
        The same of the bias, a single number.
    """

    vectors: Tensor
    values: Tensor
    bias: Tensor

    @classmethod
    def sampled(cls, objective: Objective, logits: Tensor) -> "Guess":
        """Take the Hessian's Gram matrix, classes and heads averaged, from a sample of the tiles.

        A tile counts by the curvature of its loss as it is: far from any boundary it has none.
        """
        problem, standardizer = objective.problem, objective.standardizer
        shard = problem.train
        step = max(1, shard.rows // SAMPLE)
        sample = shard.without_embeddings().cut(slice(None, None, step))
        probability = logits[..., ::step].softmax(dim=1)
        tile_weight, _ = problem.tile_weights.on(sample)
        curvature = (probability * (1 - probability)).mean(dim=1)
        weight = (curvature * tile_weight).mean(dim=0)
        mean, scale = standardizer.mean.mean(dim=0), standardizer.scale.mean(dim=0)
        root, before = weight.sqrt(), 0
        gram = torch.zeros((shard.dim, shard.dim), device=mean.device)
        for start, section in shard.sections():
            for rows in torch.arange(-start % step, section.local_rows, step).split(PIECE):
                x = section.x[rows.to(section.x.device)].to(mean.device).float()  # type: ignore[union-attr]  # a section is in memory
                z = x.sub_(mean).div_(scale).mul_(root[before : before + len(rows), None])
                gram += symmetric_product(z)
                before += len(rows)
        gram = problem.reduce(gram).double()
        bias = problem.reduce(weight.sum(dtype=torch.float64))
        weight_sum = problem.reduce(tile_weight.mean(dim=0).sum(dtype=torch.float64)).clamp(
            min=1e-12
        )
        gram = (gram / weight_sum).float()
        if not gram.isfinite().all():  # of numbers whose squares are too large there is no guess
            gram = torch.eye(len(gram), device=gram.device)
        values, vectors = torch.linalg.eigh(gram)
        return cls(vectors.double(), values.double().clamp(min=0), bias / weight_sum)

    def applied(self, vector: LinearHeads, decay: Tensor) -> LinearHeads:
        """Return the guess times a vector, with each head's penalty."""
        rotated = vector.weight @ self.vectors
        spread = self.values + decay + 1e-10 * self.values.max()
        return LinearHeads((rotated / spread) @ self.vectors.T, vector.bias / self.bias)


class CurvaturePairs:
    """The last steps and changes of the gradient: what L-BFGS knows of the curvature."""

    def __init__(self) -> None:
        self.pairs: list[tuple[LinearHeads, LinearHeads]] = []

    def add(self, step: LinearHeads, change: LinearHeads) -> None:
        """Keep a pair; the oldest goes."""
        self.pairs = [*self.pairs[1 - MEMORY :], (step, change)]

    def select(self, places: Tensor) -> "CurvaturePairs":
        """Return the pairs of some heads."""
        fewer = CurvaturePairs()
        fewer.pairs = [(step.select(places), change.select(places)) for step, change in self.pairs]
        return fewer

    def direction(self, gradient: LinearHeads, guess: Guess, objective: Objective) -> LinearHeads:
        """Return the quasi-Newton direction by the two loops, over all heads at once."""
        vector, applied = gradient, []
        for step, change in reversed(self.pairs):
            curvature = dot(step, change)
            # A pair without curvature is left out: it would make the guess indefinite.
            scale = torch.where(curvature > 0, 1 / curvature, 0.0)
            amount = scale * dot(step, vector)
            vector = add_scaled(vector, -amount, change)
            applied.append((step, change, scale, amount))
        vector = guess.applied(vector, objective.penalty)
        if self.pairs:
            step, change = self.pairs[-1]
            scaled = dot(change, guess.applied(change, objective.penalty))
            ratio = torch.where(scaled > 0, dot(step, change) / scaled, 1.0).clamp(min=1e-8)
            vector = LinearHeads(vector.weight * ratio[:, None, None], vector.bias * ratio[:, None])
        for step, change, scale, amount in reversed(applied):
            vector = add_scaled(vector, amount - scale * dot(change, vector), step)
        return LinearHeads(-vector.weight, -vector.bias)


def dot(one: LinearHeads, other: LinearHeads) -> Tensor:
    """Return the inner product of each head, shape (H,)."""
    return (one.weight * other.weight).sum(dim=(1, 2)) + (one.bias * other.bias).sum(dim=1)


def add_scaled(one: LinearHeads, amount: Tensor, other: LinearHeads) -> LinearHeads:
    """Return ``one + amount * other`` with an amount for each head."""
    weight = one.weight + amount[:, None, None] * other.weight
    return LinearHeads(weight, one.bias + amount[:, None] * other.bias)


def difference(one: LinearHeads, other: LinearHeads) -> LinearHeads:
    """Return ``one - other``."""
    return LinearHeads(one.weight - other.weight, one.bias - other.bias)
