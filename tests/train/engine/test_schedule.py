"""Learning rates by epoch, against torch's schedulers and rates written by hand."""

import numpy as np
import pytest
import torch
from engine_problems import (
    CLASSES,
    DIM,
    make_heads,
    make_plan,
    make_problem,
    make_weights,
    of_rank,
    one_head,
    run,
    smoothed_loss,
)
from ranks import ranks
from torch import Tensor, nn
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, SequentialLR

from train.engine.heads import train_mask
from train.engine.minibatch import MiniBatchTrainer
from train.engine.optimizers import OPTIMIZERS
from train.engine.sampler import batch_windows
from train.engine.schedule import SCHEDULES, Schedule
from train.engine.shard import Reduce, Shard

EPOCHS, WARMUP = 6, 2
HEADS = make_heads(fold=[0, 1, 2], learning_rate=[0.02, 0.01, 0.005], weight_decay=[0.1, 0.0, 0.1])


def scheduler(optimizer: torch.optim.Optimizer, kind: str, warmup: int):
    """Return torch's scheduler, stepped once an epoch."""
    rest = EPOCHS - warmup
    after = {
        "constant": lambda: ConstantLR(optimizer, 1.0),
        "cosine": lambda: CosineAnnealingLR(optimizer, rest),
        "linear": lambda: LinearLR(optimizer, 1.0, 0.0, rest),
    }[kind]()
    if not warmup:
        return after
    rising = LinearLR(optimizer, 1 / (warmup + 1), 1.0, warmup)
    return SequentialLR(optimizer, [rising, after], [warmup])


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, about the order of calls
@pytest.mark.parametrize("warmup", [0, 1, WARMUP])
@pytest.mark.parametrize("kind", SCHEDULES)
def test_rates_are_those_of_torch(kind: str, warmup: int):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    expected, rates = scheduler(optimizer, kind, warmup), []
    for _ in range(EPOCHS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        expected.step()
    schedule = Schedule(kind, warmup, EPOCHS)
    assert [0.3 * schedule.share(epoch) for epoch in range(EPOCHS)] == pytest.approx(rates)


def test_rates_written_by_hand():
    shares = [Schedule("linear", 3, 7).share(epoch) for epoch in range(7)]
    assert shares == [0.25, 0.5, 0.75, 1.0, 0.75, 0.5, 0.25]
    shares = [Schedule("cosine", 0, 4).share(epoch) for epoch in range(5)]
    assert shares == pytest.approx([1, (2 + 2**0.5) / 4, 0.5, (2 - 2**0.5) / 4, 0])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_heads_with_rates_of_their_own_are_those_of_a_loop_in_torch(shard: Shard, optimizer: str):
    problem, weights = make_problem(shard, HEADS), make_weights(len(HEADS))
    plan = make_plan(EPOCHS, optimizer=optimizer, schedule=Schedule("cosine", WARMUP, EPOCHS))
    trainer = MiniBatchTrainer(problem, plan, weights)
    for _ in trainer:
        pass
    for head in range(len(HEADS)):
        layer = nn.Linear(DIM, CLASSES)
        layer.weight.data, layer.bias.data = (
            weights.weight[head].clone(),
            weights.bias[head].clone(),
        )
        rate, decay = float(HEADS.learning_rate[head]), float(HEADS.weight_decay[head])
        more = {"momentum": 0.9, "nesterov": True} if optimizer == "sgd" else {}
        build = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[optimizer]
        steps = build(layer.parameters(), lr=rate, weight_decay=decay, **more)
        rates = scheduler(steps, "cosine", WARMUP)
        loss, rng = smoothed_loss(problem.losses.class_weights[head], 0.0), np.random.default_rng(0)
        for _ in range(EPOCHS):
            for window in batch_windows(600, 64, rng):
                rows = torch.cat([torch.arange(*part) for part in window])
                rows = rows[train_mask(shard, HEADS.select(one_head(head)))[0, rows]]
                steps.zero_grad()
                loss(layer(shard.x[rows]), shard.target[0, rows]).backward()
                steps.step()
            rates.step()
        torch.testing.assert_close(
            trainer.stepper.weights.weight[head], layer.weight.detach(), rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_it_goes_on_bit_for_bit_and_over_processes(shard: Shard, optimizer: str):
    """Whenever it was killed: heads that have stopped meanwhile included."""
    problem, weights = make_problem(shard, HEADS), make_weights(len(HEADS))
    plan = make_plan(
        EPOCHS, 1, min_delta=0.05, optimizer=optimizer, schedule=Schedule("linear", 1, EPOCHS)
    )
    expected = run(MiniBatchTrainer(problem, plan, weights))
    second = MiniBatchTrainer(problem, plan)
    first = MiniBatchTrainer(problem, plan, weights)
    for epoch in first:
        if epoch.number == 2:
            break
    second.load_state_dict(first.state_dict())
    result = run(second)
    assert torch.equal(result.weights.weight, expected.weights.weight)
    assert torch.equal(result.best_epoch, expected.best_epoch)

    def work(share: Shard, reduce: Reduce) -> Tensor:
        part = of_rank(problem, share, reduce)
        return run(MiniBatchTrainer(part, plan, weights)).weights.weight

    for weight in ranks(shard, 2, work):
        torch.testing.assert_close(weight, expected.weights.weight, rtol=1e-4, atol=1e-4)
