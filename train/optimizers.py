"""Optimizers by name."""

from collections.abc import Callable, Iterable

from torch import nn, optim

OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter], float, float], optim.Optimizer]] = {
    "adamw": lambda weights, rate, decay: optim.AdamW(weights, lr=rate, weight_decay=decay),
    "sgd": lambda weights, rate, decay: optim.SGD(
        weights, lr=rate, weight_decay=decay, momentum=0.9, nesterov=True
    ),
}
