"""Linear heads without iterations: from the moments of the tiles, for all folds and penalties.

A tile counts by the weight of its class, as in the loss of other heads, so that none of the classes
is neglected; scikit-learn's estimators that say the same are named below.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from train.engine.heads import HeadSpecs
from train.engine.losses import HeadLosses
from train.engine.solvers.gram_matrix import Moments
from train.engine.standardizer import Standardizer
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
    aims = 2 * share[:, None] * (mean - centre)
    weight = _solved(spread, decay, aims)
    return LinearHeads(weight, 2 * share - 1 - weight @ centre)


def lda(count: Tensor, mean: Tensor, second: Tensor, weights: Tensor, decay: float) -> LinearHeads:
    """Return Fisher's linear discriminants, for classes that are as likely as each other.

    Their covariance is shrunk: ``(1 - decay) * S + decay * trace(S) / dim * I``. It is
    scikit-learn's LinearDiscriminantAnalysis with ``solver="lsqr", shrinkage=decay`` and even
    priors. Parameters as in `ridge`.
    """
    there = (count > 0).double()
    share = there / there.sum()
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


def solve_closed_form(
    name: str, found: Moments, heads: HeadSpecs, aims: HeadLosses, body: Standardizer | None = None
) -> LinearHeads:
    """Return all heads by a closed form, on embeddings as they are.

    Parameters
    ----------
    name
        ``ridge``, ``lda`` or ``prototype``.
    found
        Moments of the tiles.
    heads, aims
        As in `train.engine.trainer.train`; ``heads.decay`` is the penalty.
    body
        Standardisation, or None.
    """
    classes, form = aims.weights.shape[1], CLOSED[name]
    kinds = torch.stack([heads.variant, heads.fold, heads.fraction], dim=1).cpu()
    weight = torch.empty((len(heads), classes, len(found.centre)), dtype=torch.float64)
    bias = torch.empty((len(heads), classes), dtype=torch.float64)
    for kind in kinds.unique(dim=0):
        members = (kinds == kind).all(dim=1).nonzero()[:, 0]
        own = found.seen(int(kind[0]), int(kind[1]), float(kind[2]))
        count, sums = found.by_class(own, classes)
        weights = aims.weights[members[0]].double().cpu()
        mean = sums / count.clamp(min=1)[:, None]
        if name == "lda":
            even = (count > 0).double() / (count > 0).sum()
            second = even / count.clamp(min=1)
        else:
            second = weights / (weights * count).sum()
        square = found.weighted(own, second) if len(found.gram) else torch.empty(0)
        shift, scale = torch.zeros_like(found.centre), torch.ones_like(found.centre)
        if body:
            place = int(members[0])
            shift = body.mean[place].double().cpu() - found.centre
            scale = body.scale[place].double().cpu()
            square = moved(square, (second * count) @ mean, shift, scale)
        for member in members.tolist():
            decay = float(heads.decay[member])
            made = form(count, (mean - shift) / scale, square, weights, decay)
            weight[member] = made.weight / scale
            bias[member] = made.bias - weight[member] @ (shift + found.centre)
    return LinearHeads(weight.float(), bias.float())


def moved(square: Tensor, level: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
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
        whole = matrix + (decay + tiny * level) * torch.eye(len(matrix))
        factor, failed = torch.linalg.cholesky_ex(whole)
        if not failed:
            break
    return torch.cholesky_solve(right.T, factor).T
