"""Heads at the optimum of their penalised loss: L-BFGS over many heads, preconditioned.

For each head, ``mean of weighted cross entropies + decay / 2 * |weight|^2`` is minimised (the bias
is not penalised). It is scikit-learn's LogisticRegression with ``C = 1 / (decay * sum of the
tiles' weights)`` for three classes and more, and with ``C = 2 / (decay * sum of the tiles'
weights)`` for two: scikit-learn has one row of weights for both then, the difference of the two
rows here, each other's negative at the optimum, whose squares add up to half its square. See
J. Nocedal and S. J. Wright (2006), "Numerical optimization", chapter 7.

Two passes over the embeddings an iteration: one multiplies the direction, one the residuals. The
logits are kept, so the line search moves along them and reads no embedding. Embeddings are
ill-conditioned: the first guess of the inverse Hessian is that of a bound on it, from D. Böhning
(1992), "Multinomial logistic regression algorithm", whose Gram matrix is taken from a sample of
the tiles once for all heads.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from train.engine.evaluate import evaluate
from train.engine.problem import Problem, TrainPlan
from train.engine.solvers.objective import Objective, single_precision
from train.engine.solvers.quasi_newton import CurvaturePairs, Guess, add_scaled, difference, dot
from train.engine.threads import few_threads
from train.engine.trainer import Epoch, FitResult
from train.engine.weights import LinearHeads

SEARCHES = 12  # most points on a line
CURVATURE, DECREASE = 0.5, 1e-4  # strong Wolfe conditions
NEVER = -1e4  # the bias of a class without a training tile, during the search: not yet -inf
PROVEN = 1e-3  # of the objective: a gap above it is no optimum, whatever a step promises
REFRESH = (0, 4, 12, 30, 70)  # iterations at which the Gram matrix is taken anew


class LbfgsTrainer:
    """A `train.engine.trainer.Trainer` to the optimum; iterations stand for epochs.

    A head stops when the decrease that a quasi-Newton step promises is below ``tolerance`` times
    its objective, and the gap to its optimum is proven to be below `PROVEN` of it. Iterations are
    not saved: a resumed fit starts anew, for the same optimum.

    Parameters
    ----------
    problem, plan
        What is trained; ``plan.max_epochs`` is the largest number of iterations.
    initial
        Weights to start from; those of the plan's seed otherwise.
    tolerance
        Relative, of the objective.
    """

    def __init__(
        self,
        problem: Problem,
        plan: TrainPlan,
        initial: LinearHeads | None = None,
        tolerance: float = 1e-9,
    ) -> None:
        self.problem, self.plan, self.tolerance = problem, plan, tolerance
        first, heads = initial or problem.initial_weights(plan.seed), len(problem.heads)
        self.objective = Objective.of(problem)
        learned = problem.losses.class_weights > 0  # the others begin where their optimum lies
        self.weights = LinearHeads(
            first.weight.double() * learned[..., None],
            first.bias.double().masked_fill(~learned, NEVER),
        )
        self.values = torch.zeros(heads, dtype=torch.float64)
        self.gradient_norm = torch.zeros(heads, dtype=torch.float64)
        self.gap = torch.full((heads,), torch.inf, dtype=torch.float64)
        self.converged = torch.zeros(heads, dtype=torch.bool)
        self.iterations = torch.zeros(heads, dtype=torch.int64)

    def __iter__(self) -> Iterator[Epoch]:
        """Minimise the objectives of all heads at once; each leaves the product when it is done."""
        with few_threads(self.problem, self.problem.train.local_rows):
            yield from self._iterations()

    def _iterations(self) -> Iterator[Epoch]:
        objective, weights, most = self.objective, self.weights.clone(), self.plan.max_epochs
        active = torch.arange(len(self.values))
        logits = objective.logits(weights)
        value, gradient = objective.value(weights, logits)
        pairs, stalled = CurvaturePairs(), torch.zeros_like(value, dtype=torch.bool)
        for iteration in range(most + 1):
            if iteration in REFRESH:
                guess = Guess.sampled(objective, logits)
            direction = pairs.direction(gradient, guess, objective)
            decrease = -dot(gradient, direction)
            self._finish(active, weights, value, iteration)
            yield Epoch(iteration, active, value.cpu(), value.cpu())
            small = decrease <= 2 * self.tolerance * value.abs()
            lost = stalled | (iteration == most) | ~value.isfinite()
            if (ended := small | lost).any():
                some, gap = ended.nonzero()[:, 0], torch.full_like(value, torch.inf)
                ending = weights.select(some), gradient.select(some), logits[some]
                gap[some] = objective.select(some).gap(*ending)
                optimal = (gap <= PROVEN * value) | (objective.penalty[:, 0, 0] == 0)
                proven = (small & optimal) | (stalled & (gap <= PROVEN * value))
                done = proven | lost
                heads = active[done.cpu()]
                self._finish_evidence(heads, gradient.select(done), gap[done], proven[done])
                going_on = (~done).nonzero()[:, 0]
                active = active[going_on.cpu()]
                if not len(active):
                    break
                objective, pairs = objective.select(going_on), pairs.select(going_on)
                weights, gradient, direction = (
                    part.select(going_on) for part in (weights, gradient, direction)
                )
                logits, value = logits[going_on], value[going_on]
            change = objective.logits(direction)
            step = line_search(objective, (weights, direction), logits, change)
            stalled = step == 0
            logits += step.float()[:, None, None] * change
            moved = add_scaled(weights, step, direction)
            if iteration % 20 == 19:
                logits = objective.logits(moved)  # sums of steps drift
            value, after = objective.value(moved, logits)
            pairs.add(difference(moved, weights), difference(after, gradient))
            weights, gradient = moved, after

    def _finish(self, heads: Tensor, weights: LinearHeads, value: Tensor, iteration: int) -> None:
        self.weights.weight[heads], self.weights.bias[heads] = weights.weight, weights.bias
        self.values[heads], self.iterations[heads] = value.cpu(), iteration

    def _finish_evidence(
        self, heads: Tensor, gradient: LinearHeads, gap: Tensor, proven: Tensor
    ) -> None:
        largest = torch.maximum(
            gradient.weight.abs().amax(dim=(1, 2)), gradient.bias.abs().amax(dim=1)
        )
        self.gradient_norm[heads] = largest.cpu()
        self.gap[heads], self.converged[heads] = gap.cpu(), proven.cpu()

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: a solver starts anew."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Start anew."""

    def current(self) -> LinearHeads:
        """Return the weights of the last iteration, on embeddings as they are."""
        learned = self.problem.losses.class_weights.to(self.weights.bias.device) > 0
        weights = single_precision(self.weights)
        bias = weights.bias.masked_fill(~learned, -torch.inf)
        return self.objective.standardizer.fold_into(LinearHeads(weights.weight, bias))

    def result(self) -> FitResult:
        """Return the heads with the evidence that they are at their optimum.

        ``diagnostics``: ``objective``, the value of what was minimised; ``gradient``, the largest
        absolute entry of its gradient (with respect to weights on centred or standardised
        embeddings); ``gap``, how far it is above the optimum at the most, see `Objective.gap`;
        ``converged``, 1 where it ended within its tolerance, 0 where iterations were used up.
        """
        raw = self.current()
        loss, _ = evaluate(self.problem, raw, counted=False)
        diagnostics = {
            "objective": self.values, "gradient": self.gradient_norm, "gap": self.gap,
            "converged": self.converged.double(),
        }  # fmt: skip
        return FitResult(self.problem, raw, self.iterations, loss.cpu(), diagnostics)


def line_search(
    objective: Objective,
    line: tuple[LinearHeads, LinearHeads],
    logits: Tensor,
    change: Tensor,
) -> Tensor:
    """Return steps that meet the strong Wolfe conditions, by Newton's method between brackets.

    Parameters
    ----------
    line
        Weights, and the direction of the step.
    logits, change
        Of the weights and of the direction, shape (H, K, rows).

    Returns
    -------
    Tensor of double, shape (H,)
        Multiples of the direction; the best that was tried if none meets both, 0 if none is below.
    """
    weights, direction = line
    penalty = objective.penalty[:, 0, 0]
    cross = (weights.weight * direction.weight).sum(dim=(1, 2)) * penalty
    square = (direction.weight**2).sum(dim=(1, 2)) * penalty

    def along(step: Tensor) -> Tensor:  # objectives, slopes, curvatures; shape (3, H)
        sums = objective.along(logits, change, step)
        sums[0] += step * cross + 0.5 * step**2 * square
        sums[1] += cross + step * square
        sums[2] += square
        return sums

    zero = torch.zeros_like(cross)
    first, low, high = along(zero), zero, torch.full_like(zero, float("inf"))
    step, best = torch.ones_like(zero), zero
    for _ in range(SEARCHES):
        value, slope, curvature = along(step)
        enough = value <= first[0] + DECREASE * step * first[1] + 1e-14 * first[0].abs()
        flat = slope.abs() <= CURVATURE * first[1].abs()
        best = torch.where(enough, step, best)
        if (enough & flat).all():
            break
        # The objective is convex: the sign of the slope says on which side the minimum lies.
        low = torch.where(slope < 0, step, low)
        high = torch.where(slope < 0, high, step)
        newton = step - slope / curvature.clamp(min=1e-300)
        inside = (newton > low) & (newton < high) & newton.isfinite()
        middle = torch.where(high.isfinite(), (low + high) / 2, 2 * step)
        step = torch.where(enough & flat, step, torch.where(inside, newton, middle))
    return best
