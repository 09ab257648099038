"""Class weights and the class-weighted cross entropy."""

from torch import Tensor
from torch.nn import functional


def class_weights(counts: Tensor) -> Tensor:
    """Return n / (K * max(count, 1)) per class, the "balanced" weights of scikit-learn.

    Parameters
    ----------
    counts
        Training tiles per class, shape (K,), integers.
    """
    return counts.sum() / (len(counts) * counts.clamp(min=1))


def cross_entropy_sum(
    logits: Tensor, targets: Tensor, weights: Tensor, smoothing: float = 0.0
) -> Tensor:
    """Return the sum of weighted cross entropies; the caller divides by the sum of weights.

    A sum, not a mean: sums add up over blocks and processes, means do not.
    """
    return functional.cross_entropy(
        logits, targets, weight=weights, reduction="sum", label_smoothing=smoothing
    )
