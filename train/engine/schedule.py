"""The learning rate of each epoch, as a share of the configured one.

A pure function of the number of the epoch: what was killed goes on without a state of it, and
heads of any learning rate follow it side by side, on however many processes.
"""

import math
from dataclasses import dataclass

SCHEDULES = ("constant", "cosine", "linear")


@dataclass(frozen=True)
class Schedule:
    """The shares of `torch.optim.lr_scheduler`, stepped once an epoch.

    Parameters
    ----------
    kind
        One of `SCHEDULES`: what follows the warm-up. ``cosine`` is ``CosineAnnealingLR``,
        ``linear`` is ``LinearLR`` from 1 to 0, over the epochs after the warm-up.
    warmup_epochs
        Epochs of rising shares, 1 / (w + 1) first: ``LinearLR`` with that ``start_factor``.
    epochs
        Where the shares would be 0: a head may stop long before.
    """

    kind: str = "constant"
    warmup_epochs: int = 0
    epochs: int = 1

    @property
    def varies(self) -> bool:
        """Whether the share is not 1 in every epoch."""
        return self.kind != "constant" or self.warmup_epochs > 0

    def share(self, epoch: int) -> float:
        """Return the share in an epoch, counted from 0."""
        if epoch < self.warmup_epochs:
            return (epoch + 1) / (self.warmup_epochs + 1)
        passed = (epoch - self.warmup_epochs) / max(self.epochs - self.warmup_epochs, 1)
        if self.kind == "cosine":
            return (1 + math.cos(math.pi * passed)) / 2
        return 1 - passed if self.kind == "linear" else 1.0


CONSTANT = Schedule()
