"""Confusion matrices by slide, counted batch by batch."""

import torch
from torch import Tensor
from torchmetrics import Metric

from train.engine.confusion import confusion_index


class SlideConfusion(Metric):
    """Counts tiles by slide, true and predicted class; torchmetrics sums it over processes.

    Parameters
    ----------
    slides, classes
        Numbers of slides and of classes.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, slides: int, classes: int) -> None:
        super().__init__()
        self.shape = (slides, classes, classes)
        zeros = torch.zeros(self.shape, dtype=torch.int64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")

    def update(self, slide: Tensor, target: Tensor, predicted: Tensor) -> None:
        """Count some tiles, each given once."""
        _, classes, _ = self.shape
        index = confusion_index(slide, target, predicted, classes)
        self.counts += torch.bincount(index, minlength=self.counts.numel()).view(self.shape)

    def compute(self) -> Tensor:
        """Return the counts, shape (slides, K, K)."""
        return self.counts
