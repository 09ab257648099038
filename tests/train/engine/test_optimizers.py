"""Steps of optimizers: bit for bit torch's own, also by the kernel alone."""

from typing import Any

import pytest
import torch
from torch import nn

from train.engine import optimizers

GROUPS: list[dict[str, Any]] = [{"lr": 0.01, "weight_decay": 0.1}, {"lr": 0.03, "weight_decay": 0}]


def grouped() -> list[dict[str, Any]]:
    """Return two groups of two parameters, the same every time."""
    rng = torch.Generator().manual_seed(0)
    shapes = ((5, 7), (5,))
    return [
        group | {"params": [nn.Parameter(torch.randn(shape, generator=rng)) for shape in shapes]}
        for group in GROUPS
    ]


def steps(optimizer: torch.optim.Optimizer, number: int, seed: int) -> list[torch.Tensor]:
    """Take some steps by random gradients; return the parameters."""
    rng = torch.Generator().manual_seed(seed)
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    for _ in range(number):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=rng)
        optimizer.step()
    return [parameter.detach().clone() for parameter in parameters]


def assert_same(result: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert all(torch.equal(*pair) for pair in zip(result, expected, strict=True))


def test_torch_has_the_private_kernel():
    """`_adamw_kernel` of train/engine/optimizers.py relies on `torch._fused_adamw_`."""
    assert optimizers.has_adamw_kernel()


@pytest.mark.parametrize("raised", [AttributeError, RuntimeError, TypeError])
def test_without_it_there_is_none(raised: type[Exception], monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise raised("another signature")

    monkeypatch.setattr(torch, "_fused_adamw_", refuse)
    assert not optimizers.has_adamw_kernel()


@pytest.mark.parametrize("has_kernel", [True, False])
def test_adamw_takes_torchs_steps(has_kernel: bool, monkeypatch: pytest.MonkeyPatch):
    """Bit for bit: at first, with another rate, and after its state was saved and loaded."""
    monkeypatch.setattr(optimizers, "HAS_ADAMW_KERNEL", has_kernel and optimizers.HAS_ADAMW_KERNEL)
    ours = optimizers.OPTIMIZERS["adamw"](grouped(), 0.0, 0.0)
    torchs = torch.optim.AdamW(grouped(), fused=True)
    assert_same(steps(ours, 3, seed=1), steps(torchs, 3, seed=1))
    for optimizer in (ours, torchs):
        optimizer.param_groups[0]["lr"] = 0.002
    assert_same(steps(ours, 2, seed=2), steps(torchs, 2, seed=2))
    again = optimizers.OPTIMIZERS["adamw"](
        [group | {"params": group["params"]} for group in ours.param_groups], 0.0, 0.0
    )
    again.load_state_dict(ours.state_dict())
    assert_same(steps(again, 2, seed=3), steps(torchs, 2, seed=3))


def test_a_parameter_without_gradient_stays():
    ours, torchs = optimizers.OPTIMIZERS["adamw"](grouped(), 0.0, 0.0), torch.optim.AdamW(grouped())
    for optimizer in (ours, torchs):
        steps(optimizer, 2, seed=1)
        optimizer.param_groups[0]["params"][1].grad = None
        optimizer.step()
    for group, expected in zip(ours.param_groups, torchs.param_groups, strict=True):
        for parameter, other in zip(group["params"], expected["params"], strict=True):
            torch.testing.assert_close(parameter, other)
