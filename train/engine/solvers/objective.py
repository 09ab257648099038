"""The penalised loss of each head, with its gradient, over all of its tiles.

Logits are kept in single precision, as products are; what is made of them is computed in double. A
tile that is classified surely has a residual of 1 - p, of which single precision leaves nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from train.engine.matmul import matmul
from train.engine.problem import Problem
from train.engine.shard import Shard
from train.engine.standardizer import Standardizer, fit_centre
from train.engine.weights import LinearHeads

BLOCK = 4096


@dataclass(frozen=True)
class Objective:
    """The objectives of some heads on the local tiles.

    Parameters
    ----------
    problem
        The heads; ``problem.heads.weight_decay`` is the penalty, learning rates do not matter.
    standardizer
        Standardisation or centring.
    weight_sum
        Sum of the tiles' weights of each head, over all processes, shape (H,).
    """

    problem: Problem
    standardizer: Standardizer
    weight_sum: Tensor

    @classmethod
    def of(cls, problem: Problem) -> "Objective":
        """Return the objectives of all heads of a problem."""
        shard, heads = problem.train, problem.heads
        # Around the mean of all tiles, biases do not depend on weights.
        standardizer = problem.standardizer or fit_centre(shard, len(heads), problem.reduce)
        weight_sum = torch.zeros(len(heads), dtype=torch.float64, device=shard.device)
        for block in shard.without_embeddings().blocks():
            weight_sum += problem.tile_weights.on(block)[1]
        return cls(problem, standardizer, problem.reduce(weight_sum))

    def select(self, places: Tensor) -> "Objective":
        """Return the objectives of some heads."""
        standardizer = self.standardizer.select(places)
        return Objective(self.problem.select(places), standardizer, self.weight_sum[places])

    @property
    def penalty(self) -> Tensor:
        """The weight of the squared weights, shape (H, 1, 1), in double."""
        return self.problem.heads.weight_decay.double()[:, None, None]

    def logits(self, weights: LinearHeads) -> Tensor:
        """Return the logits of all local tiles, shape (H, K, rows)."""
        number, classes, _ = weights.weight.shape
        raw = self.standardizer.fold_into(single_precision(weights))
        shape = (number, classes, self.problem.train.local_rows)
        logits = torch.empty(shape, device=raw.weight.device)
        for rows, block in _blocks(self.problem.train):
            logits[..., rows] = raw.logits(block.x.to(logits.device))
        return logits

    def value(self, weights: LinearHeads, logits: Tensor) -> tuple[Tensor, LinearHeads]:
        """Return objectives and gradients, given the weights and their logits."""
        problem, heads = self.problem, self.problem.heads
        number, classes, dim = weights.weight.shape
        device = logits.device
        weight = torch.zeros((number * classes, dim), dtype=torch.float64, device=device)
        bias = torch.zeros((number, classes), dtype=torch.float64, device=device)
        loss = torch.zeros(number, dtype=torch.float64, device=device)
        for rows, block in _blocks(problem.train):
            tile_weight, _ = problem.tile_weights.on(block)
            residual, losses = problem.losses.residuals(
                logits[..., rows].double(), block.target, heads.variant, tile_weight
            )
            x = block.x.to(device)
            flat = residual.reshape(number * classes, -1).to(x.dtype)
            weight += matmul(flat, x.T).double()
            bias += residual.sum(dim=-1, dtype=torch.float64)
            loss += losses
        weight = problem.reduce(weight).view_as(weights.weight) / self.weight_sum[:, None, None]
        bias = problem.reduce(bias) / self.weight_sum[:, None]
        gradient = self.standardizer.pull_back(LinearHeads(weight, bias))
        objective = problem.reduce(loss) / self.weight_sum
        objective = objective + 0.5 * (self.penalty * weights.weight**2).sum(dim=(1, 2))
        penalised = gradient.weight + self.penalty * weights.weight
        return objective, LinearHeads(penalised, gradient.bias)

    def along(self, logits: Tensor, change: Tensor, step: Tensor) -> Tensor:
        """Return the losses at ``logits + step * change``, their slope and curvature by step.

        Returns
        -------
        Tensor of double, shape (3, H)
        """
        problem, heads = self.problem, self.problem.heads
        sums = torch.zeros((3, len(step)), dtype=torch.float64, device=logits.device)
        for rows, block in _blocks(problem.train.without_embeddings()):
            moved = change[..., rows].double()
            at = logits[..., rows] + step[:, None, None] * moved
            weight, _ = problem.tile_weights.on(block)
            residual, losses = problem.losses.residuals(at, block.target, heads.variant, weight)
            probability = at.softmax(dim=1)
            mean = (probability * moved).sum(dim=1)
            curvature = (probability * (moved - mean[:, None]) ** 2).sum(dim=1) * weight
            sums[0] += losses
            sums[1] += (residual * moved).sum(dim=(1, 2), dtype=torch.float64)
            sums[2] += curvature.sum(dim=1, dtype=torch.float64)
        return problem.reduce(sums) / self.weight_sum

    def gap(self, weights: LinearHeads, gradient: LinearHeads, logits: Tensor) -> Tensor:
        """Return how far objectives are above their optimum at the most, shape (H,).

        The penalty m makes the objective strongly convex in the weights: it is at most
        ``|gradient|^2 / (2 m)`` above its minimum over them (S. Boyd and L. Vandenberghe (2004),
        "Convex optimization", 9.1.2). The biases have no penalty; they add the square of their
        Newton decrement, twice what there is to gain by them to second order. Infinite without a
        penalty.
        """
        problem = self.problem
        hessian = torch.zeros((*weights.bias.shape, weights.bias.shape[1]), dtype=torch.float64)
        hessian = hessian.to(logits.device)
        for rows, block in _blocks(problem.train.without_embeddings()):
            probability = logits[..., rows].double().softmax(dim=1)
            weighted = probability * problem.tile_weights.on(block)[0][:, None]
            hessian += weighted.sum(dim=-1).diag_embed() - weighted @ probability.mT
        hessian = problem.reduce(hessian) / self.weight_sum[:, None, None]
        is_finite = hessian.isfinite().all(dim=(1, 2))
        hessian = torch.where(is_finite[:, None, None], hessian, torch.zeros_like(hessian))
        inverse = torch.linalg.pinv(hessian, hermitian=True)
        decrement = torch.einsum("hk,hkj,hj->h", gradient.bias, inverse, gradient.bias)
        squared = (gradient.weight**2).sum(dim=(1, 2))
        gap = squared / (2 * self.penalty[:, 0, 0]) + decrement
        return torch.where(is_finite, gap, torch.inf)


def single_precision(weights: LinearHeads) -> LinearHeads:
    """Return weights in the precision of the embeddings."""
    return LinearHeads(weights.weight.float(), weights.bias.float())


def _blocks(shard: Shard) -> Iterator[tuple[slice, Shard]]:
    start = 0
    for block in shard.blocks(BLOCK):
        yield slice(start, start + block.local_rows), block
        start += block.local_rows
