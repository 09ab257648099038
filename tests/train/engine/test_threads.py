"""A fit whose products are small asks torch for one thread, and gives the others back."""

from collections.abc import Iterator

import pytest
import torch
from engine_problems import MANY, make_plan, make_problem
from torch import Tensor

from train.engine.minibatch import MiniBatchTrainer
from train.engine.problem import Problem, TrainPlan
from train.engine.shard import Shard
from train.engine.solvers.lbfgs import LbfgsTrainer
from train.engine.threads import few_threads


@pytest.fixture(autouse=True)
def _three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def reducing(problem: Problem, threads: set[int]) -> Problem:
    """Return a problem that notes with how many threads its sums are made."""

    def reduce(value: Tensor) -> Tensor:
        threads.add(torch.get_num_threads())
        return value

    return Problem(**{**vars(problem), "reduce": reduce})


@pytest.mark.parametrize("trainer", [MiniBatchTrainer, LbfgsTrainer])
def test_a_small_fit_uses_one_thread_and_gives_the_others_back(
    shard: Shard, trainer: type[MiniBatchTrainer | LbfgsTrainer]
):
    threads: set[int] = set()
    epochs = iter(trainer(reducing(make_problem(shard, MANY), threads), make_plan(3)))
    threads.clear()
    next(epochs)
    epochs.close()
    assert threads == {1}
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(("rows", "used"), [(1_024, 1), (16_384, 3)])
def test_what_is_worked_on_at_once_decides(shard: Shard, rows: int, used: int):
    with few_threads(make_problem(shard, MANY), rows):  # 64 dimensions
        assert torch.get_num_threads() == used


def test_an_error_gives_them_back(shard: Shard):
    with pytest.raises(ZeroDivisionError), few_threads(make_problem(shard, MANY), 1):
        raise ZeroDivisionError
    assert torch.get_num_threads() == 3


def test_threads_do_not_change_what_is_trained(shard: Shard):
    """The oracle: the same fit in a process that has one thread."""
    plan: TrainPlan = make_plan(3)
    fits = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        trainer = MiniBatchTrainer(make_problem(shard, MANY), plan)
        fits.append([epoch.validation_loss.tolist() for epoch in trainer])
    assert fits[0] == fits[1]
