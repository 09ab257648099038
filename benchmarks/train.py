"""Rows a second of one linear head: this project's epoch against Lightning over a DataLoader.

    pip install -e '.[bench]' && python -m benchmarks.train --rows 100000 --dim 2560

One head, AdamW, class-weighted cross entropy, batches of 1024, float32, the same matrix in memory.
The rival is a LightningModule over a shuffled map-style DataLoader, in the main process and with
two workers, the better of them. Epochs take turns after one to warm up; the table shows medians.
"""

import argparse
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import lightning
import numpy as np
import torch
from accelerate import Accelerator
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from train import probe
from train.config import Config
from train.data import Split
from train.losses import class_weights
from train.session import Session
from train.tracking import NullTracker

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


def our_epoch(x: Tensor, target: Tensor, classes: int) -> Callable[[], float]:
    """Return a function that takes the seconds of an epoch of train/probe.py."""
    rows = len(x)
    split = Split(x, target, target * 0, 1, np.arange(rows), target, 0, 1)
    config = Config(batch_size=BATCH)
    session = Session(config, Accelerator(cpu=True), Console(quiet=True), NullTracker(), Path())
    head = nn.Linear(x.shape[1], classes)
    optimizer = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=DECAY)
    head, optimizer = session.accelerator.prepare(head, optimizer)
    weights = class_weights(torch.bincount(target, minlength=classes))
    rng = np.random.default_rng(0)

    def epoch() -> float:
        start = time.perf_counter()
        probe.train_epoch(session, head, optimizer, split, weights, rng)
        return time.perf_counter() - start

    return epoch


def reading(x: Tensor) -> Callable[[], float]:
    """Return a function that takes the seconds of reading the matrix once."""

    def read() -> float:
        start = time.perf_counter()
        x.sum()
        return time.perf_counter() - start

    return read


def main() -> None:
    """Take turns, print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=2560)
    parser.add_argument("--classes", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # Lightning's advice on workers
    torch.manual_seed(0)
    x = torch.randn(options.rows, options.dim)
    target = torch.randint(options.classes, (options.rows,))
    weights = class_weights(torch.bincount(target, minlength=options.classes))
    ways = {
        "train/probe.py": our_epoch(x, target, options.classes),
        "Lightning, DataLoader": rival_epoch(x, target, weights, 0),
        "Lightning, DataLoader, 2 workers": rival_epoch(x, target, weights, 2),
        "reading the matrix once": reading(x),
    }
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, way in ways.items():
            seconds[name].append(way())
    speed = {name: options.rows / statistics.median(taken) for name, taken in seconds.items()}
    table = Table(
        "", "rows/s", title=f"{options.rows:,} x {options.dim}, {options.classes} classes"
    )
    for name, rate in speed.items():
        table.add_row(name, f"{rate:,.0f}")
    Console().print(table)
    mine = speed["train/probe.py"]
    rival = max(rate for name, rate in speed.items() if name.startswith("Lightning"))
    print(f"{mine / rival:.1f} times Lightning (target: 3)")
    print(f"{mine / speed['reading the matrix once']:.0%} of the speed of reading the matrix once")


if __name__ == "__main__":
    main()
