"""What a run reports of a solver: how far its heads are from their optimum."""

import warnings
from collections.abc import Sequence

import numpy as np

from featurestore.errors import FeatureStoreWarning
from train.engine.trainer import FitResult
from train.reports.html import Headline, Page, Text
from train.tracking.tracker import Tracker


def record(tracker: Tracker, result: FitResult, prefix: str) -> None:
    """Record what a solver proves of a single head; what is not finite proves nothing.

    Parameters
    ----------
    prefix
        Begins the names of metrics.
    """
    values = {f"{prefix}/{name}": float(value) for name, value in result.diagnostics.items()}
    tracker.metrics({name: value for name, value in values.items() if np.isfinite(value)})


def mark_unconverged(page: Page, result: FitResult, names: Sequence[str]) -> None:
    """Warn of heads that ended before their optimum, and mark the page.

    Parameters
    ----------
    names
        Of the heads.
    """
    message = unconverged(result, names)
    if message is None:
        return
    page.headlines.append(Headline("Solver", "not at its optimum", doubtful=True))
    page.add("model", Text(message))
    warnings.warn(message, FeatureStoreWarning, stacklevel=2)


def unconverged(result: FitResult, names: Sequence[str]) -> str | None:
    """Return which heads ended before their optimum, and how far from it; None if none did."""
    if "converged" not in result.diagnostics:
        return None
    objective, gap, converged = (
        result.diagnostics[name].numpy() for name in ("objective", "gap", "converged")
    )
    left = np.flatnonzero(converged == 0)
    if not len(left):
        return None
    worst = left[np.argmax(np.nan_to_num(gap[left] / objective[left], nan=np.inf))]
    bound = f"at most {gap[worst]:.2g}" if np.isfinite(gap[worst]) else "by no bound that is known"
    return (
        f"L-BFGS ended before the optimum: {len(left)} of {len(names)} heads, after "
        f"{int(result.best_epoch[left].max())} iterations. The objective of the furthest, "
        f"{names[worst]}, is {objective[worst]:.2g}, {bound} above its least: raise max_epochs, or "
        "weight_decay"
    )
