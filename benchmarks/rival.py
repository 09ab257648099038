"""The rival of `benchmarks.engine`: one linear head as one writes it in Lightning."""

import time
from collections.abc import Callable

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

BATCH, RATE, DECAY = 1024, 1e-4, 1e-3


class Rival(lightning.LightningModule):
    """A linear head as one writes it in Lightning."""

    def __init__(self, dim: int, weights: Tensor) -> None:
        super().__init__()
        self.head = nn.Linear(dim, len(weights))
        self.loss = nn.CrossEntropyLoss(weight=weights)

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        x, target = batch
        return self.loss(self.head(x), target)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=RATE, weight_decay=DECAY)


def rival_epoch(x: Tensor, target: Tensor, weights: Tensor, workers: int) -> Callable[[], float]:
    """Return a function that takes the seconds of a Lightning epoch."""
    loader = DataLoader(
        TensorDataset(x, target), BATCH, shuffle=True, num_workers=workers,
        persistent_workers=workers > 0,
    )  # fmt: skip
    module = Rival(x.shape[1], weights)

    def epoch() -> float:
        marks: list[float] = []

        class Clock(lightning.Callback):
            def on_train_epoch_start(self, *_: object) -> None:
                marks.append(time.perf_counter())

            def on_train_epoch_end(self, *_: object) -> None:
                marks.append(time.perf_counter())

        trainer = lightning.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, callbacks=[Clock()],
        )  # fmt: skip
        trainer.fit(module, loader)
        return marks[1] - marks[0]

    return epoch
