"""A slow, obvious oracle of the rules, tile by tile, written from the rules and not the code."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd

Share = float | np.floating | Decimal
EPSILON = {np.float32: Fraction(1, 2**23), np.float64: Fraction(1, 2**52), Decimal: 0}
"""Of the types that columns have; decimals are exact."""
REASONS = ["filtered", "background", "dropped_class", "tissue", "multi_class", "class_threshold",
           "rare_class", "no_embedding"]  # fmt: skip


def reaches(share: Share, threshold: float) -> bool:
    """Return whether a coverage reaches a threshold as its own type has it, and is any."""
    least = Decimal(str(threshold)) if isinstance(share, Decimal) else type(share)(threshold)
    return share > 0 and share >= least


def tissue(shares: list[Share], tissue_prop_min: float) -> bool:
    """Return whether the exact sum reaches the bound, within the tolerance of the contract."""
    bound = Fraction(str(tissue_prop_min))
    slack = max(EPSILON[type(share)] for share in shares)
    if slack:
        slack += len(shares) * EPSILON[np.float64]
    return sum(Fraction(share) for share in map(exact, shares)) >= bound * (1 - slack)


def exact(share: Share) -> Decimal | float:
    """Return what Fraction takes."""
    return share if isinstance(share, Decimal) else float(share)


def label(shares: dict[str, Share], thresholds: dict[str, float], rule: str) -> str:
    """Return the label of one tile; classes stand in column order."""
    if all(share == 0 for share in shares.values()):
        return "background"
    candidates = shares
    if rule == "any_passing":
        passing = {name: s for name, s in shares.items() if reaches(s, thresholds[name])}
        candidates = passing or shares
    best = max(candidates.values())
    return next(name for name, share in candidates.items() if share == best)


def dropped_by(
    shares: dict[str, Share],
    thresholds: dict[str, float],
    tissue_prop_min: float,
    single_class: bool,
    rule: str,
) -> str | None:
    """Return the first reason in order, or None."""
    present = [name for name, share in shares.items() if share > 0]
    if not present:
        return "background"
    if not tissue(list(shares.values()), tissue_prop_min):
        return "tissue"
    if single_class and len(present) > 1:
        return "multi_class"
    asked = present if rule == "any_passing" else [label(shares, thresholds, "dominant")]
    if not any(reaches(shares[name], thresholds[name]) for name in asked):
        return "class_threshold"
    return None


def funnel(fates: pd.Series) -> dict[str, int]:
    """Count fates."""
    counts = {"input": len(fates)}
    counts |= {reason: int((fates == reason).sum()) for reason in REASONS}
    return counts | {"kept": int(fates.isna().sum())}
