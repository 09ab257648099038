"""Probabilities that mean what they say: temperature scaling, and what abstaining buys."""

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

Shares = npt.NDArray[np.float32]
Targets = npt.NDArray[np.int64]
RANGE = (-4.0, 4.0)  # of the logarithm of a temperature
TINY = 1e-30  # float32 rounds smaller shares to 0, whose logarithm no temperature moves
POINTS = 200  # of a curve


def scaled(probabilities: Shares, temperature: float) -> Shares:
    """Return the probabilities of logits divided by a temperature; shape (tiles, K)."""
    logits = np.log(np.maximum(probabilities.astype(float), TINY)) / temperature
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


def cross_entropy(
    probabilities: Shares, target: Targets, weights: npt.NDArray[np.float64] | None = None
) -> float:
    """Return the mean of -log p of the true class, each tile weighted by its class."""
    own = probabilities[np.arange(len(target)), target].astype(float)
    mass = None if weights is None else weights[target]
    return float(np.average(-np.log(np.maximum(own, TINY)), weights=mass))


def temperature(probabilities: Shares, target: Targets) -> float:
    """Return the temperature with the least cross entropy.

    C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger (2017), "On calibration of modern neural
    networks". It changes no prediction, only how sure they are.
    """

    def loss(log: float) -> float:
        return cross_entropy(scaled(probabilities, float(np.exp(log))), target)

    return float(np.exp(minimize_scalar(loss, bounds=RANGE, method="bounded").x))


def risk_coverage(probabilities: Shares, target: Targets) -> dict[str, list[float]]:
    """Return how many errors are left if only the surest predictions are given.

    Returns
    -------
    dict
        ``coverage``, the share of the tiles; ``risk``, the share of errors among them;
        ``confidence``, the probability above which they are.
    """
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    wrong = (probabilities.argmax(axis=1) != target)[order].cumsum()
    number = np.arange(1, len(order) + 1)
    at = np.unique(np.linspace(1, len(order), POINTS).round().astype(int)) - 1
    return {
        "coverage": (number[at] / len(order)).tolist(),
        "risk": (wrong[at] / number[at]).tolist(),
        "confidence": confidence[order][at].astype(float).tolist(),
    }
