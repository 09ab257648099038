"""Confusion matrices by cluster, as counts: they add up over blocks and processes exactly."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

Integers = TypeVar("Integers", Tensor, npt.NDArray[np.int64])


def confusion_index(
    cluster: Integers, target: Integers, predicted: Integers, classes: int
) -> Integers:
    """Return where a tile is counted in a flat array of shape (clusters, K, K).

    Parameters
    ----------
    cluster, target, predicted
        Integers of one shape.
    classes
        K.
    """
    return (cluster * classes + target) * classes + predicted
