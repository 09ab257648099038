"""Optimizers by name."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import optim

T = TypeVar("T", bound=type[optim.Optimizer])


def _uncompiled(optimizer: T) -> T:
    """Return an optimizer that does not import torch's compiler, which costs over a second.

    Torch hides methods from its compiler, and imports it to do so; nothing here is compiled. Of
    what is wrapped around a step, one that is not differentiated needs that it has no gradient.
    """
    hidden = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    methods = {name: inspect.unwrap(getattr(optimizer, name)) for name in hidden}
    methods["step"] = torch.no_grad()(inspect.unwrap(optimizer.step))
    return type(optimizer.__name__, (optimizer,), methods)  # type: ignore[return-value]


AdamW, SGD = _uncompiled(optim.AdamW), _uncompiled(optim.SGD)

OPTIMIZERS: dict[str, Callable[[Iterable[Any], float, float], optim.Optimizer]] = {
    "adamw": lambda weights, rate, decay: AdamW(weights, lr=rate, weight_decay=decay, fused=True),
    "sgd": lambda weights, rate, decay: SGD(
        weights, lr=rate, weight_decay=decay, momentum=0.9, nesterov=True
    ),
}
