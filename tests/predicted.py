"""Predictions of tiles, as tests make them."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from train.predictions.table import Predictions


def predictions(
    target: np.ndarray, probabilities: np.ndarray, slide: np.ndarray, classes: Sequence[str]
) -> Predictions:
    """Return the predictions of tiles on slides of these numbers."""
    keys = pa.table({
        "slide_id": [f"s{number}" for number in slide],
        "x": np.arange(len(slide)),
        "y": np.zeros(len(slide), dtype=np.int64),
    })  # fmt: skip
    return Predictions(keys, np.asarray(target), np.float32(probabilities), list(classes))
