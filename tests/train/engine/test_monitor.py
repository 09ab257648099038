"""Which epoch is kept, and when heads stop, against scikit-learn's F1 and a hand-written rule."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_problems import CLASSES, make_heads, make_plan, make_problem, make_weights, of_rank, run
from ranks import ranks
from sklearn.metrics import f1_score

from train.engine.minibatch import MiniBatchTrainer
from train.engine.monitor import MONITORS
from train.engine.problem import Problem
from train.engine.shard import Reduce, Shard

HEADS = make_heads(
    variant=[0, 0, 1], fold=[0, 1, 2], learning_rate=[0.3, 0.1, 0.05], label_smoothing=[0.0, 0.3, 0]
)
EPOCHS = 9
PATIENCE = 2


def figures(problem: Problem) -> dict[str, np.ndarray]:
    """Return each monitored figure of every head and epoch, shape (H, epochs)."""
    trainer = MiniBatchTrainer(problem, make_plan(EPOCHS), make_weights(len(HEADS)))
    values: dict[str, list] = {name: [] for name in MONITORS}
    for epoch in trainer:
        values["train/loss"].append(epoch.train_loss.tolist())
        values["validation/loss"].append(epoch.validation_loss.tolist())
        shard, f1 = problem.validation, []
        for head in range(len(HEADS)):
            variant = int(HEADS.variant[head])
            rows = shard.fold[variant] == HEADS.fold[head]
            logits = trainer.stepper.weights.select(torch.tensor([head])).logits(shard.x[rows])[0]
            truth, guess = shard.target[variant, rows].numpy(), logits.argmax(dim=0).numpy()
            f1.append(f1_score(truth, guess, average="macro"))
        values["validation/f1_macro"].append(f1)
    return {name: np.array(value).T for name, value in values.items()}


def kept(values: np.ndarray, patience: int = PATIENCE) -> int:
    """Return the best epoch, lower being better, of those before a head has stopped."""
    best = 0
    for epoch, value in enumerate(values):
        best = epoch if value < values[best] else best
        if epoch - best >= patience:
            break
    return best


@pytest.mark.parametrize("monitor", MONITORS)
def test_the_monitored_figure_alone_decides(shard: Shard, monitor: str):
    problem = make_problem(shard, HEADS)
    every = figures(problem)
    sign = -1 if MONITORS[monitor] == "highest" else 1
    expected = [kept(sign * values) for values in every[monitor]]
    plan = make_plan(EPOCHS, PATIENCE, monitor=monitor)
    trainer = MiniBatchTrainer(problem, plan, make_weights(len(HEADS)))
    last = {head: epoch.number for epoch in trainer for head in epoch.active.tolist()}
    result = trainer.result()
    assert result.best_epoch.tolist() == expected
    ends = [min(epoch + PATIENCE, EPOCHS - 1) for epoch in expected]
    assert [last[head] for head in range(len(HEADS))] == ends
    losses = every["validation/loss"][np.arange(len(HEADS)), expected]
    np.testing.assert_allclose(result.best_loss, losses, rtol=1e-5)
    np.testing.assert_allclose(result.evaluate()[0], losses, rtol=1e-5)


def test_the_monitors_disagree_here(shard: Shard):
    """Else the test above would pass whatever was looked at."""
    every = figures(make_problem(shard, HEADS))
    chosen = {
        tuple(kept(values if MONITORS[name] == "lowest" else -values) for values in every[name])
        for name in MONITORS
    }
    assert len(chosen) == 3


@pytest.mark.parametrize("monitor", MONITORS)
def test_it_goes_on_from_a_state_and_over_processes(shard: Shard, monitor: str):
    problem = make_problem(shard, HEADS)
    plan = make_plan(EPOCHS, PATIENCE, monitor=monitor)
    expected = run(MiniBatchTrainer(problem, plan, make_weights(len(HEADS))))
    first = MiniBatchTrainer(problem, plan, make_weights(len(HEADS)))
    for epoch in first:
        if epoch.number == 2:
            break
    second = MiniBatchTrainer(problem, plan)
    second.load_state_dict(first.state_dict())
    assert torch.equal(run(second).best_epoch, expected.best_epoch)
    assert torch.equal(second.result().weights.weight, expected.weights.weight)

    def work(share: Shard, reduce: Reduce) -> torch.Tensor:
        part = of_rank(problem, share, reduce)
        return run(MiniBatchTrainer(part, plan, make_weights(len(HEADS)))).best_epoch

    assert all(torch.equal(epochs, expected.best_epoch) for epochs in ranks(shard, 2, work))


def test_of_tiles_apart_the_confusion_says_the_same(shard: Shard):
    """A single head counts a confusion matrix; heads side by side count by class."""
    apart = replace(shard.cut(slice(400, None)), fold=torch.zeros((2, 200), dtype=torch.int64))
    apart = replace(apart, target=apart.target.clamp(min=0))
    rest = replace(shard.cut(slice(400)), fold=shard.fold[:, :400].clamp(max=0) + 1)
    heads = make_heads(learning_rate=[0.3])
    problem = Problem.prepare((rest, apart), heads, CLASSES, lambda value: value)
    plan = make_plan(EPOCHS, PATIENCE, monitor="validation/f1_macro")
    trainer, values = MiniBatchTrainer(problem, plan, make_weights(1)), []
    labels = np.arange(CLASSES)
    for epoch in trainer:
        cells = epoch.confusion.flatten().numpy()
        truth = np.repeat(np.repeat(labels, CLASSES), cells)
        guess = np.repeat(np.tile(labels, CLASSES), cells)
        values.append(f1_score(truth, guess, average="macro"))
    assert trainer.result().best_epoch.tolist() == [kept(-np.array(values))]
    assert float(trainer.best_value) == pytest.approx(-max(values))
