"""Which figure of an epoch says which epoch is kept, and when a head stops.

The figure is turned so that lower is better, whatever its direction: the trainers only compare.
"""

import torch
from torch import Tensor

F1 = "validation/f1_macro"
MONITORS = {"validation/loss": "lowest", F1: "highest", "train/loss": "lowest"}
"""The figures that can be monitored, and which end of each is the best."""


def monitored(monitor: str, train_loss: Tensor, validation_loss: Tensor, f1: Tensor) -> Tensor:
    """Return the monitored figure of each head, lower is better, shape (A,).

    Parameters
    ----------
    monitor
        One of `MONITORS`.
    train_loss, validation_loss
        Shape (A,).
    f1
        Macro F1, shape (A,); it is looked at where it is monitored.
    """
    if monitor == F1:
        return -f1
    return train_loss if monitor == "train/loss" else validation_loss


def f1_macro(hits: Tensor, true: Tensor, predicted: Tensor) -> Tensor:
    """Return the mean F1 of the classes that are in truth or prediction, shape (H,).

    Not a number where there is no tile; else that of `train.evaluation.metrics`, which knows no
    torch.

    Parameters
    ----------
    hits, true, predicted
        Tiles of each class that were predicted rightly, that are of it, and that were predicted
        to be; shape (H, K).
    """
    return (2 * hits.double() / (true + predicted)).nanmean(dim=-1)


def f1_of_confusion(confusion: Tensor) -> Tensor:
    """Return the macro F1 of confusions by true and predicted class, shape (H, K, K)."""
    hits = torch.diagonal(confusion, dim1=-2, dim2=-1)
    return f1_macro(hits, confusion.sum(dim=-1), confusion.sum(dim=-2))
