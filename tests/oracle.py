"""A slow, obvious oracle of the rules, tile by tile, written from the rules and not the code."""

from functools import reduce
from operator import add

import pandas as pd

REASONS = ["background", "tissue", "multi_class", "class_threshold", "rare_class", "no_embedding"]


def label(shares: dict[str, float], thresholds: dict[str, float], rule: str) -> str:
    """Return the label of one tile; classes stand in column order."""
    if all(share == 0 for share in shares.values()):
        return "background"
    candidates = shares
    if rule == "any_passing":
        passing = {name: s for name, s in shares.items() if s > 0 and s >= thresholds[name]}
        candidates = passing or shares
    best = max(candidates.values())
    return next(name for name, share in candidates.items() if share == best)


def dropped_by(
    shares: dict[str, float],
    thresholds: dict[str, float],
    tissue_prop_min: float,
    single_class: bool,
    rule: str,
) -> str | None:
    """Return the first reason in order, or None."""
    present = [name for name, share in shares.items() if share > 0]
    if not present:
        return "background"
    if reduce(add, shares.values()) < tissue_prop_min:
        return "tissue"
    if single_class and len(present) > 1:
        return "multi_class"
    asked = present if rule == "any_passing" else [label(shares, thresholds, "dominant")]
    if not any(shares[name] > 0 and shares[name] >= thresholds[name] for name in asked):
        return "class_threshold"
    return None


def funnel(fates: pd.Series) -> dict[str, int]:
    """Count fates."""
    counts = {"input": len(fates)}
    counts |= {reason: int((fates == reason).sum()) for reason in REASONS}
    return counts | {"kept": int(fates.isna().sum())}
