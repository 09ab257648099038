"""Heads at the optimum of their penalised loss: L-BFGS over a pack, preconditioned.

For each head, ``mean of weighted cross entropies + decay / 2 * |weight|^2`` is minimised (the bias
is not penalised), which is scikit-learn's LogisticRegression with ``C = 1 / (decay * sum of the
tiles' weights)``. See J. Nocedal and S. J. Wright (2006), "Numerical optimization", chapter 7.

Two passes over the embeddings an iteration: one multiplies the direction, one the residuals. The
logits are kept, so the line search moves along them and reads no embedding. Embeddings are
ill-conditioned: the first guess of the inverse Hessian is that of a bound on it, from D. Böhning
(1992), "Multinomial logistic regression algorithm", whose Gram matrix is taken from a sample of
the tiles once for all heads.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from train.engine.heads import HeadSpecs, train_mask
from train.engine.losses import HeadLosses
from train.engine.matmul import matmul
from train.engine.shard import Reduce, Shard
from train.engine.standardizer import Standardizer
from train.engine.weights import LinearHeads

MEMORY = 10  # pairs of steps and changes of gradient
SAMPLE = 32768  # tiles that the Gram matrix is taken from
SEARCHES = 12  # most points on a line
CURVATURE, DECREASE = 0.5, 1e-4  # strong Wolfe conditions
BLOCK = 4096
REFRESH = (0, 4, 12, 30, 70)


@dataclass(frozen=True)
class Solved:
    """Heads at their optimum, with the evidence that it is one.

    Parameters
    ----------
    affine
        Their weights, on embeddings as they are.
    objective, slope
        Value of what was minimised and the largest absolute entry of its gradient (with respect to
        weights on centred or standardised embeddings), shape (H,).
    iterations
        How many it took, two passes each, shape (H,).
    """

    affine: LinearHeads
    objective: Tensor
    slope: Tensor
    iterations: Tensor


@dataclass(frozen=True)
class Problem:
    """The objectives of some heads on the own tiles.

    Parameters
    ----------
    pool, heads, aims
        As in `train.engine.trainer.train`; ``heads.decay`` is the penalty.
    body
        Standardisation or centring.
    mass
        Reduce of the tiles' weights of each head, over all processes, shape (H,).
    total
        Adds up over the processes.
    """

    pool: Shard
    heads: HeadSpecs
    aims: HeadLosses
    body: Standardizer
    mass: Tensor
    total: Reduce

    def of(self, places: Tensor) -> "Problem":
        """Return the problem of some heads."""
        heads, aims, body = self.heads.of(places), self.aims.of(places), self.body.of(places)
        return Problem(self.pool, heads, aims, body, self.mass[places], self.total)

    @property
    def penalty(self) -> Tensor:
        """The weight of the squared weights, shape (H, 1, 1), in double."""
        return self.heads.decay.double()[:, None, None]

    def multiplied(self, affine: LinearHeads) -> Tensor:
        """Return the logits of all own tiles, shape (H, K, rows)."""
        number, classes, _ = affine.weight.shape
        outer = self.body.moved(LinearHeads(affine.weight.float(), affine.bias.float()))
        logits = torch.empty((number, classes, self.pool.owned), device=outer.weight.device)
        for rows, block in _blocks(self.pool):
            logits[..., rows] = outer.logits(block.x.to(logits.device))
        return logits

    def value(self, affine: LinearHeads, logits: Tensor) -> tuple[Tensor, LinearHeads]:
        """Return objectives and gradients, given the weights and their logits."""
        number, classes, dim = affine.weight.shape
        device = logits.device
        weight = torch.zeros((number * classes, dim), dtype=torch.float64, device=device)
        bias = torch.zeros((number, classes), dtype=torch.float64, device=device)
        losses = torch.zeros(number, dtype=torch.float64, device=device)
        for rows, block in _blocks(self.pool):
            target, own = block.target[self.heads.variant], train_mask(block, self.heads)
            residual, sums = self.aims.residuals(logits[..., rows], target, own)
            x = block.x.to(device)
            flat = residual.reshape(number * classes, -1).to(x.dtype)
            weight += matmul(flat, x.T).double()
            bias += residual.sum(dim=-1, dtype=torch.float64)
            losses += sums[0]
        weight = self.total(weight).view_as(affine.weight) / self.mass[:, None, None]
        bias = self.total(bias) / self.mass[:, None]
        inner = self.body.back(LinearHeads(weight, bias))
        objective = self.total(losses) / self.mass
        objective = objective + 0.5 * (self.penalty * affine.weight**2).sum(dim=(1, 2))
        return objective, LinearHeads(inner.weight + self.penalty * affine.weight, inner.bias)

    def along(self, logits: Tensor, change: Tensor, step: Tensor) -> Tensor:
        """Return the losses at ``logits + step * change``, their slope and curvature by step.

        Returns
        -------
        Tensor of double, shape (3, H)
        """
        sums = torch.zeros((3, len(step)), dtype=torch.float64, device=logits.device)
        for rows, block in _blocks(self.pool.bare()):
            target, own = block.target[self.heads.variant], train_mask(block, self.heads)
            moved = change[..., rows]
            at = logits[..., rows] + step.float()[:, None, None] * moved
            residual, found = self.aims.residuals(at, target, own)
            pull = self.aims.weights.gather(1, target.clamp(min=0)) * own
            share = at.softmax(dim=1)
            mean = (share * moved).sum(dim=1)
            bend = (share * (moved - mean[:, None]) ** 2).sum(dim=1) * pull
            sums[0] += found[0]
            sums[1] += (residual * moved).sum(dim=(1, 2), dtype=torch.float64)
            sums[2] += bend.sum(dim=1, dtype=torch.float64)
        return self.total(sums) / self.mass


def solve(
    pool: Shard,
    heads: HeadSpecs,
    aims: HeadLosses,
    start: LinearHeads,
    total: Reduce,
    body: Standardizer | None = None,
    tolerance: float = 1e-9,
    most: int = 500,
    told: Callable[[int, Tensor, Tensor], None] = lambda *_: None,
) -> Solved:
    """Minimise the objectives of all heads at once; each leaves the product when it is there.

    A head is there when the decrease that a quasi-Newton step promises is below ``tolerance`` times
    its objective.

    Parameters
    ----------
    pool, heads, aims, start, total, body
        As in `train.engine.trainer.train`; ``heads.decay`` is the penalty, learning rates do not
        matter.
    tolerance
        Relative, of the objective.
    most
        Most iterations.
    told
        Hears of each iteration: number, heads that are left, their objectives.
    """
    body = body or _centred(pool, len(heads), total)
    mass = torch.zeros(len(heads), dtype=torch.float64, device=pool.target.device)
    for block in pool.bare().blocks():
        weights = aims.weights.gather(1, block.target[heads.variant].clamp(min=0))
        mass += (weights * train_mask(block, heads)).sum(dim=1, dtype=torch.float64)
    problem = Problem(pool, heads, aims, body, total(mass), total)

    best = LinearHeads(start.weight.double().clone(), start.bias.double().clone())
    objective = torch.zeros(len(heads), dtype=torch.float64)
    slope, iterations = objective.clone(), torch.zeros(len(heads), dtype=torch.int64)
    left, now = torch.arange(len(heads)), best
    logits = problem.multiplied(now)
    value, gradient = problem.value(now, logits)
    history = History()
    for iteration in range(most + 1):
        if iteration in REFRESH:
            guess = Guess.sampled(problem, logits)
        direction = history.direction(gradient, guess, problem)
        promised = -_dot(gradient, direction)
        told(iteration, left, value.cpu())
        done = (promised <= 2 * tolerance * value.abs()) | (iteration == most) | ~value.isfinite()
        if done.any():
            gone = left[done.cpu()]
            best.weight[gone], best.bias[gone] = now.weight[done], now.bias[done]
            objective[gone], iterations[gone] = value[done].cpu(), iteration
            steepest = torch.maximum(
                gradient.weight[done].abs().amax(dim=(1, 2)), gradient.bias[done].abs().amax(dim=1)
            )
            slope[gone] = steepest.cpu()
            going = (~done).nonzero()[:, 0]
            left = left[going.cpu()]
            if not len(left):
                break
            problem, history = problem.of(going), history.of(going)
            now, gradient, direction = (a.of(going) for a in (now, gradient, direction))
            logits, value = logits[going], value[going]
        change = problem.multiplied(direction)
        step = search(problem, now, direction, logits, change)
        logits += step.float()[:, None, None] * change
        moved = LinearHeads(
            now.weight + step[:, None, None] * direction.weight,
            now.bias + step[:, None] * direction.bias,
        )
        if iteration % 20 == 19:
            logits = problem.multiplied(moved)  # sums of steps drift
        value, after = problem.value(moved, logits)
        history.add(_less(moved, now), _less(after, gradient))
        now, gradient = moved, after
    outer = body.moved(LinearHeads(best.weight.float(), best.bias.float()))
    return Solved(outer, objective, slope, iterations)


def search(
    problem: Problem, now: LinearHeads, direction: LinearHeads, logits: Tensor, change: Tensor
) -> Tensor:
    """Return steps that meet the strong Wolfe conditions, by Newton's method between brackets."""
    penalty = problem.penalty[:, 0, 0]
    cross = (now.weight * direction.weight).sum(dim=(1, 2)) * penalty
    square = (direction.weight**2).sum(dim=(1, 2)) * penalty

    def look(step: Tensor) -> Tensor:
        found = problem.along(logits, change, step)
        found[0] += step * cross + 0.5 * step**2 * square
        found[1] += cross + step * square
        found[2] += square
        return found

    zero = torch.zeros_like(cross)
    first, low, high = look(zero), zero, torch.full_like(zero, float("inf"))
    step = torch.ones_like(zero)
    for _ in range(SEARCHES):
        found = look(step)
        enough = found[0] <= first[0] + DECREASE * step * first[1] + 1e-14 * first[0].abs()
        flat = found[1].abs() <= CURVATURE * first[1].abs()
        if (enough & flat).all():
            break
        low = torch.where(found[1] < 0, step, low)
        high = torch.where(found[1] < 0, high, step)
        newton = step - found[1] / found[2].clamp(min=1e-300)
        inside = (newton > low) & (newton < high) & newton.isfinite()
        middle = torch.where(high.isfinite(), (low + high) / 2, 2 * step)
        step = torch.where(enough & flat, step, torch.where(inside, newton, middle))
    return step


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
    def sampled(cls, problem: Problem, logits: Tensor) -> "Guess":
        """Take the Hessian's Gram matrix, classes and heads averaged, from a sample of the tiles.

        A tile counts by the curvature of its loss as it is: far from any boundary it has none.
        """
        pool, body = problem.pool, problem.body
        step = max(1, pool.rows // SAMPLE)
        who = pool.bare().cut(slice(None, None, step))
        target, own = who.target[problem.heads.variant], train_mask(who, problem.heads)
        share = logits[..., ::step].softmax(dim=1)
        pull = problem.aims.weights.gather(1, target.clamp(min=0)) * own
        weight = ((share * (1 - share)).mean(dim=1) * pull).mean(dim=0)
        taken = [section.x[-start % step :: step] for start, section in pool.sections()]
        x = torch.cat([piece.to(body.mean.device).float() for piece in taken])
        z = (x - body.mean.mean(dim=0)) / body.scale.mean(dim=0)
        gram = problem.total(matmul((z * weight[:, None]).T.contiguous(), z.T)).double()
        bent = problem.total(weight.sum(dtype=torch.float64))
        mass = problem.total(pull.mean(dim=0).sum(dtype=torch.float64)).clamp(min=1e-12)
        values, vectors = torch.linalg.eigh((gram / mass).float())
        return cls(vectors.double(), values.double().clamp(min=0), bent / mass)

    def applied(self, vector: LinearHeads, decay: Tensor) -> LinearHeads:
        """Return the guess times a vector, with each head's penalty."""
        rotated = vector.weight @ self.vectors
        spread = self.values + decay + 1e-10 * self.values.max()
        return LinearHeads((rotated / spread) @ self.vectors.T, vector.bias / self.bias)


class History:
    """The last steps and changes of the gradient."""

    def __init__(self) -> None:
        self.pairs: list[tuple[LinearHeads, LinearHeads]] = []

    def add(self, step: LinearHeads, change: LinearHeads) -> None:
        """Keep a pair; the oldest goes."""
        self.pairs = [*self.pairs[1 - MEMORY :], (step, change)]

    def of(self, places: Tensor) -> "History":
        """Return the history of some heads."""
        fewer = History()
        fewer.pairs = [(step.of(places), change.of(places)) for step, change in self.pairs]
        return fewer

    def direction(self, gradient: LinearHeads, guess: Guess, problem: Problem) -> LinearHeads:
        """Return the quasi-Newton direction by the two loops, over all heads at once."""
        vector, kept = gradient, []
        for step, change in reversed(self.pairs):
            curved = _dot(step, change)
            scale = torch.where(curved > 0, 1 / curved, 0.0)  # a pair that says nothing is left out
            amount = scale * _dot(step, vector)
            vector = _plus(vector, -amount, change)
            kept.append((step, change, scale, amount))
        vector = guess.applied(vector, problem.penalty)
        if self.pairs:
            step, change = self.pairs[-1]
            bent = _dot(change, guess.applied(change, problem.penalty))
            ratio = torch.where(bent > 0, _dot(step, change) / bent, 1.0).clamp(min=1e-8)
            vector = LinearHeads(vector.weight * ratio[:, None, None], vector.bias * ratio[:, None])
        for step, change, scale, amount in reversed(kept):
            vector = _plus(vector, amount - scale * _dot(change, vector), step)
        return LinearHeads(-vector.weight, -vector.bias)


def _blocks(pool: Shard) -> Iterator[tuple[slice, Shard]]:
    start = 0
    for block in pool.blocks(BLOCK):
        yield slice(start, start + block.owned), block
        start += block.owned


def _dot(one: LinearHeads, other: LinearHeads) -> Tensor:
    return (one.weight * other.weight).sum(dim=(1, 2)) + (one.bias * other.bias).sum(dim=1)


def _plus(one: LinearHeads, amount: Tensor, other: LinearHeads) -> LinearHeads:
    weight = one.weight + amount[:, None, None] * other.weight
    return LinearHeads(weight, one.bias + amount[:, None] * other.bias)


def _less(one: LinearHeads, other: LinearHeads) -> LinearHeads:
    return LinearHeads(one.weight - other.weight, one.bias - other.bias)


def _centred(pool: Shard, heads: int, total: Reduce) -> Standardizer:
    """Return the mean of all tiles and no scale, so that biases do not depend on weights."""
    sums = torch.zeros(pool.x.shape[1], dtype=torch.float64, device=pool.target.device)
    for block in pool.blocks():
        sums += block.x.to(sums.device).double().sum(dim=0)
    mean = (total(sums) / max(pool.rows, 1)).float().repeat(heads, 1)
    return Standardizer(mean, torch.ones_like(mean))
