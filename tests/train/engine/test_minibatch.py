"""Heads by mini-batches: against torch's own optimizers, heads alone, and one process."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_problems import (
    CLASSES,
    DIM,
    MANY,
    assert_identical,
    make_heads,
    make_plan,
    make_problem,
    make_weights,
    of_rank,
    one_head,
    smoothed_loss,
    train,
)
from ranks import ranks
from sklearn.datasets import load_digits
from torch import Tensor, nn

from train.engine.heads import train_mask
from train.engine.minibatch import MiniBatchTrainer
from train.engine.optimizers import OPTIMIZERS
from train.engine.problem import Problem
from train.engine.sampler import batch_windows
from train.engine.shard import Reduce, Shard


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_head_is_what_torch_trains_on_its_own_tiles(shard: Shard, optimizer: str):
    heads, weights = make_heads(label_smoothing=[0.1]), make_weights(1)
    problem = make_problem(shard, heads)
    result = train(problem, make_plan(3, optimizer=optimizer), weights)
    layer = nn.Linear(DIM, CLASSES)
    layer.weight.data, layer.bias.data = weights.weight[0].clone(), weights.bias[0].clone()
    expected = {
        "adamw": lambda: torch.optim.AdamW(layer.parameters(), lr=0.01, weight_decay=1e-3),
        "sgd": lambda: torch.optim.SGD(
            layer.parameters(), lr=0.01, weight_decay=1e-3, momentum=0.9, nesterov=True
        ),
    }[optimizer]()
    loss = smoothed_loss(problem.losses.class_weights[0], 0.1)
    rng, states = np.random.default_rng(0), []
    for _ in range(3):
        for window in batch_windows(600, 64, rng):
            rows = torch.cat([torch.arange(*part) for part in window])
            rows = rows[train_mask(shard, heads)[0, rows]]
            expected.zero_grad()
            loss(layer(shard.x[rows]), shard.target[0, rows]).backward()
            expected.step()
        states.append(layer.weight.detach().clone())
    torch.testing.assert_close(
        result.weights.weight[0], states[int(result.best_epoch[0])], rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("zscore", [False, True])
def test_a_head_beside_others_is_the_head_alone(shard: Shard, zscore: bool):
    problem, plan = make_problem(shard, MANY, zscore=zscore), make_plan(6, patience=2)
    together = train(problem, plan)
    for index in range(len(MANY)):
        alone = train(problem.select(one_head(index)), plan)
        difference = together.weights.weight[index] - alone.weights.weight[0]
        assert difference.norm() / alone.weights.weight[0].norm() < 1e-4
        assert int(together.best_epoch[index]) == int(alone.best_epoch[0])


def test_heads_stop_when_their_own_loss_stops_falling(shard: Shard):
    """One that learns nothing is let go after its patience, and leaves the others alone."""
    problem = make_problem(shard, make_heads(learning_rate=[0.01, 0.0]))
    plan = make_plan(8, patience=2)
    trainer = MiniBatchTrainer(problem, plan, make_weights(2))
    active = [epoch.active.tolist() for epoch in trainer]
    result = trainer.result()
    assert active[0] == [0, 1]
    assert active[-1] == [0]
    assert result.best_loss[0] < result.best_loss[1]
    alone = train(make_problem(shard, make_heads()), plan)
    torch.testing.assert_close(result.weights.weight[0], alone.weights.weight[0])


def test_an_epoch_tells_of_the_tiles_apart(shard: Shard):
    """With tiles to validate on that are not trained on, of each epoch their confusion."""
    apart = replace(shard.cut(slice(400, None)), fold=torch.zeros((2, 200), dtype=torch.int64))
    apart = replace(apart, target=apart.target.clamp(min=0))
    rest = replace(shard.cut(slice(400)), fold=shard.fold[:, :400].clamp(max=0) + 1)
    heads = make_heads()
    problem = Problem.prepare((rest, apart), heads, CLASSES, lambda value: value)
    trainer = MiniBatchTrainer(problem, make_plan(3), make_weights(1))
    for epoch in trainer:
        assert epoch.confusion is not None
        assert epoch.confusion.shape == (CLASSES, CLASSES)
        assert int(epoch.confusion.sum()) == 200
        if epoch.number == int(trainer.result().best_epoch[0]):
            loss, confusion = trainer.result().evaluate()
            torch.testing.assert_close(epoch.validation_loss, loss)
            assert torch.equal(epoch.confusion, confusion[0])
    within = MiniBatchTrainer(make_problem(shard, heads), make_plan(1), make_weights(1))
    assert [epoch.confusion for epoch in within] == [None]


@pytest.mark.slow
def test_half_precision_costs_no_accuracy():
    """All 1,797 digits, five folds: at most 0.2 points between bf16 and float32."""
    images, digit = load_digits(return_X_y=True)
    number = torch.arange(len(images))
    x = torch.from_numpy(images.astype(np.float32) / 16)
    shard = Shard(
        x=x, target=torch.from_numpy(digit)[None], fold=number[None] % 5, cluster=number // 130,
        slide_rank=torch.ones(len(x)), clusters=14, rows=len(x),
    )  # fmt: skip
    heads = make_heads(fold=[0, 1, 2, 3, 4], learning_rate=[0.02])
    accuracy = {}
    for kind in (torch.float32, torch.bfloat16):
        result = train(make_problem(replace(shard, x=x.to(kind)), heads), make_plan(15))
        _, confusion = result.evaluate()
        accuracy[kind] = float(confusion.sum(dim=0).diagonal().sum()) / len(x)
    assert accuracy[torch.float32] > 0.95
    assert abs(accuracy[torch.float32] - accuracy[torch.bfloat16]) <= 0.002


@pytest.mark.parametrize(("rows", "world"), [(600, 2), (597, 4), (3, 4), (65, 2)])
def test_processes_train_what_one_trains(shard: Shard, rows: int, world: int):
    """Uneven shares, an empty one, a last batch of one tile that one process alone has."""
    shard = shard.cut(slice(rows))
    problem = make_problem(shard, MANY, zscore=True)

    def work(share: Shard, reduce: Reduce) -> tuple[Tensor, Tensor]:
        result = train(of_rank(problem, share, reduce), make_plan(3))
        return result.weights.weight, result.evaluate()[1]

    weight, confusion = work(shard, problem.reduce)
    for result in ranks(shard, world, work):
        torch.testing.assert_close(result[0], weight, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(result[1], confusion)


def test_training_goes_on_after_a_break(shard: Shard):
    problem, plan = make_problem(shard, MANY, zscore=True), make_plan(9, patience=1, min_delta=0.1)
    expected = MiniBatchTrainer(problem, plan, make_weights(len(MANY)))
    epochs = [epoch.number for epoch in expected]
    assert expected.active.tolist() == [5]  # the others have stopped
    trainer, numbers = MiniBatchTrainer(problem, plan, make_weights(len(MANY))), []
    while len(numbers) < len(epochs):
        for epoch in trainer:  # two at a time
            numbers.append(epoch.number)
            if epoch.number % 2:
                break
    assert numbers == epochs
    assert list(trainer) == []
    assert_identical(trainer.result(), expected.result())


def copied(state: dict, folder: Path) -> dict:
    """Return a state as memory keeps it."""
    return deepcopy(state)


def saved(state: dict, folder: Path) -> dict:
    """Return a state as a file keeps it."""
    torch.save(state, folder / "state.pt")
    return torch.load(folder / "state.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("heads", [6, 5], ids=["one trains on all", "all stop"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("keep", [copied, saved])
def test_a_trainer_goes_on_from_the_state_of_any_epoch(
    shard: Shard, keep, optimizer: str, heads: int, tmp_path: Path
):
    """Bit for bit, whatever the new one's initial weights; the last state is of the last epoch."""
    problem = make_problem(shard, MANY, zscore=True).select(torch.arange(heads))
    plan = make_plan(9, patience=1, min_delta=0.1, optimizer=optimizer)
    expected = MiniBatchTrainer(problem, plan, make_weights(heads))
    states = [keep(expected.state_dict(), tmp_path)]
    epochs = []
    for epoch in expected:
        epochs.append(epoch)
        states.append(keep(expected.state_dict(), tmp_path))
    assert heads > len(epochs[-1].active)  # some have stopped before others
    assert expected.active.tolist() == [5] * (heads == 6)
    for number, state in enumerate(states):
        trainer = MiniBatchTrainer(problem, plan)
        trainer.load_state_dict(state)
        rest = list(trainer)
        assert [epoch.number for epoch in rest] == list(range(number, len(epochs)))
        for epoch, uninterrupted in zip(rest, epochs[number:], strict=True):
            assert torch.equal(epoch.active, uninterrupted.active)
            assert torch.equal(epoch.train_loss, uninterrupted.train_loss)
            assert torch.equal(epoch.validation_loss, uninterrupted.validation_loss)
        assert_identical(trainer.result(), expected.result())


def test_trainers_of_one_state_share_nothing(shard: Shard):
    """A state is loaded twice, from a trainer that goes on itself: none changes another's."""
    problem, plan = make_problem(shard, MANY), make_plan(5)
    trainers = [MiniBatchTrainer(problem, plan, make_weights(len(MANY))) for _ in range(3)]
    for epoch in trainers[0]:
        if epoch.number == 1:
            break
    for trainer in trainers[1:]:
        trainer.load_state_dict(trainers[0].state_dict())
    results = []
    for trainer in trainers:
        for _ in trainer:
            pass
        results.append(trainer.result())
    assert_identical(results[1], results[0])
    assert_identical(results[2], results[0])
    assert_identical(results[0], train(problem, plan))
