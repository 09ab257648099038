"""From a configuration to the trainer of its heads."""

from dataclasses import replace

import torch

from train.config.schema import CLOSED, SOLVERS, Config, ConfigError
from train.config.sweep import Setting
from train.engine.heads import HeadSpecs
from train.engine.minibatch import MiniBatchTrainer
from train.engine.problem import Problem, TrainPlan
from train.engine.schedule import Schedule
from train.engine.solvers.closed_form import ClosedFormTrainer
from train.engine.solvers.gram_matrix import list_strata
from train.engine.solvers.knn import NearestNeighbours, Voters, Voting
from train.engine.solvers.lbfgs import LbfgsTrainer
from train.engine.trainer import Trainer
from train.fitting.grid import HeadGrid
from train.fitting.load import Shards, load_all, memory_budget
from train.fitting.selection import Choice
from train.fitting.training import final_config
from train.runtime.processes import Processes


def build_trainer(config: Config, grid: HeadGrid, shards: Shards, processes: Processes) -> Trainer:
    """Return the trainer of a grid's heads.

    Raises
    ------
    ConfigError
        What a closed form needs does not fit into memory.
    """
    heads = grid.heads.to(processes.device)
    problem = _problem(config, heads, shards, processes)
    plan = train_plan(config)
    if config.head != "linear":
        from train.fitting.autograd import AutogradTrainer  # a second of torchmetrics

        return AutogradTrainer(problem, plan, config, processes)
    if config.probe == "knn":
        reference = load_all(shards, config, processes)
        votings = [_voting(setting) for setting in grid.settings for _ in grid.folds]
        return NearestNeighbours(problem, reference, votings)
    return _linear_trainer(config, problem, plan)


def build_voters(
    config: Config, grid: HeadGrid, shards: Shards, processes: Processes, choice: Choice
) -> Voters:
    """Return the tiles of all folds, which vote as the best setting says."""
    assert grid.final
    head = grid.final.select(torch.tensor([choice.setting])).to(processes.device)
    reference = load_all(shards, config, processes)
    voting = _voting(grid.settings[choice.setting])
    return Voters.of(_problem(config, head, shards, processes), reference, [voting])


def _voting(setting: Setting) -> Voting:
    return Voting(setting.neighbours, setting.neighbour_weights, setting.neighbour_metric)


def build_final_trainer(
    config: Config, grid: HeadGrid, shards: Shards, processes: Processes, choice: Choice
) -> Trainer:
    """Return the trainer of one more head of the best setting, on all folds; see `final_config`."""
    assert grid.final
    head = grid.final.select(torch.tensor([choice.setting])).to(processes.device)
    problem = _problem(config, head, shards, processes)
    plan = train_plan(final_config(config, grid, choice))
    # The rates of the heads that it is made after: over the most epochs, not those it is given.
    return _linear_trainer(config, problem, replace(plan, schedule=train_plan(config).schedule))


def _problem(config: Config, heads: HeadSpecs, shards: Shards, processes: Processes) -> Problem:
    return Problem.prepare(
        (shards.train, shards.validation), heads, len(config.class_names), processes.all_reduce,
        zscore=config.normalize == "zscore",
    )  # fmt: skip


def _linear_trainer(config: Config, problem: Problem, plan: TrainPlan) -> Trainer:
    if config.probe in CLOSED:
        check_memory(problem, config)
        return ClosedFormTrainer(problem, config.probe)
    if config.optimizer in SOLVERS:
        return LbfgsTrainer(problem, plan)
    return MiniBatchTrainer(problem, plan)


def train_plan(config: Config) -> TrainPlan:
    """Return how a configuration trains."""
    return TrainPlan(
        config.optimizer, config.batch_size, config.max_epochs, config.patience, config.min_delta,
        config.seed, config.monitor,
        Schedule(config.schedule, config.warmup_epochs, config.max_epochs),
    )  # fmt: skip


def check_memory(problem: Problem, config: Config) -> None:
    """Refuse Gram matrices that do not fit into memory.

    Raises
    ------
    ConfigError
        They do not.
    """
    matrices = len(list_strata(problem.heads, problem.classes)[0])
    dim, budget = problem.train.dim, memory_budget(config)
    size = 0 if config.probe == "prototype" else matrices * 8 * dim**2
    if size > budget:
        raise ConfigError(
            f"The moments of probe={config.probe} do not fit into memory",
            found=f"{matrices} Gram matrices of {dim} x {dim}: {size / 1e9:.1f} GB, "
            f"{budget / 1e9:.1f} GB to spend",
            fix="sweep fewer thresholds, strategies or shares of slides at once, or fewer folds",
        )
