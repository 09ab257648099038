"""The MLP's trainer: against a loop in plain torch, killed and gone on with, and from the disk."""

import io
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from engine_problems import CLASSES, make_heads, make_plan, run, same, smoothed_loss
from torch import nn

from train.config.schema import Config
from train.engine.problem import Problem
from train.engine.sampler import batch_windows
from train.engine.schedule import Schedule
from train.engine.shard import Shard
from train.engine.stream import Stream
from train.fitting.autograd import AutogradTrainer
from train.runtime.processes import Processes

RATE, DECAY, SMOOTHING, HIDDEN = 0.01, 1e-3, 0.1, 8


@pytest.fixture(scope="module")
def sides(shard: Shard) -> tuple[Shard, Shard]:
    """Tiles to train and to validate on, each side a shard: slides 0 to 8, and 9 to 11."""
    kept = (shard.target[0] >= 0).nonzero()[:, 0]
    halves = (kept[kept < 450], kept[kept >= 450])
    return tuple(
        replace(
            shard, x=shard.x[rows], target=shard.target[:1, rows], rows=len(rows),
            fold=torch.full((1, len(rows)), side), cluster=shard.cluster[rows],
            slide_rank=shard.slide_rank[rows],
        )
        for side, rows in enumerate(halves)
    )  # type: ignore[return-value]  # a pair  # fmt: skip


def make_trainer(sides: tuple[Shard, Shard], normalize: str = "none", epochs: int = 3):
    train, validation = (replace(side, x=deepcopy(side.x)) for side in sides)
    heads = make_heads(fold=[1], label_smoothing=[SMOOTHING])
    zscore = normalize == "zscore"
    problem = Problem.prepare((train, validation), heads, CLASSES, same, zscore)
    config = Config(
        head="mlp", hidden=HIDDEN, normalize=normalize, learning_rate=RATE, weight_decay=DECAY,
        label_smoothing=SMOOTHING, class_indices={str(n): n for n in range(CLASSES)},
    )  # fmt: skip
    torch.manual_seed(0)
    processes = Processes(Accelerator(cpu=True))
    return AutogradTrainer(problem, make_plan(epochs), config, processes)


def on_disk(shard: Shard) -> Shard:
    rows = shard.x.numpy()
    stream = Stream(
        lambda wanted, out: np.copyto(out, rows[wanted]), np.arange(len(rows)), rows.shape[1],
        lambda x: x,
    )  # fmt: skip
    return replace(shard, x=stream)


def test_it_is_what_a_loop_in_torch_trains(sides: tuple[Shard, Shard]):
    train, validation = sides
    trainer = make_trainer(sides)
    network = deepcopy(trainer.head)
    counts = torch.bincount(train.target[0], minlength=CLASSES)
    weights = counts.sum() / (CLASSES * counts)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    criterion = smoothed_loss(weights, SMOOTHING)
    plain, rng = nn.CrossEntropyLoss(weights), np.random.default_rng(0)
    for epoch in trainer:
        for window in batch_windows(len(train), 64, rng):
            rows = torch.cat([torch.arange(*part) for part in window])
            optimizer.zero_grad()
            criterion(network(train.x[rows]), train.target[0, rows]).backward()
            optimizer.step()
        with torch.no_grad():
            logits = network(validation.x)
        assert float(epoch.validation_loss) == pytest.approx(
            float(plain(logits, validation.target[0])), rel=1e-4
        )
        hits = int((logits.argmax(dim=1) == validation.target[0]).sum())
        assert int(epoch.confusion.diagonal().sum()) == hits
        assert int(epoch.confusion.sum()) == len(validation)


@pytest.mark.parametrize("killed_after", [1, 2, 3])
def test_it_goes_on_bit_for_bit(sides: tuple[Shard, Shard], killed_after: int):
    expected = make_trainer(sides)
    run(expected)
    first = make_trainer(sides)
    for epoch in first:
        if epoch.number + 1 == killed_after:
            break
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = make_trainer(sides)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert [epoch.number for epoch in second] == list(range(killed_after, 3))
    weights, same_weights = (t.result().model.network.state_dict() for t in (second, expected))
    assert all(torch.equal(weights[name], same_weights[name]) for name in same_weights)


@pytest.mark.parametrize("normalize", ["none", "zscore"])
def test_tiles_on_the_disk_are_those_in_memory(sides: tuple[Shard, Shard], normalize: str):
    """The registered network takes raw embeddings, and says of them what the trainer said."""
    memory, disk = (
        make_trainer(each, normalize, epochs=0) for each in (sides, tuple(map(on_disk, sides)))
    )
    for trainer in (memory, disk):
        loss, confusion = trainer.result().evaluate()
        expected_loss, expected = memory.result().evaluate()
        torch.testing.assert_close(loss, expected_loss)
        assert torch.equal(confusion, expected)
        probabilities = trainer.result().out_of_fold(torch.tensor([0]))
        torch.testing.assert_close(trainer.result().model.network(sides[1].x), probabilities)
    result = run(make_trainer(tuple(map(on_disk, sides)), normalize, epochs=12))
    hits = result.evaluate()[1].sum(dim=0).diagonal().sum()
    assert float(hits) / len(sides[1]) > 0.6


def test_tiles_that_only_masks_tell_apart_are_refused(sides: tuple[Shard, Shard]):
    trainer = make_trainer(sides)
    together = replace(trainer.problem, validation=trainer.problem.train)
    with pytest.raises(ValueError, match="a shard of their own"):
        AutogradTrainer(together, trainer.plan, Config(), trainer.processes)


def test_its_learning_rate_follows_the_schedule(sides: tuple[Shard, Shard]):
    trainer = make_trainer(sides)
    trainer.plan = replace(trainer.plan, schedule=Schedule("linear", 1, 3))
    rates = [trainer.optimizer.param_groups[0]["lr"] for _ in trainer]
    assert rates == pytest.approx([RATE / 2, RATE, RATE / 2])
