"""The trainer of heads that only autograd knows: the MLP, on one process or many."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix

from train.config.schema import Config
from train.engine.losses import cross_entropy_sum
from train.engine.monitor import f1_of_confusion, monitored
from train.engine.optimizers import OPTIMIZERS
from train.engine.problem import Problem, TrainPlan
from train.engine.shard import Shard
from train.engine.standardizer import Standardizer
from train.engine.stream import Stream
from train.engine.trainer import Epoch, FitResult
from train.models.checkpoint import ModelSpec, TrainedModel, copy_state
from train.models.heads import Standardize
from train.models.inference import BLOCK, Applied, apply_network
from train.runtime.processes import Processes


@dataclass
class NetworkResult(FitResult):
    """A network as it was at its best epoch.

    Parameters
    ----------
    trainer
        Whose head has the weights of that epoch.
    """

    trainer: "AutogradTrainer | None" = None

    @property
    def model(self) -> TrainedModel:
        """The network as it is registered: backbone, head, probabilities."""
        assert self.trainer
        network = copy.deepcopy(self.trainer.network)
        network.get_submodule("head").load_state_dict(self.trainer.best)
        return TrainedModel(network.eval().requires_grad_(False), self.trainer.spec)

    def evaluate(self, counted: bool = True) -> tuple[Tensor, Tensor]:
        """Return loss, shape (1,), and confusion, shape (1, K, K)."""
        assert self.trainer
        loss, confusion = self.trainer.summarise(self._applied)
        return loss, confusion[None]

    def out_of_fold(self, heads: Tensor) -> Tensor:
        """Return the probabilities of the local validation rows, shape (local rows, K)."""
        return self._applied.probabilities

    @cached_property
    def _applied(self) -> Applied:
        assert self.trainer
        return self.trainer.apply(self.model.network.get_submodule("head"))


class AutogradTrainer:
    """A `train.engine.trainer.Trainer` of one head of any kind.

    Processes average their gradients (DistributedDataParallel); the batches are those of one
    process, whatever their number.

    Parameters
    ----------
    problem
        Of one head.
    plan
        How it is trained.
    config
        Says which head.
    processes
        Who shares the work.

    Raises
    ------
    ValueError
        The tiles to validate on are among those to train on, where only masks tell them apart.
    """

    def __init__(
        self, problem: Problem, plan: TrainPlan, config: Config, processes: Processes
    ) -> None:
        if problem.train is problem.validation:
            raise ValueError(
                "a head by autograd wants its validation tiles in a shard of their own"
            )
        self.plan, self.processes = plan, processes
        self.weights = problem.losses.class_weights[0]
        self.smoothing = config.label_smoothing
        self.learning = (config.learning_rate, config.weight_decay)
        self.spec = ModelSpec(
            config.head, config.hidden, config.normalize, problem.train.dim, config.class_names,
            self.weights.tolist(),
        )  # fmt: skip
        self.network = self.spec.build().to(processes.device)
        backbone = self.network.get_submodule("backbone")
        self.train, self.validation = problem.train, problem.validation
        if isinstance(backbone, Standardize):
            assert problem.standardizer
            backbone.mean.copy_(problem.standardizer.mean[0])
            backbone.scale.copy_(problem.standardizer.scale[0])
            # The backbone is frozen: its features take the place of the embeddings.
            self.train = standardized(problem.train, problem.standardizer)
            self.validation = standardized(problem.validation, problem.standardizer)
        self.problem = problem
        self.head = self.network.get_submodule("head")
        self.best = copy_state(self.head)
        self.optimizer: torch.optim.Optimizer = OPTIMIZERS[plan.optimizer](
            self.head.parameters(), *self.learning
        )
        self.rng = np.random.default_rng(plan.seed)  # the same on every process: so are the batches
        self.epoch = self.epochs_without_improvement = 0
        self.best_epoch = 0
        self.best_loss = self.best_value = self.reference = math.inf

    def __iter__(self) -> Iterator[Epoch]:
        """Train until the monitored figure has stopped getting better."""
        accelerator, plan = self.processes.accelerator, self.plan
        head, optimizer = accelerator.prepare(self.head, self.optimizer)
        while self.epoch < plan.max_epochs and self.epochs_without_improvement < plan.patience:
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning[0] * plan.schedule.share(self.epoch)
            train_loss = self.train_epoch(head, optimizer)
            loss, confusion = self.summarise(self.apply(self.head))
            epoch = Epoch(
                number=self.epoch,
                active=torch.zeros(1, dtype=torch.int64),
                train_loss=torch.tensor([train_loss], dtype=torch.float64),
                validation_loss=loss.cpu(),
                confusion=confusion,
            )
            value = monitored(
                plan.monitor, epoch.train_loss, loss.cpu(), f1_of_confusion(confusion[None]).cpu()
            )
            self.update(float(loss), float(value))
            yield epoch

    def train_epoch(self, head: nn.Module, optimizer: torch.optim.Optimizer) -> float:
        """Take one step per batch; return the mean loss, each tile weighted by its class."""
        world, reduce = self.processes.world, self.processes.all_reduce
        device = self.weights.device
        sums = torch.zeros(2, dtype=torch.float64, device=device)  # of losses, and of weights
        for pieces in self.train.batches(self.plan.batch_size, self.rng):
            x, target = joined(pieces)
            weight = reduce(self.weights[target].sum(dtype=torch.float64))
            logits = head(x.to(device, non_blocking=True).float())
            loss = cross_entropy_sum(logits, target, self.weights, self.smoothing)
            # Processes average their gradients; times their number, that is the sum we want.
            self.processes.accelerator.backward(loss * (world / weight).float())
            optimizer.step()
            optimizer.zero_grad()
            sums += torch.stack([loss.detach().double(), weight / world])
        total = reduce(sums)
        return float(total[0] / total[1])

    @torch.no_grad()
    def apply(self, head: nn.Module) -> Applied:
        """Return what a head makes of the local validation rows."""
        blocks = (joined([block]) for block in self.validation.blocks(BLOCK))
        return apply_network(lambda x: head(x.float()), blocks, self.weights)

    def summarise(self, applied: Applied) -> tuple[Tensor, Tensor]:
        """Return the loss, shape (1,), and the confusion, shape (K, K), over all processes."""
        shard = self.validation
        confusion = MulticlassConfusionMatrix(len(self.weights), validate_args=False)
        confusion = confusion.to(shard.device)
        confusion.update(applied.predicted, shard.target[0])
        sums = self.processes.all_reduce(applied.sums)
        return (sums[0] / sums[1].clamp(min=1e-12))[None], confusion.compute()

    def update(self, loss: float, value: float) -> None:
        """Keep the head if it is better than ever; count epochs without a better figure.

        Parameters
        ----------
        loss
            Of the validation tiles.
        value
            What is monitored: lower is better.
        """
        if value < self.best_value and math.isfinite(loss):
            self.best, self.best_loss, self.best_value = copy_state(self.head), loss, value
            self.best_epoch = self.epoch
        # min_delta decides on patience alone: the best checkpoint is the best, by any margin.
        improved = value < self.reference - self.plan.min_delta
        self.reference = value if improved else self.reference
        self.epochs_without_improvement = 0 if improved else self.epochs_without_improvement + 1
        self.epoch += 1

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next epoch needs."""
        return {
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": self.rng.bit_generator.state,
            "best": self.best,
            "epochs": (self.epoch, self.best_epoch, self.epochs_without_improvement),
            "losses": (self.best_loss, self.best_value, self.reference),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.bit_generator.state = state["rng"]
        self.best = state["best"]
        self.epoch, self.best_epoch, self.epochs_without_improvement = state["epochs"]
        self.best_loss, self.best_value, self.reference = state["losses"]

    def result(self) -> NetworkResult:
        """Return the head as it was at its best epoch so far."""
        epoch, loss = torch.tensor([self.best_epoch]), torch.tensor([self.best_loss])
        return NetworkResult(self.problem, None, epoch, loss, trainer=self)


def standardized(shard: Shard, standardizer: Standardizer) -> Shard:
    """Return the rows with standardised embeddings; those in memory are written over."""
    mean, scale = standardizer.mean[0], standardizer.scale[0]

    def transform(x: Tensor) -> Tensor:
        return (x.to(mean.device) - mean) / scale

    if isinstance(shard.x, Stream):
        return replace(shard, x=shard.x.then(lambda x: transform(x).cpu()))
    for block in shard.x.split(BLOCK):
        block.copy_(transform(block))
    return shard


def joined(pieces: list[Shard]) -> tuple[Tensor, Tensor]:
    """Return the embeddings and targets of pieces in memory; of one, without a copy."""
    x = [piece.x for piece in pieces if isinstance(piece.x, Tensor)]
    target = [piece.target[0] for piece in pieces]
    return (x[0], target[0]) if len(x) == 1 else (torch.cat(x), torch.cat(target))
