"""Optimizers by name."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import optim

OPTIMIZERS: dict[str, Callable[[Iterable[Any], float, float], optim.Optimizer]] = {
    "adamw": lambda weights, rate, decay: optim.AdamW(
        weights, lr=rate, weight_decay=decay, fused=True
    ),
    "sgd": lambda weights, rate, decay: optim.SGD(
        weights, lr=rate, weight_decay=decay, momentum=0.9, nesterov=True
    ),
}
