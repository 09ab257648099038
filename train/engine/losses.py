"""Class weights and the class-weighted cross entropy."""

from dataclasses import dataclass
from functools import cached_property

import torch
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


@dataclass(frozen=True)
class HeadLosses:
    """The weighted cross entropy of each head, with label smoothing, as sums over tiles.

    A tile's loss is ``-(1 - s) w[t] log p[t] - s / K * sum over c of w[c] log p[c]`` with its class
    t and the head's class weights w, as in `torch.nn.CrossEntropyLoss`; the sums are to be divided
    by the sum of ``w[t]``.

    Parameters
    ----------
    class_weights
        Shape (H, K).
    label_smoothing
        s, shape (H,).
    """

    class_weights: Tensor
    label_smoothing: Tensor

    def select(self, heads: Tensor) -> "HeadLosses":
        """Return those of some heads."""
        return HeadLosses(self.class_weights[heads], self.label_smoothing[heads])

    def plain(self) -> "HeadLosses":
        """Return the same without label smoothing, to validate by."""
        return HeadLosses(self.class_weights, torch.zeros_like(self.label_smoothing))

    @cached_property
    def smooths(self) -> bool:
        """Whether any head smooths: asked once, since to ask a GPU is to wait for it."""
        return bool(self.label_smoothing.any())

    def residuals(self, logits: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient with respect to the logits, and sums of losses and weights.

        Parameters
        ----------
        logits
            Shape (H, K, rows).
        target
            Shape (H, rows).
        mask
            Which tiles count, shape (H, rows).

        Returns
        -------
        residuals : Tensor, shape (H, K, rows)
        sums : Tensor of double, shape (2, H)
            Losses, and weights of the tiles.
        """
        target = target.clamp(min=0)
        weight = self.class_weights.gather(1, target) * mask
        log_probability = logits.log_softmax(dim=1)
        target_weight = (1 - self.label_smoothing[:, None]) * weight
        loss = -target_weight * log_probability.gather(1, target[:, None])[:, 0]
        total_weight = target_weight
        if self.smooths:
            even = self.class_weights * (
                self.label_smoothing[:, None] / self.class_weights.shape[1]
            )
            loss -= torch.einsum("hkr,hk->hr", log_probability, even) * mask
            total_weight = target_weight + even.sum(dim=1, keepdim=True) * mask
        residual = log_probability.exp_().mul_(total_weight[:, None])
        residual.scatter_add_(1, target[:, None], -target_weight[:, None])
        if self.smooths:
            residual -= even[..., None] * mask[:, None]
        sums = torch.stack(
            [loss.sum(dim=1, dtype=torch.float64), weight.sum(dim=1, dtype=torch.float64)]
        )
        return residual, sums
