"""Whether a run, done again, says the same: its data and figures beside those it recorded."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from featurestore.snapshots.snapshot import Snapshot
from train.evaluation.metrics import needs_probabilities
from train.tracking.runs import RunRecord

COUNTED, MEASURED, ROUNDED = 1e-6, 1e-4, 2e-3
"""How far figures may be apart: counts of tiles; what probabilities make, whose last digits depend
on the blocks they were computed in; and either, where they were computed in bf16."""


def same_data(
    record: RunRecord, read: Mapping[str, str], earlier: Mapping[str, str], snapshot: Snapshot
) -> dict[str, bool | None]:
    """Return whether each input is as it was recorded; None where only the figures can tell.

    A snapshot is the same if its rows are, whatever rules and code have made them.

    Parameters
    ----------
    read, earlier
        Digests of the artifacts now, by today's rule and by that of runs recorded earlier.
    """
    names = [name for name in record.data if not name.startswith("snapshot")]
    same: dict[str, bool | None] = {
        name: record.data[name] in (read.get(name), earlier.get(name)) for name in names
    }
    if record.contents:
        same["snapshot"] = snapshot.content in record.contents
    else:
        same["snapshot"] = True if snapshot.digest in record.data.values() else None
    return same


def compared(
    metrics: Mapping[str, float], figures: Mapping[str, float], counted: float, measured: float
) -> list[dict[str, Any]]:
    """Return a row for every recorded figure that was found again.

    Parameters
    ----------
    counted, measured
        How far those that count tiles may be apart, and those that probabilities make.
    """
    rows = []
    for name, value in figures.items():
        if (before := metrics.get(name)) is None:
            continue
        tolerance = measured if needs_probabilities(name) else counted
        same = abs(before - value) <= tolerance or np.isnan([before, value]).all()
        rows.append({"figure": name, "recorded": before, "found": value, "same": bool(same)})
    return rows


def judged(rows: list[dict[str, Any]], same: Mapping[str, bool | None]) -> tuple[str, bool]:
    """Return the verdict on figures and data in words, and whether all is the same."""
    differing = [row for row in rows if not row["same"]]
    changed = [key for key, is_same in same.items() if is_same is False]
    if differing or changed:
        inputs = f", and the data: {', '.join(changed)}" if changed else ""
        return f"NOT the same: {len(differing)} of {len(rows)} figures differ{inputs}", False
    return (
        f"the same: {len(rows)} figures and all the {'data' if same['snapshot'] else 'artifacts'}",
        True,
    )
