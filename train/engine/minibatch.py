"""Many linear heads by mini-batches, in one pass over the embeddings an epoch.

The heads of all folds and settings stand side by side in one matrix, so that a batch is read once
and multiplied once. A tile that a head must not see, because it is in the head's validation fold or
its setting leaves it out, has weight 0 in that head's loss: masks are all that tells heads apart.
Every head has its own class weights, optimizer state, early stopping and best epoch; one that has
stopped leaves the product.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from train.engine.cuda_graph import EpochRunner
from train.engine.evaluate import evaluate, evaluate_classes
from train.engine.monitor import F1, f1_macro, f1_of_confusion, monitored
from train.engine.problem import Problem, TrainPlan
from train.engine.shard import DROPPED
from train.engine.stepper import Stepper
from train.engine.threads import few_threads
from train.engine.trainer import Epoch, FitResult
from train.engine.weights import LinearHeads


class MiniBatchTrainer:
    """A `train.engine.trainer.Trainer` by AdamW or SGD; each head stops for itself.

    The batches are the same whatever the heads and however many processes: a head trained beside
    others is the head trained alone.

    Parameters
    ----------
    problem, plan
        What is trained, and how.
    initial
        Weights to start from; those of the plan's seed otherwise.
    """

    def __init__(
        self, problem: Problem, plan: TrainPlan, initial: LinearHeads | None = None
    ) -> None:
        self.problem, self.plan = problem, plan
        weights = initial or problem.initial_weights(plan.seed)
        number = len(problem.heads)
        infinite = torch.full((number,), float("inf"), dtype=torch.float64)
        zeros = torch.zeros(number, dtype=torch.int64)
        self.epoch = 0  # the next one
        self.active = torch.arange(number)
        self.best = FitResult(problem, weights.clone(), zeros, infinite)
        self.best_value = infinite.clone()  # of the monitored figure, of which lower is better
        self.reference = infinite.clone()  # that patience is counted from
        self.epochs_without_improvement = zeros.clone()
        self.stepper = Stepper(plan.optimizer, problem.heads, weights.clone())
        self.rng = np.random.default_rng(plan.seed)

    def __iter__(self) -> Iterator[Epoch]:
        """Train until every head has stopped."""
        with few_threads(self.problem, self.plan.batch_size):
            yield from self._epochs()

    def _epochs(self) -> Iterator[Epoch]:
        participants = 0
        while len(self.active) and self.epoch < self.plan.max_epochs:
            if len(self.active) != participants:  # at first, and whenever heads have left
                participants = len(self.active)
                problem = self.problem.select(self.active)
                runner = self._runner(problem)
            if self.plan.schedule.varies:
                self.stepper.scale(self.plan.schedule.share(self.epoch))
            sums = runner.run(self.rng)
            raw = problem.on_raw(self.stepper.weights)
            loss, confusion, f1 = self._validate(problem, raw)
            train_loss = (sums[0] / sums[1]).cpu()
            epoch = Epoch(
                number=self.epoch,
                active=self.active,
                train_loss=train_loss,
                validation_loss=loss,
                confusion=confusion,
            )
            value = monitored(self.plan.monitor, train_loss, loss, f1)
            self.update(raw, loss, value, (problem.heads.fold == DROPPED).cpu())
            yield epoch

    def _validate(
        self, problem: Problem, weights: LinearHeads
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return loss, the confusion where it is wanted, and macro F1 where it is known."""
        counted = self.problem.validation is not self.problem.train
        if self.plan.monitor == F1 and not counted:
            loss, classes = evaluate_classes(problem, weights)
            return loss.cpu(), None, f1_macro(*classes).cpu()
        loss, confusion = evaluate(problem, weights, counted)
        if not counted:
            return loss.cpu(), None, torch.empty(0)
        return loss.cpu(), confusion[0], f1_of_confusion(confusion).cpu()

    def _runner(self, problem: Problem) -> EpochRunner:
        stepper = self.stepper
        return EpochRunner(
            problem.train,
            self.plan.batch_size,
            lambda pieces: stepper.step(pieces, problem),
            capturable=stepper.capturable,
        )

    def update(
        self, weights: LinearHeads, loss: Tensor, value: Tensor, trains_on_all: Tensor
    ) -> None:
        """Keep what is better, let go of heads without improvement for too long.

        Parameters
        ----------
        weights
            Of the active heads, on embeddings as they are.
        loss
            Their validation losses.
        value
            What is monitored of them: lower is better.
        trains_on_all
            Which of them have no validation fold: their last epoch is their best.
        """
        active, best = self.active, self.best
        assert best.weights
        better = (value < self.best_value[active]) & loss.isfinite() | trains_on_all
        for index in better.nonzero()[:, 0].tolist():
            head = int(active[index])
            best.weights.weight[head] = weights.weight[index]
            best.weights.bias[head] = weights.bias[index]
            best.best_epoch[head], best.best_loss[head] = self.epoch, loss[index]
            self.best_value[head] = value[index]
        # min_delta decides on patience alone: the best epoch is the best, by any margin.
        improved = (value < self.reference[active] - self.plan.min_delta) | trains_on_all
        self.reference[active] = torch.where(improved, value, self.reference[active])
        unimproved = torch.where(improved, 0, self.epochs_without_improvement[active] + 1)
        self.epochs_without_improvement[active] = unimproved
        going_on = (unimproved < self.plan.patience) & loss.isfinite()
        if not going_on.all():
            self.stepper.keep(going_on.nonzero()[:, 0])
            self.active = active[going_on]
        self.epoch += 1

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next epoch needs."""
        best, stepper = self.best, self.stepper
        assert best.weights
        return {
            "epoch": self.epoch,
            "active": self.active,
            "best": (best.weights.weight, best.weights.bias),
            "best_epoch": best.best_epoch,
            "best_loss": best.best_loss,
            "best_value": self.best_value,
            "reference": self.reference,
            "epochs_without_improvement": self.epochs_without_improvement,
            "weights": (stepper.weights.weight, stepper.weights.bias),
            "sizes": stepper.sizes,
            "optimizer": stepper.optimizer.state_dict(),
            "rng": self.rng.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        state = deepcopy(state)  # which a trainer that goes on with it changes in place
        device, plan = self.problem.train.device, self.plan
        self.epoch, self.active = state["epoch"], state["active"]
        best = LinearHeads(*state["best"]).to(device)
        self.best = FitResult(self.problem, best, state["best_epoch"], state["best_loss"])
        self.best_value, self.reference = state["best_value"], state["reference"]
        self.epochs_without_improvement = state["epochs_without_improvement"]
        if len(self.active):  # else no step follows, and torch refuses an optimizer of nothing
            weights = LinearHeads(*state["weights"]).to(device)
            heads = self.problem.heads.select(self.active)
            self.stepper = Stepper(plan.optimizer, heads, weights, state["sizes"])
            self.stepper.optimizer.load_state_dict(state["optimizer"])
        self.rng.bit_generator.state = state["rng"]

    def result(self) -> FitResult:
        """Return every head as it was at its best epoch so far."""
        return self.best
