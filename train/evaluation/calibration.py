"""Probabilities that mean what they say: temperature scaling, and what abstaining buys."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from train.evaluation.metrics import calibration_error

Floats32 = npt.NDArray[np.float32]
Targets = npt.NDArray[np.int64]
RANGE = (-10.0, 10.0)  # of log T: logits are thousands of long embeddings, thousandths of cosines
PARTS = 5  # of the slides, or of what else is a unit
POINTS = 200  # of a curve


@dataclass(frozen=True)
class Calibration:
    """What temperature scaling has done.

    Parameters
    ----------
    temperature
        By which logits are divided: fitted on all tiles.
    error_before, error_after
        The expected calibration error without it and with it, on the tiles that it was fitted on.
    error_cross_fitted
        That of tiles each with a temperature fitted on the other parts of the clusters, which is
        what other tiles may hope for; not a number where there is but one cluster.
    parts
        How many parts there are.
    """

    temperature: float
    error_before: float
    error_after: float
    error_cross_fitted: float
    parts: int

    @property
    def metrics(self) -> dict[str, float]:
        """Temperature and errors by name, those that are numbers."""
        names = ("temperature", "error_before", "error_after", "error_cross_fitted")
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if np.isfinite(value)}

    @property
    def doubt(self) -> str:
        """What it means that the temperature is an end of its range; nothing within."""
        log = np.log(self.temperature)
        if np.isclose(log, RANGE[0]):
            return (
                f"the temperature is {self.temperature:.3g}, the least that is tried: the tiles "
                "that it is fitted on ask to be infinitely sure, as they do if all of them are "
                "predicted rightly, and other tiles will not bear that out; fit it on more tiles, "
                "or set calibrate=false"
            )
        if np.isclose(log, RANGE[1]):
            return (
                f"the temperature is {self.temperature:.3g}, the largest that is tried: on the "
                "tiles that it is fitted on the head tells no class from another, and all become "
                "as likely as each other; look at its metrics before you use it"
            )
        return ""


def calibrate(
    logits: Floats32,
    target: Targets,
    cluster: Targets,
    learned: npt.NDArray[np.bool_] | None = None,
) -> Calibration:
    """Return the temperature that fits best, and what it does.

    Parameters
    ----------
    logits
        Of tiles that the head was not trained on, shape (tiles, K).
    target
        Their classes, shape (tiles,).
    cluster
        The number of each tile's slide, or of what else is a unit, shape (tiles,).
    learned
        Whether the head was trained on the tile's class, shape (tiles,): these fit the temperature;
        all by default.

    Examples
    --------
    >>> logits = np.array([[4, 0], [4, 0], [4, 0], [0, 4]], dtype=np.float32)
    >>> calibration = calibrate(logits, np.array([0, 0, 1, 1]), np.zeros(4, dtype=int))
    >>> round(calibration.temperature, 2), calibration.parts  # right 3 times of 4: 4 / log(3)
    (3.64, 1)
    >>> errors = calibration.error_before, calibration.error_after
    >>> [round(error, 2) for error in errors], calibration.error_cross_fitted
    ([0.23, 0.0], nan)
    """
    learned = np.ones(len(target), dtype=bool) if learned is None else learned
    best = temperature(logits[learned], target[learned])
    parts = min(PARTS, len(np.unique(cluster)))
    return Calibration(
        temperature=best,
        error_before=calibration_error(scaled(logits, 1.0), target),
        error_after=calibration_error(scaled(logits, best), target),
        error_cross_fitted=(
            calibration_error(cross_fitted(logits, target, (cluster, learned), parts), target)
            if parts > 1
            else np.nan
        ),
        parts=parts,
    )


def cross_fitted(
    logits: Floats32,
    target: Targets,
    tiles: tuple[Targets, npt.NDArray[np.bool_]],
    parts: int,
) -> Floats32:
    """Return each tile's probabilities at the temperature of the other parts, shape (tiles, K).

    Parameters
    ----------
    tiles
        Cluster of each, and whether its class was learned, as in `calibrate`.
    parts
        How many; each cluster is in one.
    """
    from sklearn.model_selection import GroupKFold  # a second, which a gate need not wait for

    probabilities, (cluster, learned) = np.empty_like(logits), tiles
    for others, part in GroupKFold(parts).split(logits, groups=cluster):
        others = others[learned[others]]
        best = temperature(logits[others], target[others])
        probabilities[part] = scaled(logits[part], best)
    return probabilities


def scaled(logits: Floats32, temperature: float) -> Floats32:
    """Return the probabilities of logits divided by a temperature; shape (tiles, K)."""
    from scipy.special import softmax  # as in `cross_entropy`

    probabilities: Floats32 = softmax(logits.astype(float) / temperature, axis=1)
    return probabilities.astype(np.float32)


def cross_entropy(
    logits: npt.NDArray[np.floating],
    target: Targets,
    weights: npt.NDArray[np.float64] | None = None,
) -> float:
    """Return the mean of -log p of the true class, each tile weighted by its class.

    In double precision and from logits: of these no probability is too small. The logarithms of
    probabilities are logits, too.
    """
    from scipy.special import log_softmax  # a tenth of a second, which a refusal need not wait for

    by_tile = -log_softmax(logits.astype(float), axis=1)[np.arange(len(target)), target]
    if weights is None:
        return float(by_tile.mean())
    counted = weights[target] > 0  # a class that the head was not trained on weighs nothing
    weight = weights[target[counted]]
    return float(by_tile[counted] @ weight / max(weight.sum(), 1e-12))


def temperature(logits: Floats32, target: Targets) -> float:
    """Return the temperature with the least cross entropy, in `RANGE`.

    C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger (2017), "On calibration of modern neural
    networks". It changes no prediction, only how sure they are. The cross entropy is convex in
    1 / T, so that it has one minimum. An end of the range is returned as such: where all tiles are
    predicted rightly, no temperature is small enough.
    """
    from scipy.optimize import minimize_scalar  # a third of a second, for who calibrates

    # Of a true class without a logit no temperature is right.
    possible = np.isfinite(logits[np.arange(len(target)), target])
    if not possible.any():
        return 1.0
    values, classes = logits[possible].astype(float), target[possible]
    # Each tile's logits below its largest, so that no exponential overflows; tiles run fastest.
    below = np.ascontiguousarray((values - values.max(axis=1, keepdims=True)).T)
    mean_of_true = below[classes, np.arange(len(classes))].mean()

    def loss(log: float) -> float:
        inverse = np.exp(-log)
        partition = np.exp(below * inverse).sum(axis=0)
        return float(np.log(partition).mean() - mean_of_true * inverse)

    optimum = minimize_scalar(loss, bounds=RANGE, method="bounded").x
    # The first of equals: logits that are all the same have no best temperature.
    return float(np.exp(min((0.0, *RANGE, optimum), key=loss)))


def risk_coverage(probabilities: Floats32, target: Targets) -> dict[str, list[float]]:
    """Return how many errors are left if only the surest predictions are given.

    Tiles that are equally sure are given together, so that the order of tiles does not matter.

    Returns
    -------
    dict
        ``coverage``, the share of the tiles; ``risk``, the share of errors among them;
        ``confidence``, the probability that they have at least. At most about `POINTS` of the
        points, evenly by coverage; the last is that of all tiles.

    Examples
    --------
    >>> probabilities = np.array([[0.5, 0.5], [0.0, 1.0], [0.5, 0.5]], dtype=np.float32)
    >>> risk_coverage(probabilities, np.array([0, 1, 1]))["risk"]
    [0.0, 0.3333333333333333]
    """
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence)
    descending = confidence[order]
    wrong = (probabilities.argmax(axis=1) != target)[order].cumsum()
    last = np.flatnonzero(np.diff(descending, append=np.nan))  # of those that are equally sure
    evenly = np.linspace(0, len(order) - 1, POINTS).round()
    at = last[np.unique(np.searchsorted(last, evenly))]
    return {
        "coverage": ((at + 1) / len(order)).tolist(),
        "risk": (wrong[at] / (at + 1)).tolist(),
        "confidence": descending[at].astype(float).tolist(),
    }
