"""Probabilities that mean what they say: temperature scaling, and what abstaining buys."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from train.evaluation.metrics import calibration_error

Probabilities = npt.NDArray[np.float32]
Targets = npt.NDArray[np.int64]
RANGE = (-4.0, 4.0)  # of the logarithm of a temperature
TINY = 1e-30  # float32 rounds smaller shares to 0, whose logarithm no temperature moves
POINTS = 200  # of a curve


@dataclass(frozen=True)
class Calibration:
    """What temperature scaling has done.

    Parameters
    ----------
    temperature
        By which logits are divided.
    error_before, error_after
        The expected calibration error without and with it.
    """

    temperature: float
    error_before: float
    error_after: float


def calibrate(probabilities: Probabilities, target: Targets) -> tuple[Probabilities, Calibration]:
    """Return the probabilities at the temperature that fits them best, and what that changes.

    Parameters
    ----------
    probabilities
        Of tiles that the head was not trained on, shape (tiles, K).
    target
        Their classes, shape (tiles,).
    """
    best = temperature(probabilities, target)
    after = scaled(probabilities, best)
    errors = [calibration_error(values, target) for values in (probabilities, after)]
    return after, Calibration(best, *errors)


def scaled(probabilities: Probabilities, temperature: float) -> Probabilities:
    """Return the probabilities of logits divided by a temperature; shape (tiles, K)."""
    logits = np.log(np.maximum(probabilities.astype(float), TINY)) / temperature
    exponential = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (exponential / exponential.sum(axis=1, keepdims=True)).astype(np.float32)


def cross_entropy(
    probabilities: Probabilities, target: Targets, weights: npt.NDArray[np.float64] | None = None
) -> float:
    """Return the mean of -log p of the true class, each tile weighted by its class."""
    of_true = probabilities[np.arange(len(target)), target].astype(float)
    by_tile = None if weights is None else weights[target]
    return float(np.average(-np.log(np.maximum(of_true, TINY)), weights=by_tile))


def temperature(probabilities: Probabilities, target: Targets) -> float:
    """Return the temperature with the least cross entropy.

    C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger (2017), "On calibration of modern neural
    networks". It changes no prediction, only how sure they are.
    """

    def loss(log: float) -> float:
        return cross_entropy(scaled(probabilities, float(np.exp(log))), target)

    return float(np.exp(minimize_scalar(loss, bounds=RANGE, method="bounded").x))


def risk_coverage(probabilities: Probabilities, target: Targets) -> dict[str, list[float]]:
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
