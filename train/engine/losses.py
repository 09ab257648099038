"""Class weights and the class-weighted cross entropy.

A tile's loss is ``w[t] * ((1 - s) * -log p[t] + s * mean over c of -log p[c])``: its class t weighs
it, and label smoothing s spreads a share of its target evenly over the classes c that there are to
learn, those that weigh something. See docs/decisions/027-absent-classes.md.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100  # the target that torch's cross entropy passes over


def class_weights(counts: Tensor) -> Tensor:
    """Return n / (K * count) per class, scikit-learn's "balanced" weights; 0 without a tile.

    Parameters
    ----------
    counts
        Training tiles per class, shape (K,), integers.
    """
    return counts.sum() / (len(counts) * counts.clamp(min=1)) * (counts > 0)


def smoothing_target(class_weights: Tensor) -> Tensor:
    """Return what label smoothing spreads a tile's target over: evenly, the classes with a weight.

    Parameters
    ----------
    class_weights
        Shape (..., K).
    """
    learned = (class_weights > 0).to(class_weights.dtype)
    return learned / learned.sum(dim=-1, keepdim=True).clamp(min=1)


def cross_entropy_sum(
    logits: Tensor, targets: Tensor, weights: Tensor, smoothing: float = 0.0
) -> Tensor:
    """Return the sum of weighted cross entropies; the caller divides by the sum of weights.

    A sum, not a mean: sums add up over blocks and processes, means do not. A tile whose class
    weighs nothing adds nothing, however unlikely a head finds the class.
    """
    counted = torch.where(weights[targets] > 0, targets, IGNORED)
    hard = functional.cross_entropy(
        logits, counted, weight=weights, reduction="sum", ignore_index=IGNORED
    )
    if not smoothing:
        return hard
    even = -(logits.log_softmax(dim=1) @ smoothing_target(weights))
    return (1 - smoothing) * hard + smoothing * (weights[targets] * even).sum()


@dataclass(frozen=True)
class HeadLosses:
    """The weighted cross entropy of each head, with label smoothing, as sums over tiles.

    The sums are to be divided by the sum of the tiles' weights.

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

    def residuals(
        self, logits: Tensor, target: Tensor, variant: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the gradient with respect to the logits, and the sum of each head's losses.

        Parameters
        ----------
        logits
            Shape (H, K, rows).
        target
            Of each variant of the rules, shape (variants, rows); negative where it drops the tile.
        variant
            Of each head, shape (H,).
        weight
            What the tiles weigh for each head, shape (H, rows).

        Returns
        -------
        residuals : Tensor, shape (H, K, rows)
        losses : Tensor of double, shape (H,)
        """
        weight = weight.to(logits.dtype)
        minus_target_weight = -weight
        if self.smooths:
            minus_target_weight *= 1 - self.label_smoothing[:, None]
        log_probability = logits.log_softmax(dim=1)
        flat, place = log_probability.view(-1), _places(target, variant, logits)
        loss = flat.index_select(0, place).view_as(weight)
        # A class that cannot be predicted has -inf, which times a weight of 0 is no number.
        loss.clamp_(min=torch.finfo(loss.dtype).min).mul_(minus_target_weight)
        if self.smooths:
            even = self.label_smoothing[:, None] * smoothing_target(self.class_weights)
            even = even.to(logits.dtype)
            loss -= torch.einsum("hkr,hk->hr", log_probability, even) * weight
        residual = log_probability.exp_().mul_(weight[:, None])
        flat.index_add_(0, place, minus_target_weight.view(-1))
        if self.smooths:
            residual -= even[..., None] * weight[:, None]
        return residual, loss.sum(dim=1, dtype=torch.float64)


def _places(target: Tensor, variant: Tensor, logits: Tensor) -> Tensor:
    """Return where the logits of the tiles' own classes stand, head by head; shape (H * rows,)."""
    heads, classes, rows = logits.shape
    row, head = (torch.arange(number, device=target.device) for number in (rows, heads))
    within = (target.clamp(min=0) * rows).add_(row)  # the logits of one head
    return within.index_select(0, variant).add_((head * (classes * rows))[:, None]).view(-1)
