"""Linear heads without iterations: from the moments of the tiles, for all folds and penalties.

A tile counts by the weight of its class, as in the loss of other heads, so that none of the classes
is neglected; scikit-learn's estimators that say the same are named below.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from train.engine.evaluate import evaluate
from train.engine.problem import Problem
from train.engine.solvers.gram_matrix import Moments, gram_matrices
from train.engine.trainer import Epoch, FitResult
from train.engine.weights import LinearHeads

# Of the mean variance, added to each, the first that is enough: constant dimensions make a matrix
# singular, products in single precision may make it a little less than that.
JITTER = (1e-10, 1e-8, 1e-6, 1e-4)


def ridge(
    count: Tensor, mean: Tensor, second: Tensor, weights: Tensor, decay: float
) -> LinearHeads:
    """Return least squares on targets of 1 and -1, penalised.

    Minimises ``mean of weighted squared errors + decay * |weight|^2``, which is scikit-learn's
    RidgeClassifier with ``alpha = decay * sum of the tiles' weights`` and balanced classes.

    Parameters
    ----------
    count
        Tiles by class, shape (K,).
    mean
        Class means, shape (K, dim).
    second
        Weighted mean of ``x x'``, shape (dim, dim).
    weights
        Class weights, shape (K,).
    decay
        The penalty.
    """
    share = weights * count / (weights * count).sum()
    centre = share @ mean
    spread = second - torch.outer(centre, centre)
    covariance = 2 * share[:, None] * (mean - centre)
    weight = _solved(spread, decay, covariance)
    return LinearHeads(weight, 2 * share - 1 - weight @ centre)


def lda(count: Tensor, mean: Tensor, second: Tensor, weights: Tensor, decay: float) -> LinearHeads:
    """Return Fisher's linear discriminants, for classes that are as likely as each other.

    Their covariance is shrunk: ``(1 - decay) * S + decay * trace(S) / dim * I``. It is
    scikit-learn's LinearDiscriminantAnalysis with ``solver="lsqr", shrinkage=decay`` and even
    priors. Parameters as in `ridge`.
    """
    present = (count > 0).double()
    share = present / present.sum()
    within = second - torch.einsum("k,kd,ke->de", share, mean, mean)
    level = within.diagonal().mean()
    weight = _solved((1 - decay) * within, float(decay * level), mean)
    bias = -0.5 * (weight * mean).sum(dim=1)
    return LinearHeads(weight, torch.where(count > 0, bias, -torch.inf))


def prototype(
    count: Tensor, mean: Tensor, second: Tensor, weights: Tensor, decay: float
) -> LinearHeads:
    """Return the head whose class is that of the nearest mean: ``-|x - mean|^2 / 2``, by class.

    scikit-learn's NearestCentroid; with embeddings of length 1, the mean with the largest cosine
    but for its length. Parameters as in `ridge`.
    """
    bias = -0.5 * (mean**2).sum(dim=1)
    return LinearHeads(mean.clone(), torch.where(count > 0, bias, -torch.inf))


Form = Callable[[Tensor, Tensor, Tensor, Tensor, float], LinearHeads]
CLOSED: dict[str, Form] = {"ridge": ridge, "lda": lda, "prototype": prototype}


class ClosedFormTrainer:
    """A `train.engine.trainer.Trainer` without epochs: one pass over the embeddings.

    Parameters
    ----------
    problem
        ``problem.heads.weight_decay`` is the penalty.
    form
        ``ridge``, ``lda`` or ``prototype``.
    """

    def __init__(self, problem: Problem, form: str) -> None:
        self.problem, self.form = problem, form
        self.weights: LinearHeads | None = None

    def __iter__(self) -> Iterator[Epoch]:
        """Solve for all heads; yields no epoch."""
        gram = self.form != "prototype"
        moments = gram_matrices(self.problem, gram)
        weights = solve_closed_form(self.form, moments, self.problem)
        self.weights = weights.to(self.problem.train.device)
        yield from ()

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: it starts anew."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Start anew."""

    def result(self) -> FitResult:
        """Return the heads."""
        assert self.weights
        loss, _ = evaluate(self.problem, self.weights, counted=False)
        epochs = torch.zeros(len(self.weights), dtype=torch.int64)
        return FitResult(self.problem, self.weights, epochs, loss.cpu())


def solve_closed_form(form: str, moments: Moments, problem: Problem) -> LinearHeads:
    """Return all heads by a closed form, on embeddings as they are, on the CPU.

    Parameters
    ----------
    form
        ``ridge``, ``lda`` or ``prototype``.
    moments
        Of the tiles.
    """
    heads, classes, solve = problem.heads, problem.classes, CLOSED[form]
    sets = heads.training_sets.cpu()
    weight = torch.empty((len(heads), classes, len(moments.centre)), dtype=torch.float64)
    bias = torch.empty((len(heads), classes), dtype=torch.float64)
    for training_set in sets.unique(dim=0):
        members = (sets == training_set).all(dim=1).nonzero()[:, 0]
        variant, fold, max_rank = training_set.tolist()
        strata = moments.train_mask(int(variant), int(fold), max_rank)
        count, sums = moments.by_class(strata, classes)
        weights = problem.losses.class_weights[members[0]].double().cpu()
        mean = sums / count.clamp(min=1)[:, None]
        if form == "lda":
            even = (count > 0).double() / (count > 0).sum()
            class_weight = even / count.clamp(min=1)
        else:
            class_weight = weights / (weights * count).sum()
        second = moments.weighted(strata, class_weight) if len(moments.gram) else torch.empty(0)
        shift, scale = torch.zeros_like(moments.centre), torch.ones_like(moments.centre)
        if problem.standardizer:
            first = int(members[0])
            shift = problem.standardizer.mean[first].double().cpu() - moments.centre
            scale = problem.standardizer.scale[first].double().cpu()
            second = standardized(second, (class_weight * count) @ mean, shift, scale)
        for member in members.tolist():
            decay = float(heads.weight_decay[member])
            head = solve(count, (mean - shift) / scale, second, weights, decay)
            weight[member] = head.weight / scale
            bias[member] = head.bias - weight[member] @ (shift + moments.centre)
    return LinearHeads(weight.float(), bias.float())


def standardized(square: Tensor, level: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return the weighted mean of ``z z'`` for ``z = (x - shift) / scale``, given that of x.

    Parameters
    ----------
    square
        Shape (dim, dim); empty where no second moment is needed.
    level
        The weighted mean of x, the weights adding up to 1.
    """
    if not len(square):
        return square
    square = square - torch.outer(level, shift) - torch.outer(shift, level)
    return (square + torch.outer(shift, shift)) / torch.outer(scale, scale)


def _solved(matrix: Tensor, decay: float, right: Tensor) -> Tensor:
    """Return ``right (matrix + decay I)^-1``."""
    level = matrix.diagonal().mean()
    for tiny in JITTER:
        shifted = matrix + (decay + tiny * level) * torch.eye(len(matrix))
        factor, failed = torch.linalg.cholesky_ex(shifted)
        if not failed:
            break
    return torch.cholesky_solve(right.T, factor).T
