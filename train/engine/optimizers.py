"""Optimizers by name."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, optim

T = TypeVar("T", bound=type[optim.Optimizer])
HIDDEN = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


def _uncompiled(optimizer: T, step: Callable[..., Any]) -> T:
    """Return an optimizer that does not import torch's compiler, which costs over a second.

    Torch hides methods from its compiler, and imports it to do so; nothing here is compiled. Of
    what is wrapped around a step, one that is not differentiated needs that it has no gradient.
    """
    methods = {name: inspect.unwrap(getattr(optimizer, name)) for name in HIDDEN}
    methods["step"] = torch.no_grad()(step)
    return type(optimizer.__name__, (optimizer,), methods)  # type: ignore[return-value]


def _adamw_kernel(groups: list[dict[str, Any]], states: dict[Tensor, dict[str, Tensor]]) -> None:
    """Take a step of all groups by the kernel that torch's own AdamW calls at the end.

    The functions are torch's own and private: another version may call them otherwise.
    """
    torch._foreach_add_([state["step"] for state in states.values()], 1)
    for group in groups:
        parameters = group["params"]
        of_each = [states[parameter] for parameter in parameters]
        torch._fused_adamw_(
            parameters, [parameter.grad for parameter in parameters],
            [state["exp_avg"] for state in of_each], [state["exp_avg_sq"] for state in of_each],
            [], [state["step"] for state in of_each],
            lr=group["lr"], beta1=group["betas"][0], beta2=group["betas"][1],
            weight_decay=group["weight_decay"], eps=group["eps"], amsgrad=False, maximize=False,
        )  # fmt: skip


def has_adamw_kernel() -> bool:
    """Return whether this build of torch has AdamW's kernel for CPUs, called as above."""
    parameter = torch.ones(1)
    parameter.grad = torch.ones(1)
    group = {
        "params": [parameter], "lr": 0.5, "betas": (0.9, 0.999), "weight_decay": 0.5, "eps": 0.0
    }  # fmt: skip
    state = {"step": torch.zeros(()), "exp_avg": torch.zeros(1), "exp_avg_sq": torch.zeros(1)}
    try:
        _adamw_kernel([group], {parameter: state})
    except (AttributeError, RuntimeError, TypeError):  # there is none, or it takes other arguments
        return False
    return abs(float(parameter) - 0.25) < 1e-3  # decays by a quarter, then moves by the rate


HAS_ADAMW_KERNEL = has_adamw_kernel()
_step_of_torch = inspect.unwrap(optim.AdamW.step)


def _adamw_step(self: optim.AdamW, closure: Callable[[], float] | None = None) -> float | None:
    """Take torch's step: bit for bit the same, but without what it asks of every group before.

    That is 40 us a group on a CPU, of eight learning rates a third of what the step itself takes.
    The first step, which makes the state, and those on a GPU, where a graph holds them, are
    torch's.
    """
    parameters = [parameter for group in self.param_groups for parameter in group["params"]]
    has_state = len(self.state) == len(parameters) and all(self.state.values())
    if HAS_ADAMW_KERNEL and has_state and closure is None and all(
        parameter.is_cpu and parameter.grad is not None for parameter in parameters
    ):  # fmt: skip
        _adamw_kernel(self.param_groups, self.state)
        return None
    loss: float | None = _step_of_torch(self, closure)
    return loss


AdamW = _uncompiled(optim.AdamW, _adamw_step)
SGD = _uncompiled(optim.SGD, inspect.unwrap(optim.SGD.step))

OPTIMIZERS: dict[str, Callable[[Iterable[Any], float, float], optim.Optimizer]] = {
    "adamw": lambda weights, rate, decay: AdamW(weights, lr=rate, weight_decay=decay, fused=True),
    "sgd": lambda weights, rate, decay: SGD(
        weights, lr=rate, weight_decay=decay, momentum=0.9, nesterov=True
    ),
}
