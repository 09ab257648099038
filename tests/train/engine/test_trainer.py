"""Every way to train heads is used alike, and its results are asked alike."""

from collections.abc import Callable

import pytest
import torch
from engine_problems import (
    CLASSES,
    SLIDES,
    make_heads,
    make_plan,
    make_problem,
    make_weights,
    of_rank,
)
from ranks import ranks

from train.engine.evaluate import evaluate, out_of_fold
from train.engine.minibatch import MiniBatchTrainer
from train.engine.problem import Problem
from train.engine.shard import DROPPED, Reduce, Shard
from train.engine.solvers.closed_form import CLOSED, ClosedFormTrainer
from train.engine.solvers.knn import NearestNeighbours, Voting
from train.engine.solvers.lbfgs import LbfgsTrainer
from train.engine.trainer import Epoch, FitResult, Trainer

HEADS = make_heads(
    variant=[0, 0, 0, 1, 0],
    fold=[0, 1, 2, 3, DROPPED],
    max_slide_rank=[1.0, 0.6, 1.0, 1.0, 1.0],
    weight_decay=[0.1, 0.05, 0.2, 0.1, 0.1],
    label_smoothing=[0.0, 0.1, 0.0, 0.2, 0.0],
)
FOLDS = torch.tensor([0, 1, 2])  # heads that validate on three folds of one variant


def minibatch(optimizer: str) -> Callable[[Problem, Shard], Trainer]:
    plan = make_plan(6, patience=1, min_delta=0.2, optimizer=optimizer)
    return lambda problem, shard: MiniBatchTrainer(problem, plan, make_weights(len(problem.heads)))


def closed_form(name: str) -> Callable[[Problem, Shard], Trainer]:
    return lambda problem, shard: ClosedFormTrainer(problem, name)


TRAINERS: dict[str, Callable[[Problem, Shard], Trainer]] = {
    "adamw": minibatch("adamw"),
    "sgd": minibatch("sgd"),
    "lbfgs": lambda problem, shard: LbfgsTrainer(problem, make_plan(100)),
    **{name: closed_form(name) for name in CLOSED},
    "knn": lambda problem, shard: NearestNeighbours(
        problem, shard, [Voting(5)] * len(problem.heads)
    ),
}
WITHOUT_EPOCHS = {*CLOSED, "knn"}


@pytest.mark.parametrize("name", TRAINERS)
def test_epochs_are_numbered_and_tell_of_the_heads_that_took_part(shard: Shard, name: str):
    trainer = TRAINERS[name](make_problem(shard, HEADS), shard)
    epochs = list(trainer)
    assert (len(epochs) == 0) == (name in WITHOUT_EPOCHS)
    assert [epoch.number for epoch in epochs] == list(range(len(epochs)))
    active = set(range(len(HEADS)))
    for epoch in epochs:
        assert isinstance(epoch, Epoch)
        assert set(epoch.active.tolist()) <= active
        active = set(epoch.active.tolist())
        assert epoch.train_loss.shape == epoch.validation_loss.shape == epoch.active.shape
        assert epoch.train_loss.isfinite().all()


@pytest.mark.parametrize("name", TRAINERS)
def test_results_are_asked_alike(shard: Shard, name: str):
    problem = make_problem(shard, HEADS, zscore=True)
    trainer = TRAINERS[name](problem, shard)
    number_of_epochs = len(list(trainer))
    result = trainer.result()
    assert isinstance(result, FitResult)
    assert result.best_epoch.shape == (len(HEADS),)
    assert int(result.best_epoch.max()) <= max(number_of_epochs - 1, 0)
    loss, confusion = result.evaluate()
    assert confusion.shape == (len(HEADS), CLASSES, CLASSES)
    validated = [(shard.fold[int(variant)] == fold).sum() * (fold != DROPPED)
                 for variant, fold in zip(HEADS.variant, HEADS.fold, strict=True)]  # fmt: skip
    assert confusion.sum(dim=(1, 2)).tolist() == validated
    hits = confusion.diagonal(dim1=1, dim2=2).sum() / confusion.sum()
    assert float(hits) > 0.4  # of ten classes: they have learned
    by_cluster_loss, cells = result.evaluate_by_cluster()
    assert torch.equal(by_cluster_loss, loss)
    for head in range(len(HEADS)):
        of_head = cells.select(head * SLIDES, (head + 1) * SLIDES).matrix()
        assert torch.equal(torch.from_numpy(of_head), confusion[head])
    torch.testing.assert_close(result.best_loss, loss, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(result.evaluate(counted=False)[0], loss)
    probabilities = result.out_of_fold(FOLDS)
    assert probabilities.shape == (len(shard), CLASSES)
    seen = torch.isin(shard.fold[0], FOLDS)
    torch.testing.assert_close(probabilities.sum(dim=1), seen.float())
    predicted = probabilities.argmax(dim=1)
    for fold in FOLDS.tolist():
        rows = shard.fold[0] == fold
        correct = (predicted == shard.target[0])[rows].sum()
        assert correct == confusion[fold].diagonal().sum()
    if result.weights:
        expected_loss, expected_confusion = evaluate(problem, result.weights)
        assert torch.equal(loss, expected_loss)
        assert torch.equal(confusion, expected_confusion)
        single = out_of_fold(problem.select(FOLDS), result.weights.select(FOLDS))
        assert torch.equal(probabilities, single)


@pytest.mark.parametrize("name", TRAINERS)
def test_a_trainer_goes_on_from_a_state_in_a_file(shard: Shard, name: str, tmp_path):
    """Also from before the first epoch; a solver begins again, and finds the same."""
    problem = make_problem(shard, HEADS)
    expected = TRAINERS[name](problem, shard)
    torch.save(expected.state_dict(), tmp_path / "first.pt")
    for epoch in expected:
        if epoch.number == 2:
            torch.save(expected.state_dict(), tmp_path / "third.pt")
    for file in tmp_path.iterdir():
        trainer = TRAINERS[name](problem, shard)
        trainer.load_state_dict(torch.load(file, weights_only=True))
        for _ in trainer:
            pass
        result = trainer.result()
        assert torch.equal(result.best_epoch, expected.result().best_epoch)
        assert torch.equal(result.best_loss, expected.result().best_loss)
        assert torch.equal(result.out_of_fold(FOLDS), expected.result().out_of_fold(FOLDS))


@pytest.mark.parametrize("name", TRAINERS)
def test_processes_train_what_one_trains(shard: Shard, name: str):
    problem = make_problem(shard, HEADS, zscore=True)

    def work(share: Shard, reduce: Reduce) -> tuple[torch.Tensor, ...]:
        trainer = TRAINERS[name](of_rank(problem, share, reduce), shard)
        for _ in trainer:
            pass
        result = trainer.result()
        return *result.evaluate(), result.out_of_fold(FOLDS), share.positions

    loss, _, probabilities, _ = work(shard, problem.reduce)
    for result in ranks(shard, 2, work):
        torch.testing.assert_close(result[0], loss, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(result[2], probabilities[result[3]], rtol=1e-2, atol=2e-3)
