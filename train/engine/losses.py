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
    weights
        Class weights, shape (H, K).
    smoothing
        Label smoothing s, shape (H,).
    """

    weights: Tensor
    smoothing: Tensor

    def of(self, heads: Tensor) -> "HeadLosses":
        """Return those of some heads."""
        return HeadLosses(self.weights[heads], self.smoothing[heads])

    def plain(self) -> "HeadLosses":
        """Return the same without label smoothing, to validate by."""
        return HeadLosses(self.weights, torch.zeros_like(self.smoothing))

    @cached_property
    def smooth(self) -> bool:
        """Whether any head smooths: asked once, since to ask a GPU is to wait for it."""
        return bool(self.smoothing.any())

    def residuals(self, logits: Tensor, target: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient with respect to the logits, and sums of losses and weights.

        Parameters
        ----------
        logits
            Shape (H, K, rows).
        target
            Shape (H, rows).
        own
            Which tiles count, shape (H, rows).

        Returns
        -------
        residuals : Tensor, shape (H, K, rows)
        sums : Tensor of double, shape (2, H)
            Losses, and weights of the tiles.
        """
        known = target.clamp(min=0)
        mass = self.weights.gather(1, known) * own
        logs = logits.log_softmax(dim=1)
        aimed = (1 - self.smoothing[:, None]) * mass
        losses = -aimed * logs.gather(1, known[:, None])[:, 0]
        pull = aimed
        if self.smooth:
            even = self.weights * (self.smoothing[:, None] / self.weights.shape[1])
            losses -= torch.einsum("hkr,hk->hr", logs, even) * own
            pull = aimed + even.sum(dim=1, keepdim=True) * own
        residual = logs.exp_().mul_(pull[:, None])
        residual.scatter_add_(1, known[:, None], -aimed[:, None])
        if self.smooth:
            residual -= even[..., None] * own[:, None]
        sums = torch.stack(
            [losses.sum(dim=1, dtype=torch.float64), mass.sum(dim=1, dtype=torch.float64)]
        )
        return residual, sums
