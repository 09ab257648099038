"""The cell of a confusion matrix that a tile counts in: the one formula, of NumPy and of torch."""

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:  # whoever has arrays alone needs no torch
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    Integers = TypeVar("Integers", npt.NDArray[np.int64], Tensor)


def confusion_index(
    cluster: "Integers", target: "Integers", predicted: "Integers", classes: int
) -> "Integers":
    """Return each tile's index into counts of shape (clusters, K, K), laid out flat.

    Parameters
    ----------
    cluster
        Number of the tile's slide, or of what else is counted apart.
    target, predicted
        True and predicted class.
    classes
        K.

    Examples
    --------
    >>> import numpy as np
    >>> confusion_index(np.array([0, 1]), np.array([1, 0]), np.array([0, 2]), 3)
    array([ 3, 11])
    """
    return (cluster * classes + target) * classes + predicted
